"""Whether distillation makes the streaming student better than its full recipe does from scratch.

    clcr-edge train digits --teacher --root DIR --out TEACHER --seed 0 [--leave-out 0]
    clcr-edge distill TEACHER --data digits --root DIR --out DISTILLED --seed 0
    clcr-edge train digits --root DIR --out SCRATCH --seed 0 [--leave-out 0]
    python benchmarks/distilled_student.py SCRATCH DISTILLED [SCRATCH DISTILLED ...] --root DIR [--teacher TEACHER]

Both students of a pair have the same recipe, seed and speaker left out: the lesson is what differs. Both are run over the same
streams of images that neither has seen and recordings that neither has heard, and every event is counted for both, so that what
luck the streams bring cancels. Who speaks more gets more events right, and says more for nothing: so false events are counted
on streams without digits, and both are compared besides at the bias of "none" that leaves each as many. --teacher: the teacher
of the pairs, run over the same streams with all three. Words: the recogniser's that ships, or simulated where a speaker was
left out, whom the recogniser has heard. Pairs that are in the result already and are not given again stay. Writes JSON and
docs/distilled_student.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
import math
import multiprocessing
import os
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Annotated, Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import torch  # noqa: E402
import typer  # noqa: E402

from clcr_edge.data.bank import NONE, DigitBank  # noqa: E402
from clcr_edge.data.conditions import BY_NAME  # noqa: E402
from clcr_edge.data.seen import Seen  # noqa: E402
from clcr_edge.data.streams import Ears, Stream  # noqa: E402
from clcr_edge.errors import MissingPartError  # noqa: E402
from clcr_edge.model.student import parameter_count  # noqa: E402
from clcr_edge.runtime.engine import Engine  # noqa: E402
from clcr_edge.runtime.machine import cpu_name  # noqa: E402
from clcr_edge.toml_io import loads  # noqa: E402
from clcr_edge.train.checkpoint import CONFIG, load_student  # noqa: E402
from clcr_edge.train.evaluate import Material, event_stream, quiet_stream  # noqa: E402
from clcr_edge.train.heard_words import listener_at_hand  # noqa: E402
from clcr_edge.train.judge import StreamTeacher  # noqa: E402
from clcr_edge.train.memory import keep_memory  # noqa: E402
from clcr_edge.train.metrics import IntArray, event_label  # noqa: E402
from clcr_edge.train.operating_point import false_per_minute, labels, log_probs  # noqa: E402
from clcr_edge.train.recognised import ears_of  # noqa: E402
from clcr_edge.train.subject import open_subject  # noqa: E402
from clcr_edge.train.teacher_checkpoint import load_teacher  # noqa: E402

_HERE = Path(__file__).resolve().parent
ALL = frozenset({"vision", "audio", "language"})
SUBSETS = {"all three": frozenset[str](), "vision alone": ALL - {"vision"}, "audio alone": ALL - {"audio"}}
NOISES = ("clean", "heavy")
STUDENTS = ("scratch", "distilled")
TARGET = 2.0  # false events a minute, the most that the project wants
SHIFTS = [k / 8 for k in range(-8, 25)]  # of the logit of "none", beside each student's own bias


@dataclass(frozen=True)
class Job:
    """What every part of a pair's measurement is given."""

    pair: tuple[Path, Path]
    teacher: Path | None
    root: Path
    events: int
    minutes: int
    seed: int
    recognised: bool

    def open(self) -> tuple[DigitBank, list[Engine], Ears | None]:
        """Material that neither student has met, an engine for each, and who listens."""
        keep_memory()
        torch.set_num_threads(1)
        subjects, seen = zip(*(open_subject(path) for path in self.pair), strict=True)
        bank = Material(self.root, reduce(Seen.joined, (s for s in seen if s is not None))).bank()[0]
        return bank, [subject.open() for subject in subjects], ears_of(listener()) if self.recognised else None


def listener() -> Path:
    """The recogniser that ships."""
    found = listener_at_hand()
    if found is None:
        raise MissingPartError("the vosk package is not installed; pip install 'clcr-edge[audio]'")
    return found


def right_ones(said: IntArray, stream: Stream) -> list[bool]:
    """For each event of a stream whether it was named."""
    return [event_label(said[e.onset : e.end], NONE) == e.label for e in stream.events]


