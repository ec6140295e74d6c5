"""CLCR's teacher, its variants, its students and two plain baselines on mosi-utterance: five folds by video, several seeds.

    python benchmarks/mosi_utterance.py --root DIR
    python benchmarks/mosi_utterance.py --root DIR --longer    teacher and students alone, a page of its own

DIR holds bc-LSTM's CSV files. Every row of CLCR's has the same budget (AdamW, the same epochs), the GRU 30 epochs of a video a
step; of each the best epoch counts, by the fold's own validation videos. A seed's figure is over all utterances, each tested
once; a row is the mean over the seeds and the spread between them. What is there already in the JSON file is not computed
again, so that a run may be cut and go on.

The public features leak the labels (`clcr_edge.train.set_scores.LEAKS`): the page says so, and its rows rank nothing.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from clcr_edge.data.sets import DataSet, load
from clcr_edge.model.teacher.config import teacher_to_table
from clcr_edge.model.teacher.variants import VARIANTS
from clcr_edge.packets import Modality
from clcr_edge.runtime.machine import machine_table
from clcr_edge.train.field_metrics import Scores, segment_scores
from clcr_edge.train.judge import judge_set
from clcr_edge.train.samples import network_for
from clcr_edge.train.set_scores import LEAKS, splits_of
from clcr_edge.train.set_training import open_lesson, smaller, train_set
from clcr_edge.train.settings import DataChoice, DistilConfig, Settings, TrainConfig

NAME = "mosi-utterance"
FOLDS = 5
_HERE = Path(__file__).resolve().parent
_ALL = (Modality.LANGUAGE, Modality.VISION, Modality.AUDIO)
_GRU = 64
_L2 = 1e-3


@dataclass(frozen=True)
class Row:
    """One row of the table. teacher: what differs from the default network. distil: how it learns from "teacher", if so."""

    says: str
    teacher: dict[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    small: bool = False
    distil: DistilConfig | None = None


ROWS: dict[str, Row] = {
    "teacher": Row("CLCR, all three"),
    "language alone": Row("CLCR's network with one modality", modalities=("language",)),
    "vision alone": Row("CLCR's network with one modality", modalities=("vision",)),
    "audio alone": Row("CLCR's network with one modality", modalities=("audio",)),
    **{name: Row("variant", {"variant": name}) for name in VARIANTS if name != "full"},
    "student, from scratch": Row("a quarter as wide", small=True),
    "student, plain distillation": Row("a quarter as wide, the teacher's logits", small=True, distil=DistilConfig().plain()),
    "student, distilled": Row("a quarter as wide, logits and levels", small=True, distil=DistilConfig()),
}
BASELINES = ("bidirectional GRU, all three", "logistic regression, language", "logistic regression, all three")


STUDENTS = tuple(name for name in ROWS if name.startswith("student"))
EPOCHS = 8


def main(
    root: Annotated[Path, typer.Option()],
    seeds: int = 3,
    longer: Annotated[bool, typer.Option(help="Three times the epochs, for the teacher and its students.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON [default: in benchmarks/results]")] = None,
    docs: Annotated[Path | None, typer.Option(help="Page [default: in docs]")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only these rows; repeat it for more.")] = None,
) -> None:
    """Train and test every row on every fold with every seed; write JSON and page after each."""
    torch.set_num_threads(1)
    epochs = 3 * EPOCHS if longer else EPOCHS
    out = out or _HERE / "results" / ("mosi_utterance_long.json" if longer else "mosi_utterance.json")
    docs = docs or _HERE.parent / "docs" / f"{out.stem}.md"
    usual = ("teacher", *STUDENTS) if longer else (*ROWS, *BASELINES)
    recipe = TrainConfig(optimiser="adamw", lr=1e-3, schedule="one-cycle", batch=8, epochs=epochs, clip=2.0, threads=1)
    found = _known(out, epochs)
    done = {(r["row"], r["seed"], r["fold"]) for r in found}
    wanted = tuple(row) if row else usual
    unknown = [name for name in wanted if name not in ROWS and name not in BASELINES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}: choose among {', '.join((*ROWS, *BASELINES))}")
    for seed in range(seeds):
        for fold in range(FOLDS):
            left = [name for name in wanted if (name, seed, fold) not in done]
            for name, scores, parameters, seconds in _fold(root, seed, fold, left, recipe):
                found.append(
                    {"row": name, "seed": seed, "fold": fold, "accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"],
                     "utterances": scores["n"], "parameters": parameters, "seconds": round(seconds, 1)}
                )  # fmt: skip
                print(f"seed {seed} fold {fold} {name:30} {scores['accuracy']:.2%}  {seconds:.0f} s", flush=True)
                _write(out, {"epochs": epochs, "machine": machine_table(), "runs": found})
    docs.write_text(page({"epochs": epochs, "runs": found}), "utf-8")


def _fold(
    root: Path, seed: int, fold: int, names: list[str], recipe: TrainConfig
) -> Iterator[tuple[str, Scores, int, float]]:
    """(row, scores on the fold, parameters, seconds) of each row asked for."""
    choice = DataChoice(folds=FOLDS, fold=fold)
    with tempfile.TemporaryDirectory(prefix="clcr-edge-mosi-") as scratch:
        teacher = Path(scratch) / "teacher"
        if any(ROWS[n].distil for n in names if n in ROWS) and "teacher" not in names:
            train_set(NAME, root, teacher, seed, Settings(recipe, choice))
        for name in names:
            begun = time.monotonic()
            if name in ROWS:
                folder = Path(scratch) / name.replace(" ", "-")
                parameters = _train(root, folder, seed, ROWS[name], recipe, choice, teacher)
                scores = judge_set(folder, NAME, root, "test", None)[0]
            else:
                scores, parameters = _baseline(name, load(NAME, root, choice.options()), choice, seed)
            yield name, scores, parameters, time.monotonic() - begun


def _train(
    root: Path, folder: Path, seed: int, row: Row, recipe: TrainConfig, choice: DataChoice, teacher: Path
) -> int:
    """Train one row into a folder. Returns its number of parameters."""
    lesson = open_lesson(teacher, NAME) if row.distil else None
    choice = dataclasses.replace(choice, modalities=row.modalities)
    network = row.teacher
    if row.small and lesson is None:  # from scratch, what `smaller` makes of the teacher
        network = teacher_to_table(smaller(network_for(load(NAME, root, choice.options()), (), {})))
    settings = Settings(recipe, choice, network, row.distil or DistilConfig())
    return int(train_set(NAME, root, folder, seed, settings, lesson=lesson)["parameters"])


# -- baselines ---------------------------------------------------------------------------------------------------------


def _baseline(name: str, dataset: DataSet, choice: DataChoice, seed: int) -> tuple[Scores, int]:
    splits = splits_of(dataset, choice)
    modalities = (Modality.LANGUAGE,) if name.endswith("language") else _ALL
    parts = {part: _videos(dataset, rows, modalities) for part, rows in splits.items()}
    every = torch.cat([x for x, _ in parts["train"]])
    mean, spread = every.mean(dim=0), every.std(dim=0).clamp_min(1e-3)
    parts = {part: [((x - mean) / spread, y) for x, y in videos] for part, videos in parts.items()}
    torch.manual_seed(seed)
    width = len(mean)
    model = _Gru(width) if name.startswith("bidirectional") else _regression(width, parts["train"])
    if isinstance(model, _Gru):
        _learn(model, parts["train"], parts["val"], seed)
    with torch.no_grad():
        said = [model(x).argmax(dim=-1).numpy() for x, _ in parts["test"]]
    return segment_scores([y.numpy() for _, y in parts["test"]], said), sum(p.numel() for p in model.parameters())


def _videos(dataset: DataSet, rows: npt.NDArray[np.int64], modalities: tuple[Modality, ...]) -> list[tuple[Tensor, Tensor]]:
    """(features float32 `[utterances, width]`, labels int64 `[utterances]`) of each video, in the order of its utterances."""
    samples = [dataset[i] for i in rows.tolist()]
    return [
        (torch.from_numpy(np.concatenate([s.features[m].values for m in modalities], axis=1)), torch.from_numpy(s.target))
        for s in samples
    ]


def _regression(width: int, videos: list[tuple[Tensor, Tensor]]) -> nn.Linear:
    """Logistic regression of single utterances, to convergence."""
    model = nn.Linear(width, 2)
    x, y = torch.cat([x for x, _ in videos]), torch.cat([y for _, y in videos])
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y) + _L2 * model.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return model


class _Gru(nn.Module):
    """A bidirectional GRU over the utterances of a video, as bc-LSTM fuses (Poria et al., ACL 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, _GRU, bidirectional=True, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(2 * _GRU, 2)

    def forward(self, x: Tensor) -> Tensor:
        """float32 `[utterances, width]` -> logits `[utterances, 2]`."""
        logits: Tensor = self.head(self.drop(self.gru(self.drop(x).unsqueeze(0))[0][0]))
        return logits


def _learn(model: _Gru, train: list[tuple[Tensor, Tensor]], val: list[tuple[Tensor, Tensor]], seed: int) -> None:
    """30 epochs, a video a step; the weights of the epoch that does best on the validation videos."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    rng = np.random.default_rng(seed)
    best, kept = -1.0, {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(30):
        model.train()
        for i in rng.permutation(len(train)).tolist():
            x, y = train[i]
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        model.eval()
        with torch.no_grad():
            right = torch.cat([model(x).argmax(dim=-1) == y for x, y in val]).float().mean().item()
        if right > best:
            best, kept = right, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    model.eval()


# -- the table ---------------------------------------------------------------------------------------------------------


def _known(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Runs that an earlier call with the same budget left."""
    if not path.is_file():
        return []
    table = json.loads(path.read_text("utf-8"))
    if table["epochs"] != epochs:
        raise typer.BadParameter(f"{path} holds runs of {table['epochs']} epochs, not {epochs}; give another --out")
    runs: list[dict[str, Any]] = table["runs"]
    return runs


def _write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    scratch.replace(path)


def _per_seed(runs: list[dict[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """One figure per seed that has every fold: the folds' mean, weighed by their utterances."""
    seeds = sorted({r["seed"] for r in runs})
    whole = [[r for r in runs if r["seed"] == s] for s in seeds]
    return np.array([np.average([r[key] for r in w], weights=[r["utterances"] for r in w]) for w in whole if len(w) == FOLDS])


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    found: list[dict[str, Any]] = result["runs"]
    seeds = len({r["seed"] for r in found})
    long = result["epochs"] > EPOCHS
    gru = "" if long else ", the GRU 30 of a video a step"
    about = (
        "[mosi_utterance.md](mosi_utterance.md) has every row under a shorter budget, in which the students have hardly begun."
        if long
        else "Audio alone stays at a coin's level, and so does logistic regression on it (50.7 %, `benchmarks/mosi_leak.py`, "
        "which has 90.8 % for vision): there is next to nothing in these features. The students are not done after so few "
        "steps: see [mosi_utterance_long.md](mosi_utterance_long.md)."
    )
    command = "python benchmarks/mosi_utterance.py --root DIR" + (" --longer" if long else "")
    utterances = sum(r["utterances"] for r in found if (r["row"], r["seed"]) == (found[0]["row"], found[0]["seed"]))
    lines = [
        "# mosi-utterance" + (": a longer budget" if long else ""), "",
        textwrap.fill(f"{LEAKS[NAME][0].upper()}{LEAKS[NAME][1:]}.", 128), "",
        textwrap.fill(
            f"62 videos, {utterances:,} utterances, {FOLDS} folds by video, each utterance tested once a seed; {seeds} seeds; "
            f"every network of CLCR's {result['epochs']} epochs of AdamW (8 videos a step){gru}, the best epoch by validation "
            "videos. Mean over the seeds, and smallest..largest of them. (Published for a bc-LSTM with all three modalities, "
            f"on other videos: 80.3 %.) {about} Made by", 128,
        ), "",
        "```sh", command, "```", "",
        "| | what it is | parameters | accuracy | over seeds | macro-F1 |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in (*ROWS, *BASELINES):
        runs = [r for r in found if r["row"] == name]
        accuracy = _per_seed(runs, "accuracy")
        if not len(accuracy):
            continue
        says = ROWS[name].says if name in ROWS else "baseline"
        spread = f"{accuracy.min():.1%}..{accuracy.max():.1%}"
        f1 = _per_seed(runs, "macro_f1").mean()
        lines.append(f"| {name} | {says} | {runs[0]['parameters']:,} | {accuracy.mean():.1%} | {spread} | {f1:.1%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
