"""What quantisation-aware distillation is worth: INT8 after the lesson beside INT8 by calibration alone, both against fp32.

    clcr-edge distill CHECKPOINT --int8 --data digits --root DIR --out LESSON
    python benchmarks/int8_lesson.py CHECKPOINT LESSON [CHECKPOINT LESSON ...] --root DIR

Every graph has all its convolutions in INT8 (no gate turns one back), calibrated on the project's own streams. Each pair is run
over the same streams of MNIST and FSDD that neither training saw. Event accuracy; the share of ticks that get the label which
CHECKPOINT gives in fp32; and the mean divergence from its probabilities, which sees what labels hide. Writes JSON and a table
into docs/int8-distillation.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from clcr_edge.calibration.sets import own_sets
from clcr_edge.calibration.streams import inputs_of
from clcr_edge.data.bank import NONE
from clcr_edge.data.conditions import BY_NAME, Conditions
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.data.streams import evaluation_streams
from clcr_edge.export.graph import export_step
from clcr_edge.export.quantised import calibrated
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.checkpoint import load_student
from clcr_edge.train.evaluate import Material
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import Scorer

_HERE = Path(__file__).resolve().parent
_BEGIN, _END = "<!-- figures: benchmarks/int8_lesson.py -->", "<!-- end of figures -->"
GRAPHS = {
    "fp32": "before, fp32",
    "calibrated": "before, INT8 by calibration",
    "lesson-fp32": "after the lesson, fp32",
    "lesson": "after the lesson, INT8",
}


def engines_of(before: Path, after: Path) -> dict[str, Engine]:
    """The four graphs of a pair, by the keys of `GRAPHS`."""
    engines: dict[str, Engine] = {}
    for folder, in_float, in_int8 in ((before, "fp32", "calibrated"), (after, "lesson-fp32", "lesson")):
        student, _ = load_student(folder)
        fp32 = export_step(student.eval())
        found = calibrated(fp32, student.config, own_sets()[0], ["int8"], (), 0, False, lambda *_: None)
        engines[in_float] = OnnxEngine(fp32.SerializeToString(), student.config, in_float)
        engines[in_int8] = OnnxEngine(found.build("int8", found.sites).SerializeToString(), student.config, in_int8)
    return engines


def compare(engines: Mapping[str, Engine], material: Material, conditions: Conditions, events: int) -> dict[str, Any]:
    """Every engine over the same streams: its scores and how far it is from the first of them."""
    scorers = {name: Scorer(NONE) for name in engines}
    alike = dict.fromkeys(engines, 0)
    apart = dict.fromkeys(engines, 0.0)
    ticks = 0
    for stream in evaluation_streams(material.bank()[0], conditions, events, 0):
        said = {}
        for name, engine in engines.items():
            state, probs = engine.initial_state(), []
            for inputs in inputs_of(stream, engine.config):
                outputs, state = engine.step(inputs, state)
                probs.append(np.asarray(outputs.probs, np.float64))
            said[name] = np.stack(probs)
            scorers[name].add(stream.labels, said[name].argmax(axis=1), stream.events)
        told = np.maximum(said["fp32"], 1e-12)
        ticks += len(told)
        for name, probs_ in said.items():
            alike[name] += int((probs_.argmax(axis=1) == told.argmax(axis=1)).sum())
            apart[name] += float((told * np.log(told / np.maximum(probs_, 1e-12))).sum())
    return {
        name: {
            **scorers[name].result().to_json(),
            "ticks": ticks,
            "same_label": round(alike[name] / ticks, 5),
            "divergence": round(apart[name] / ticks, 6),
        }
        for name in engines
    }


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="CHECKPOINT LESSON, any number of pairs")],
    root: Annotated[Path, typer.Option(help="fsdd/recordings/*.wav and mnist/*-ubyte.gz")],
    events: Annotated[int, typer.Option(min=1, help="for each condition")] = 300,
    out: Path = _HERE / "results" / "int8_lesson.json",
    docs: Path = _HERE.parent / "docs" / "int8-distillation.md",
) -> None:
    """Measure every pair, write."""
    if len(checkpoints) % 2:
        raise typer.BadParameter(f"{len(checkpoints)} folders: give pairs, CHECKPOINT LESSON")
    keep_memory()
    pairs = []
    for before, after in zip(checkpoints[::2], checkpoints[1::2], strict=True):
        lesson = load_student(after)[1]["distilled_int8"]
        material = Material(root, Seen.load(after / FILE))  # holds what the training before the lesson saw, too
        engines = engines_of(before, after)
        rows = {}
        for noise, conditions in BY_NAME.items():
            rows[noise] = compare(engines, material, conditions, events)
            for name, row in rows[noise].items():
                print(
                    f"{before.name:16} {noise:9} {name:12} {row['event_accuracy']:.2%} n={row['n_events']}, "
                    f"same label {row['same_label']:.2%}, divergence {row['divergence']:.5f}",
                    flush=True,
                )
        pairs.append({"model": before.name, "steps": lesson["recipe"]["steps"], "material": material.bank()[1], "rows": rows})
    out.write_text(json.dumps({"pairs": pairs}, indent=1) + "\n", "utf-8")
    text = docs.read_text("utf-8")
    head, rest = text.split(_BEGIN)
    page = head + _BEGIN + "\n\n" + table(pairs) + "\n" + _END + rest.split(_END)[1]
    docs.open("w", encoding="utf-8").write(page)


def table(pairs: list[dict[str, Any]]) -> str:
    """One table for each pair."""
    lines = []
    for pair in pairs:
        n = next(iter(pair["rows"].values()))["fp32"]["n_events"]
        lines += [
            f"`{pair['model']}`, {pair['steps']} steps; {pair['material']}; n = {n} or more events in each condition.",
            "",
            "| graph | events right: " + " | ".join(pair["rows"]) + " | the label of fp32 before | divergence from it |",
            "|---|" + "--:|" * (len(pair["rows"]) + 2),
        ]
        for name, what in GRAPHS.items():
            found = [row[name] for row in pair["rows"].values()]
            ticks = sum(f["ticks"] for f in found)
            same = sum(f["same_label"] * f["ticks"] for f in found) / ticks
            apart = sum(f["divergence"] * f["ticks"] for f in found) / ticks
            cells = [what, *(f"{f['event_accuracy']:.1%}" for f in found), f"{same:.2%}", f"{apart:.4f}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
