"""CLCR, its ablations, single modalities and distilled students on digits under heavy noise: short trainings, one budget.

    python benchmarks/digits_rows.py --root DIR --work DIR [--seeds 3]
    python benchmarks/digits_rows.py --root DIR --work DIR --steps 900 --lr 0.005 --row teacher --row "student, distilled" ...

Seed k leaves speaker k out. Frozen CNNs make one vector of each frame and each tick of sound: the shipped student's CNN for
frames, which hears nobody, and for sound one that the phase of single words of `clcr-edge train digits` trained without the
speaker (kept in --work). On these, and on the words, every row trains the teacher's kind of network: the same streams, pieces,
ticks and steps. Tested on heavy streams of the speaker left out and of images never seen. What is there already in the JSON
file is not computed again, so that a run may be cut and go on.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.conditions import HEAVY
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.data.streams import CLASSES, make_stream, training_streams
from clcr_edge.model.student import Student, TickBatch
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig
from clcr_edge.model.teacher.inputs import Sequence
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.model.teacher.objective import teacher_losses
from clcr_edge.model.teacher.streams import stream_inputs, tick_spans
from clcr_edge.model.teacher.tcn import LevelTokens
from clcr_edge.model.teacher.variants import VARIANTS
from clcr_edge.packets import Modality
from clcr_edge.runtime.machine import machine_table
from clcr_edge.train.batches import LabelledTicks, collate, evident
from clcr_edge.train.checkpoint import save_student
from clcr_edge.train.digits import (
    DigitsMaterial,
    Recipe,
    WithAuxiliary,
    can_halve,
    digits_material,
    student_config,
    train_words,
)
from clcr_edge.train.digits_teacher import WINDOW, predict_ticks
from clcr_edge.train.distil import Guide
from clcr_edge.train.evaluate import STREAM_S, Material
from clcr_edge.train.loop import Schedule, fit, hash_seed
from clcr_edge.train.match_pool import PIECE, joined, take_pieces
from clcr_edge.train.match_start import fronted, open_source, start_network
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import Scorer
from clcr_edge.train.set_training import smaller
from clcr_edge.train.settings import DistilConfig
from clcr_edge.train.token_heads import WithHeads
from clcr_edge.train.voices import other_voices

_HERE = Path(__file__).resolve().parent
_AT_ONCE, _SECONDS = 8, 8.0
_NAMES = tuple(m.key for m in Modality)


@dataclass(frozen=True)
class Budget:
    """What every row gets. pool: streams of 8 s; each step draws pieces of `streams` of them and `predict` ticks of each."""

    pool: int = 1_000
    steps: int = 300
    streams: int = 32
    predict: int = 12
    lr: float = 2e-3
    auxiliary: float = 0.5


@dataclass(frozen=True)
class Row:
    """One row of the table. distil: how it learns from "teacher", if so."""

    says: str
    variant: str = "full"
    modalities: tuple[str, ...] = _NAMES
    small: bool = False
    distil: DistilConfig | None = None


ROWS: dict[str, Row] = {
    "teacher": Row("CLCR, all three"),
    **{
        f"{name} alone": Row("CLCR's network with one modality", modalities=(name,)) for name in ("vision", "audio", "language")
    },
    **{name: Row("variant", name) for name in VARIANTS if name != "full"},
    "student, from scratch": Row("the same network, a quarter as wide", small=True),
    "student, plain distillation": Row("a quarter as wide, the teacher's logits", small=True, distil=DistilConfig().plain()),
    "student, distilled": Row("a quarter as wide, logits and levels", small=True, distil=DistilConfig()),
}


def main(
    root: Annotated[Path, typer.Option(help="fsdd/ and mnist/.")],
    work: Annotated[Path, typer.Option(help="Keeps the front ends of each seed; any folder.")],
    seeds: int = 3,
    first: Annotated[int, typer.Option(help="First seed: processes can share them out; put the runs of their files into one")] = 0,
    events: Annotated[int, typer.Option(help="Test events for each seed")] = 1_000,
    steps: int = Budget.steps,
    pool: int = Budget.pool,
    lr: Annotated[float, typer.Option(help="Peak learning rate of every row")] = Budget.lr,
    out: Annotated[Path | None, typer.Option(help="Default: digits_rows.json or, of another budget, digits_rows_long.json")] = None,
    docs: Path | None = None,
    row: Annotated[list[str] | None, typer.Option(help="Only these rows; repeat it for more.")] = None,
) -> None:
    """Train and test every row with every seed; write JSON after each, and the page at the end."""
    keep_memory()
    torch.set_num_threads(1)
    budget = Budget(pool=pool, steps=steps, lr=lr)
    name = "digits_rows" if budget == Budget() else "digits_rows_long"
    out, docs = out or _HERE / "results" / f"{name}.json", docs or _HERE.parent / "docs" / f"{name}.md"
    if unknown := [asked for asked in row or () if asked not in ROWS]:
        raise typer.BadParameter(f"{unknown[0]!r}: choose among {', '.join(ROWS)}")
    wanted = tuple(asked for asked in ROWS if asked in (row or ROWS))  # the teacher before those that learn from it
    found = _known(out, budget)
    for seed in range(first, first + seeds):
        left = [name for name in wanted if (name, seed) not in {(r["row"], r["seed"]) for r in found}]
        for result in _seed(root, work / f"front{seed}", seed, left, budget, events) if left else ():
            found.append(result)
            out.parent.mkdir(parents=True, exist_ok=True)
            scratch = out.with_suffix(".part")
            scratch.write_text(json.dumps({"budget": vars(budget), "machine": machine_table(), "runs": found}, indent=1) + "\n")
            scratch.replace(out)
            print(f"seed {seed} {result['row']:28} {result['event_accuracy']:.2%}  {result['seconds']:.0f} s", flush=True)
    docs.write_text(page({"budget": vars(budget), "runs": found}), "utf-8")


def _known(path: Path, budget: Budget) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    table = json.loads(path.read_text("utf-8"))
    if table["budget"] != vars(budget):
        raise typer.BadParameter(f"{path} holds runs of another budget, {table['budget']}; give another --out")
    runs: list[dict[str, Any]] = table["runs"]
    return runs


# -- streams, as the frozen CNNs read them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """N streams of T ticks that `fronted` has read, and of every tick int64 `[N, T]`: its label, and the digit shown and said."""

    batch: TickBatch
    labels: Tensor
    shown: Tensor
    said: Tensor

    def batches(self, seed: int, budget: Budget, first: int, count: int) -> Iterator[LabelledTicks]:
        """Batches by number: pieces of some streams, and random ticks behind the first quarter of each."""
        for k in range(first, first + count):
            rng = np.random.default_rng([seed, k, 12])
            rows = torch.from_numpy(rng.choice(len(self.labels), min(budget.streams, len(self.labels)), replace=False))
            begin = torch.from_numpy(rng.integers(0, self.labels.shape[1] - PIECE + 1, len(rows)))
            inside = begin.unsqueeze(1) + torch.arange(PIECE)
            ticks = np.stack([np.sort(rng.choice(np.arange(PIECE // 4, PIECE), budget.predict, replace=False)) for _ in rows])
            own = torch.from_numpy(ticks)
            labels, shown, said = (x[rows].gather(1, inside) for x in (self.labels, self.shown, self.said))
            yield LabelledTicks(take_pieces(self.batch, rows, rows, inside), own, labels.gather(1, own), shown, said)


def make_pool(reader: Teacher, bank: DigitBank, seed: int, streams: int) -> Pool:
    """The training streams of a seed; conditions and drop-outs as in `clcr-edge train digits`."""
    source = training_streams(bank, seed, seconds=_SECONDS)
    parts: list[dict[str, Tensor]] = []
    for k in range(-(-streams // _AT_ONCE)):
        made = [next(source) for _ in range(_AT_ONCE)]
        batch = collate(made, TickConfig())
        batch.fbank = other_voices(batch.fbank, hash_seed(seed, k, 13))
        read = fronted(reader, batch)
        part = {f.name: getattr(read, f.name) for f in fields(TickBatch)}
        part |= {"labels": torch.from_numpy(np.stack([s.labels for s in made]))}
        part |= {kind: torch.from_numpy(np.stack([evident(s, kind) for s in made])) for kind in ("shown", "said")}
        parts.append(part)
    whole = joined(parts)
    labels, shown, said = (whole.pop(name).long() for name in ("labels", "shown", "said"))
    return Pool(TickBatch(**whole), labels, shown, said)


def front_ends(out: Path, seed: int, material: DigitsMaterial) -> None:
    """A student whose CNNs never met the speaker left out, written to `out`; nothing else in it has learned."""
    if (out / FILE).is_file():
        return
    shipped_student, _ = open_source(None, None)
    torch.manual_seed(seed)
    model = WithAuxiliary(Student(student_config()))
    model.student.half_precision = can_halve()
    model.student.frame_encoder.load_state_dict(shipped_student.frame_encoder.state_dict())
    out.mkdir(parents=True, exist_ok=True)
    train_words(model, material.every, Recipe(), out, seed)
    save_student(out, model.student.state_dict(), model.student.config, material.provenance(seed, Recipe()))
    material.save_seen(out)


def heavy_streams(reader: Teacher, bank: DigitBank, seed: int, events: int) -> tuple[TickBatch, list[tuple[Any, Any]]]:
    """The test: streams with that many events as the frozen CNNs read them, and of each its labels and events."""
    parts: list[dict[str, Tensor]] = []
    marks: list[tuple[Any, Any]] = []
    while sum(len(marked) for _, marked in marks) < events:
        stream = make_stream(bank, HEAVY, STREAM_S, hash_seed(seed, len(marks), 14))
        read = fronted(reader, collate([stream], TickConfig()))
        parts.append({f.name: getattr(read, f.name) for f in fields(TickBatch)})
        marks.append((stream.labels, stream.events))
    return TickBatch(**joined(parts)), marks


# -- networks ----------------------------------------------------------------------------------------------------------


def network(row: Row, vectors: int) -> TeacherConfig:
    """The network of a row. vectors: how wide what the CNNs gave is."""
    words = 8 if row.small else 32  # numbers for each n-gram: most of what a small network would hold
    forms = {
        Modality.LANGUAGE.key: ModalityConfig(
            "ngrams", TickConfig().ngram_buckets, strides=(1, 1, 1), causal=True, embedding_width=words
        ),
        Modality.VISION.key: ModalityConfig("features", vectors, causal=True),
        Modality.AUDIO.key: ModalityConfig("features", vectors, causal=True),
    }
    chosen = tuple((name, forms[name]) for name in _NAMES if name in row.modalities)
    config = TeacherConfig(chosen, CLASSES, task="segments", variant=row.variant, lambda_intra=0.02, lambda_inter=0.002)
    return smaller(config) if row.small else config


def encode(teacher: Teacher, batch: TickBatch) -> list[list[LevelTokens]]:
    """`Teacher.encode` for a batch that `fronted` made."""
    inputs = stream_inputs(batch) | {
        Modality.VISION.key: Sequence.of(batch.frames.float(), mask=batch.vision),
        Modality.AUDIO.key: Sequence.of(batch.fbank.float(), mask=batch.audio),
    }
    return teacher.encode({name: inputs[name] for name in teacher.config.names})


def train(row: Row, pool: Pool, seed: int, budget: Budget, teacher: Teacher | None) -> Teacher:
    """One row of a seed; teacher: whom to learn from. The weights are their running average."""
    torch.manual_seed(seed)
    model = Teacher(network(row, pool.batch.frames.shape[-1]))
    learner = WithHeads(model)
    guide = None
    if row.distil:
        assert teacher is not None
        config = model.config
        guide = Guide(teacher.config, config.names, (config.rank_shared, config.rank_private), row.distil)
        learner.maps = guide.maps

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        learner.train()
        spans = tick_spans(batch.ticks, PIECE, WINDOW)
        levels = encode(model, batch.batch)
        result = model.fuse(levels, spans)
        terms = teacher_losses(result, batch.labels, model.config)
        total = terms.total + budget.auxiliary * learner.digit_loss(levels, batch.shown, batch.spoken)
        if guide is not None and teacher is not None:
            with torch.no_grad():
                told = teacher.fuse(encode(teacher, batch.batch), spans)
            learned = guide.terms(result, told, result.asked.flatten() & told.asked.flatten())
            total = total + (guide.config.task - 1.0) * terms.task + guide.total(learned)
        return {"total": total, "task": terms.task}

    with tempfile.TemporaryDirectory(prefix="clcr-edge-rows-") as scratch:
        draw = partial(pool.batches, seed, budget)
        average = fit("rows", learner, Schedule(budget.steps, budget.lr), draw, loss, Path(scratch), seed)
    model.load_state_dict({k.removeprefix("network."): v for k, v in average.items() if k.startswith("network.")})
    return model.eval().requires_grad_(False)


def _seed(root: Path, source: Path, seed: int, names: list[str], budget: Budget, events: int) -> Iterator[dict[str, Any]]:
    material = digits_material(root, str(seed))
    front_ends(source, seed, material)
    student, _ = open_source(source, material.left_out)
    reader = start_network(student, "full", seed, (0.0, 0.0)).eval()
    bank, line = Material(root, Seen.load(source / FILE)).bank()
    pool = make_pool(reader, material.every, seed, budget.pool)
    heard, marks = heavy_streams(reader, bank, seed, events)
    teacher = None
    if any(ROWS[name].distil for name in names) and "teacher" not in names:
        teacher = train(ROWS["teacher"], pool, seed, budget, None)
    for name in names:
        begun = time.monotonic()
        model = train(ROWS[name], pool, seed, budget, teacher)
        seconds = time.monotonic() - begun
        teacher = model if name == "teacher" else teacher
        scorer, rate_hz = Scorer(NONE), TickConfig().rate_hz
        said = predict_ticks(model, heard, WINDOW, rate_hz, PIECE / rate_hz, partial(encode, model)).numpy()
        for own, (labels, marked) in zip(said, marks, strict=True):
            scorer.add(labels, own, marked)
        scores = scorer.result().to_json()
        about = {"row": name, "seed": seed, "left_out": material.left_out, "material": line, "seconds": round(seconds, 1)}
        yield about | {"parameters": sum(p.numel() for p in model.parameters()), **scores}


# -- the page ----------------------------------------------------------------------------------------------------------


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    runs: list[dict[str, Any]] = result["runs"]
    budget = result["budget"]
    seeds = sorted({r["seed"] for r in runs})
    n = sum(r["n_events"] for r in runs if r["row"] == runs[0]["row"])
    lines = ""
    for name, row in ROWS.items():
        own = [r for r in runs if r["row"] == name]
        if not own:
            continue
        event = np.array([r["event_accuracy"] for r in own])
        tick = np.mean([r["tick_accuracy"] for r in own])
        lines += f"| {name} | {row.says} | {own[0]['parameters']:,} | {event.mean():.1%} | {event.min():.1%}..{event.max():.1%} | {tick:.1%} |\n"
    paired = ""
    scratch = "student, from scratch"
    pairs = [(name, "teacher") for name in ROWS] + [(name, scratch) for name in ROWS if name.startswith("student, ")]
    for name, against in pairs:
        both = [
            100.0 * (a["event_accuracy"] - b["event_accuracy"])
            for a in runs
            for b in runs
            if a["row"] == name and b["row"] == against and a["seed"] == b["seed"]
        ]
        if both and name != against:
            paired += f"| {name} | {against} | {np.mean(both):+.1f} | {min(both):+.1f}..{max(both):+.1f} |\n"
    minutes = [r["seconds"] / 60.0 for r in runs]
    usual = vars(Budget())
    options = "".join(f" --{key} {budget[key]:g}" for key in ("steps", "pool", "lr") if budget[key] != usual[key])
    asked = [name for name in ROWS if any(r["row"] == name for r in runs)]
    if len(asked) < len(ROWS):
        options += "".join(f" --row '{name}'" for name in asked)
    title, about = "# CLCR and its ablations on digits, under heavy noise", ""
    audio = [r["event_accuracy"] for r in runs if r["row"] == "audio alone"]
    if audio and np.mean(audio) < 0.2:
        about = """