def compare(noise: str, job: Job) -> dict[str, Any]:
    """rows: for each set of modalities how many events each student got right, and how many only one of them did. shifted: which
    events each gets right with all three at every shift of its bias, bool `[students, shifts, events]`."""
    bank, engines, ears = job.open()
    guide = None if job.teacher is None else StreamTeacher(job.teacher)
    right: dict[str, list[tuple[bool, ...]]] = {name: [] for name in SUBSETS}
    shifted: list[list[list[bool]]] = [[[] for _ in SHIFTS] for _ in STUDENTS]
    taught: list[bool] = []
    index = 0
    while len(right["all three"]) < job.events:
        stream = event_stream(BY_NAME[noise], job.seed, bank, index, ears)
        index += 1
        for name, without in SUBSETS.items():
            said = [log_probs(engine, stream, without) for engine in engines]
            right[name] += zip(*(right_ones(labels(x, 0.0), stream) for x in said), strict=True)
            if not without:
                for student, x in enumerate(said):
                    for place, shift in enumerate(SHIFTS):
                        shifted[student][place] += right_ones(labels(x, shift), stream)
        if guide is not None:
            taught += right_ones(guide.predict(stream), stream)
    rows = [{"noise": noise, "what": name} | paired(found) for name, found in right.items()]
    if taught:
        rows[0]["teacher"] = round(sum(taught) / len(taught), 4)
    return {"rows": rows, "shifted": shifted}


def paired(found: list[tuple[bool, ...]]) -> dict[str, Any]:
    """Shares of events that each student got right, and the gain with its standard error, paired by event."""
    n = len(found)
    wins = sum(distilled and not scratch for scratch, distilled in found)
    losses = sum(scratch and not distilled for scratch, distilled in found)
    gain = (wins - losses) / n
    return {
        "n_events": n,
        **{student: round(sum(x[k] for x in found) / n, 4) for k, student in enumerate(STUDENTS)},
        "only_distilled_right": wins, "only_scratch_right": losses, "gain": round(gain, 4),
        "standard_error": round(math.sqrt(max((wins + losses) / n - gain * gain, 0.0) / n), 4),
    }  # fmt: skip


def quiet(job: Job) -> list[list[float]]:
    """False events a minute of each student at every shift of its bias, on streams without digits."""
    bank, engines, ears = job.open()
    streams = [quiet_stream(job.seed, bank, index, ears) for index in range(job.minutes)]
    said = [[log_probs(engine, stream) for stream in streams] for engine in engines]
    return [[false_per_minute(x, shift) for shift in SHIFTS] for x in said]


