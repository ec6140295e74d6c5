"""Whether distillation makes the streaming student better than its full recipe does from scratch.

    clcr-edge train digits --teacher --root DIR --out TEACHER --seed 0 [--leave-out 0]
    clcr-edge distill TEACHER --data digits --root DIR --out DISTILLED --seed 0
    clcr-edge train digits --root DIR --out SCRATCH --seed 0 [--leave-out 0]
    python benchmarks/distilled_student.py SCRATCH DISTILLED [SCRATCH DISTILLED ...] --root DIR [--teacher TEACHER]

Both students of a pair have the same recipe, seed and speaker left out: the lesson is what differs. Both are run over the same
streams of images that neither has seen and recordings that neither has heard, and every event is counted for both, so that what
luck the streams bring cancels. --teacher: the teacher of the pairs, run over the same streams with all three. Pairs that are
in the result already and are not given again stay. Writes JSON and docs/distilled_student.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
import math
import multiprocessing
import os
from functools import partial, reduce
from pathlib import Path
from typing import Annotated, Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
import typer  # noqa: E402

from clcr_edge.data.bank import NONE  # noqa: E402
from clcr_edge.data.conditions import BY_NAME  # noqa: E402
from clcr_edge.data.seen import Seen  # noqa: E402
from clcr_edge.data.streams import Stream, evaluation_streams  # noqa: E402
from clcr_edge.runtime.machine import cpu_name  # noqa: E402
from clcr_edge.toml_io import loads  # noqa: E402
from clcr_edge.train.checkpoint import CONFIG  # noqa: E402
from clcr_edge.train.evaluate import Material, predict  # noqa: E402
from clcr_edge.train.judge import StreamTeacher  # noqa: E402
from clcr_edge.train.memory import keep_memory  # noqa: E402
from clcr_edge.train.metrics import IntArray, event_label  # noqa: E402
from clcr_edge.train.subject import open_subject  # noqa: E402

_HERE = Path(__file__).resolve().parent
ALL = frozenset({"vision", "audio", "language"})
SUBSETS = {"all three": frozenset[str](), "vision alone": ALL - {"vision"}, "audio alone": ALL - {"audio"}}
NOISES = ("clean", "heavy")
STUDENTS = ("scratch", "distilled")


def compare(
    noise: str, pair: tuple[Path, Path], teacher: Path | None, root: Path, events: int, seed: int
) -> list[dict[str, Any]]:
    """A row for each set of modalities: how many events each student got right, and how many only one of them did."""
    keep_memory()
    torch.set_num_threads(1)
    subjects, seen = zip(*(open_subject(path) for path in pair), strict=True)
    engines = [subject.open() for subject in subjects]
    guide = None if teacher is None else StreamTeacher(teacher)
    # What either has met is left out.
    bank = Material(root, reduce(Seen.joined, (s for s in seen if s is not None))).bank()[0]
    right: dict[str, list[tuple[bool, ...]]] = {name: [] for name in SUBSETS}
    taught: list[bool] = []

    def count(said: IntArray, stream: Stream) -> list[bool]:
        return [event_label(said[e.onset : e.end], NONE) == e.label for e in stream.events]

    for stream in evaluation_streams(bank, BY_NAME[noise], events, seed):
        for name, without in SUBSETS.items():
            right[name] += zip(*(count(predict(engine, stream, without), stream) for engine in engines), strict=True)
        if guide is not None:
            taught += count(guide.predict(stream), stream)
    rows = []
    for name, found in right.items():
        n = len(found)
        wins = sum(distilled and not scratch for scratch, distilled in found)
        losses = sum(scratch and not distilled for scratch, distilled in found)
        gain = (wins - losses) / n
        rows.append(
            {
                "noise": noise, "what": name, "n_events": n,
                **{student: round(sum(x[k] for x in found) / n, 4) for k, student in enumerate(STUDENTS)},
                "only_distilled_right": wins, "only_scratch_right": losses, "gain": round(gain, 4),
                "standard_error": round(math.sqrt(max((wins + losses) / n - gain * gain, 0.0) / n), 4),
                **({"teacher": round(sum(taught) / n, 4)} if taught and name == "all three" else {}),
            }
        )  # fmt: skip
    return rows


def provenance(path: Path) -> dict[str, Any]:
    """What the checkpoint says of its training; a last phase that was run by itself is part of the recipe."""
    found: dict[str, Any] = loads((path / CONFIG).read_text("utf-8"))["training"]
    heard = found.get("heard", {})
    found["recipe"] |= {f"heard_{key}": heard[key] for key in ("steps", "lr") if key in heard}
    return found


def check_pair(scratch: Path, distilled: Path) -> dict[str, Any]:
    """Seed, speaker and steps of a pair. Raises `typer.BadParameter` where they do not belong together."""
    one, other = provenance(scratch), provenance(distilled)
    if "distilled" in one or "distilled" not in other:
        raise typer.BadParameter(f"{scratch} {distilled}: give a student from scratch, then the one that was distilled")
    same = ("seed", "left_out", "recipe")
    for key in same:
        if one.get(key) != other.get(key):
            raise typer.BadParameter(f"{key} of {scratch} is {one.get(key)}, of {distilled} {other.get(key)}: no pair")
    return {key: one[key] for key in same if key in one} | {
        "distilled": {**other["distilled"], "teacher": Path(other["distilled"]["teacher"]).name}
    }


def kept(path: Path, new: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The pairs of an earlier result that are not measured again. Raises `typer.BadParameter` where its streams were others."""
    if not path.is_file():
        return []
    before = json.loads(path.read_text("utf-8"))
    if before["seed"] != seed:
        raise typer.BadParameter(f"--seed {seed}: {path} is of seed {before['seed']}; give that, or another --out")
    again = {(pair["seed"], pair["left_out"]) for pair in new}
    return [pair for pair in before["pairs"] if (pair["seed"], pair["left_out"]) not in again]