By then audio alone has hardly begun to name digits, and late fusion counts it like the others: these figures say who learns
quickly as much as who learns well. For some of the rows [digits_rows_long.md](digits_rows_long.md) has three times the steps, at a higher rate.
"""
    if budget["steps"] > usual["steps"]:
        title += ": a longer budget"
        about = """
[digits_rows.md](digits_rows.md) has every row under a shorter budget. Steps and rate of this one were chosen by the student from
scratch on validation streams of seed 0, in known voices.
"""
    return f"""{title}

Short trainings, the same budget for every row: {budget["steps"]} steps of {budget["streams"]} pieces of {PIECE} ticks, {budget["predict"]} ticks of each, a learning rate of at most {budget["lr"]:g}, drawn in the
same order from the same {budget["pool"]:,} streams of 8 s; {np.median(minutes):.1f} minutes a row in the median, {max(minutes):.1f} at most (wanted: 6), on one thread beside other work. Every row reads the vectors of
frozen CNNs, that of the shipped student for frames and one for sound that learned from single words without the speaker left
out, and the words; what differs is the network behind them, of the teacher's kind: causal TCNs, levels, exchange, InterCAD, or what the row's name leaves out. Its exchange reads
all 64 ticks of a piece. "Student" is that network a quarter as wide, not the streaming student that ships.

{len(seeds)} seed{"s" * (len(seeds) > 1)}; seed k never hears speaker k, and is tested on that voice and on images that no training saw; heavy noise, simulated
words, n = {n:,} events a row over all seeds. Mean over the seeds, smallest..largest of them.

```sh
python benchmarks/digits_rows.py --root DIR --work runs/fronts{options}
```
{about}
| | what it is | parameters | events right | over seeds | ticks right |
|---|---|--:|--:|--:|--:|
{lines}
Differences in points of events, paired by seed:

| | against | mean | over seeds |
|---|---|--:|--:|
{paired}"""


if __name__ == "__main__":
    typer.run(main)