def at_equal(false: list[list[float]], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Both students at the smallest shift that leaves at most `TARGET` false events a minute."""
    places = [next((k for k, x in enumerate(own) if x <= TARGET), len(SHIFTS) - 1) for own in false]
    return {
        "target": TARGET,
        "shift": {student: SHIFTS[place] for student, place in zip(STUDENTS, places, strict=True)},
        "false_events_per_minute": {n: round(own[k], 2) for n, own, k in zip(STUDENTS, false, places, strict=True)},
        "rows": [
            {"noise": noise, "what": "all three"}
            | paired(list(zip(*(own[place] for own, place in zip(part["shifted"], places, strict=True)), strict=True)))
            for noise, part in parts.items()
        ],
    }


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


def earlier(path: Path) -> dict[str, Any]:
    """A result that is there already; empty without."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def kept(path: Path, new: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The pairs of an earlier result that are not measured again. Raises `typer.BadParameter` where its streams were others."""
    before = earlier(path)
    if not before:
        return []
    if before["seed"] != seed:
        raise typer.BadParameter(f"--seed {seed}: {path} is of seed {before['seed']}; give that, or another --out")
    again = {(pair["seed"], pair["left_out"]) for pair in new}
    return [pair for pair in before["pairs"] if (pair["seed"], pair["left_out"]) not in again]


def cells(row: dict[str, Any]) -> str:
    """The cells of a row that two students share."""
    return (
        f"{row['n_events']} | {100 * row['scratch']:.1f} | {100 * row['distilled']:.1f} | {row['only_distilled_right']} | "
        f"{row['only_scratch_right']} | {100 * row['gain']:+.1f} ({100 * row['standard_error']:.1f})"
    )


def page(result: dict[str, Any]) -> str:
    """docs/distilled_student.md."""
    sizes = result.get("parameters")
    text = (
        "# The streaming student, distilled\n\n"
        "The streaming student learns from labels; `clcr-edge distill TEACHER --data digits` teaches it besides, on the same\n"
        "streams, tick by tick, from a teacher's logits, level summaries, level weights and participation. Here both have the full\n"
        "recipe and the same seed, and meet the same streams of images that neither has seen and of the voice that neither has\n"
        "heard; where nobody was left out, of known voices in recordings that neither has heard. Made by\n\n"
        "```sh\n" + "\n".join(line[4:] for line in (__doc__ or "").splitlines() if line.startswith("    ")) + "\n```\n\n"
        f"{result['machine']}. Events right, in per cent; the gain is paired by event, with its standard error. The teacher looks\n"
        "ahead in the stream, and was run with all three only. Words are simulated where a speaker was left out, else the\n"
        "recogniser's. Where nobody was left out, the student from scratch is the one that ships, before its last phase was run again "
        "with the words of a better recogniser; these are of the one before. Nobody here learned from synthetic speech first."
        + (
            f" The student has {sizes['student']:,} parameters, the teacher {sizes['teacher']:,}: {sizes['teacher'] / sizes['student']:.1f}\n"
            "times as many, not the ten that the project wants of a student and its teacher."
            if sizes
            else ""
        )
        + "\n\n"
        "| left out | noise | what | events | from scratch | distilled | only distilled right | only scratch right | gain | teacher |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for pair in result["pairs"]:
        for row in pair["rows"]:
            taught = f"{100 * row['teacher']:.1f}" if "teacher" in row else ""
            text += f"| {pair['left_out'] or 'nobody'} | {row['noise']} | {row['what']} | {cells(row)} | {taught} |\n"
    measured = [pair for pair in result["pairs"] if "at_equal" in pair]
    for pair in measured:
        own, equal = pair["false_events_per_minute"], pair["at_equal"]
        text += (
            f"\nFalse events a minute with all three, on {pair['quiet_minutes']} test minutes without digits "
            f"({pair['left_out'] or 'nobody'} left out), each student at its own operating point: from scratch "
            f"{own['scratch']:.2f}, distilled {own['distilled']:.2f}. With a bias that leaves each at most "
            f"{equal['target']:g} (chosen on these minutes, to compare and not to ship): {equal['false_events_per_minute']['scratch']:.2f} "
            f"and {equal['false_events_per_minute']['distilled']:.2f}, and then\n\n"
            "| noise | what | events | from scratch | distilled | only distilled right | only scratch right | gain |\n"
            "|---|---|---|---|---|---|---|---|\n"
        )
        text += "".join(f"| {row['noise']} | {row['what']} | {cells(row)} |\n" for row in equal["rows"])
    uncounted = [pair["left_out"] or "nobody" for pair in result["pairs"] if "at_equal" not in pair]
    if uncounted:
        text += f"\nOf the pair with {' and '.join(uncounted)} left out false events were not counted: its gain at equal ones is not known.\n"
    return text


def main(
    models: list[Path],
    root: Annotated[Path, typer.Option()],
    teacher: Annotated[Path | None, typer.Option(help="Whom the pairs' distilled students learned from")] = None,
    events: Annotated[int, typer.Option(min=1)] = 1_000,
    minutes: Annotated[int, typer.Option(min=1, help="Without digits")] = 20,
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
            job = Job(pair, teacher, root, events, minutes, seed, recognised=not what["left_out"])
            silent = pool.apply_async(quiet, (job,))
            parts = dict(zip(NOISES, pool.map(partial(compare, job=job), NOISES, chunksize=1), strict=True))
            false = silent.get()
            own = SHIFTS.index(0.0)
            found.append(
                what
                | {
                    "words": "recognised" if job.recognised else "simulated",
                    "rows": [row for part in parts.values() for row in part["rows"]],
                    "quiet_minutes": minutes,
                    "false_events_per_minute": {n: round(x[own], 2) for n, x in zip(STUDENTS, false, strict=True)},
                    "at_equal": at_equal(false, parts),
                }
            )
    result = {"machine": cpu_name(), "seed": seed, "pairs": found}
    if teacher is None:
        result |= {k: v for k, v in earlier(out).items() if k == "parameters"}
    else:
        result["parameters"] = {
            "student": parameter_count(load_student(pairs[-1][1])[0]), "teacher": parameter_count(load_teacher(teacher)[0])
        }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = page(result)
    docs.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