def page(result: dict[str, Any]) -> str:
    """docs/distilled_student.md."""
    text = (
        "# The shipped student, distilled\n\n"
        "The streaming student learns from labels; `clcr-edge distill TEACHER --data digits` teaches it besides, on the same\n"
        "streams, tick by tick, from a teacher's logits, level summaries, level weights and participation. Here both have the full\n"
        "recipe and the same seed, and meet the same streams of images that neither has seen and of the voice that neither has\n"
        "heard; where nobody was left out, of known voices in recordings that neither has heard. Made by\n\n"
        "```sh\n" + "\n".join(line[4:] for line in (__doc__ or "").splitlines() if line.startswith("    ")) + "\n```\n\n"
        f"{result['machine']}. Events right, in per cent; the gain is paired by event, with its standard error. The teacher looks\n"
        "ahead in the stream, and was run with all three only.\n\n"
        "| left out | noise | what | events | from scratch | distilled | only distilled right | only scratch right | gain | teacher |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for pair in result["pairs"]:
        for row in pair["rows"]:
            taught = f"{100 * row['teacher']:.1f}" if "teacher" in row else ""
            text += (
                f"| {pair['left_out'] or 'nobody'} | {row['noise']} | {row['what']} | {row['n_events']} | "
                f"{100 * row['scratch']:.1f} | {100 * row['distilled']:.1f} | {row['only_distilled_right']} | "
                f"{row['only_scratch_right']} | {100 * row['gain']:+.1f} ({100 * row['standard_error']:.1f}) | {taught} |\n"
            )
    return text


def main(
    models: list[Path],
    root: Annotated[Path, typer.Option()],
    teacher: Annotated[Path | None, typer.Option(help="Whom the pairs' distilled students learned from")] = None,
    events: Annotated[int, typer.Option(min=1)] = 1_000,
    seed: int = 0,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    out: Path = _HERE / "results" / "distilled_student.json",
    docs: Path = _HERE.parent / "docs" / "distilled_student.md",
) -> None:
    """Measure every pair, write, print."""
    if len(models) % 2:
        raise typer.BadParameter("give pairs: SCRATCH DISTILLED [SCRATCH DISTILLED ...]")
    pairs = list(zip(models[::2], models[1::2], strict=True))
    about = [check_pair(*pair) for pair in pairs]
    found = kept(out, about, seed)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for pair, what in zip(pairs, about, strict=True):
            rows = pool.map(
                partial(compare, pair=pair, teacher=teacher, root=root, events=events, seed=seed), NOISES, chunksize=1
            )
            found.append(what | {"rows": [row for noise in rows for row in noise]})
    result = {"machine": cpu_name(), "seed": seed, "pairs": found}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = page(result)
    docs.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
