"""What the bias of "nothing there" buys and costs, in validation: how the operating point of training was chosen.

    python benchmarks/operating_point.py MODEL --root DIR [--streams 10] [--minutes 12]

MODEL is a checkpoint, DIR the folder that it was trained on. Its own bias is taken off first, so that 0 is the network as it
was trained. For each bias: false events a minute in validation without digits, on the very streams that training sets the bias
by, and the events right under clean and heavy conditions. Writes JSON and docs/operating_point.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from validation import open_validation

from clcr_edge.data.bank import NONE
from clcr_edge.data.conditions import CLEAN, HEAVY
from clcr_edge.data.streams import make_stream
from clcr_edge.export.graph import export_step
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import IntArray, Scorer, count_false_events
from clcr_edge.train.operating_point import MINUTES, TARGET_PER_MINUTE, LogProbs, log_probs, quiet_streams

_HERE = Path(__file__).resolve().parent
_BIASES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_STREAM_S, _SEED = 60.0, 5_000


def labels(said: LogProbs, bias: float) -> IntArray:
    """The label of each tick, `[T]`, with `bias` added to the none logit."""
    shift = np.zeros(said.shape[1])
    shift[NONE] = bias
    return np.asarray((said + shift).argmax(axis=1), np.int64)


def main(
    model: Path,
    root: Annotated[Path, typer.Option()],
    streams: Annotated[int, typer.Option(min=1, help="Minutes with digits, for each condition")] = 10,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes without")] = MINUTES,
    out: Path = _HERE / "results" / "operating_point.json",
    docs: Path = _HERE.parent / "docs" / "operating_point.md",
) -> None:
    """Run every stream once, score it at every bias, print, write."""
    keep_memory()
    student, provenance, bank = open_validation(model, root)
    point = provenance.get("operating_point")
    shipped = float(point["none_bias"]) if isinstance(point, dict) else 0.0
    engine = OnnxEngine(export_step(student).SerializeToString(), student.config, "fp32")
    quiet = [log_probs(engine, stream) for stream in quiet_streams(bank, minutes)]
    scorers = {(name, bias): Scorer(NONE) for name in ("clean", "heavy") for bias in _BIASES}
    for name, conditions in (("clean", CLEAN), ("heavy", HEAVY)):
        for k in range(streams):
            stream = make_stream(bank, conditions, _STREAM_S, _SEED + k)
            said = log_probs(engine, stream)
            for bias in _BIASES:
                scorers[name, bias].add(stream.labels, labels(said, bias - shipped), stream.events)
    rows: list[dict[str, Any]] = []
    for bias in _BIASES:
        scores = {name: scorers[name, bias].result().to_json() for name in ("clean", "heavy")}
        false = count_false_events([labels(said, bias - shipped) for said in quiet], NONE)
        rows.append({"none_bias": bias, "false_events_per_minute": round(false.per_minute, 3), **scores})
        print(
            f"{bias:5.2f}  {false.per_minute:5.2f} false events a minute, events right: clean "
            f"{scores['clean']['event_accuracy']:.1%}, heavy {scores['heavy']['event_accuracy']:.1%}",
            flush=True,
        )
    result = {
        "model": model.name,
        "seed": provenance["seed"],
        "shipped_none_bias": shipped,
        "target_per_minute": TARGET_PER_MINUTE,
        "quiet_minutes": minutes,
        "streams": streams,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    docs.write_text(page(result), "utf-8")


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    rows = ""
    for row in result["rows"]:
        mark = "**" if row["none_bias"] == result["shipped_none_bias"] else ""
        cells = [f"{row['none_bias']:.2f}", f"{row['false_events_per_minute']:.2f}"]
        cells += [f"{row[name]['event_accuracy']:.1%}" for name in ("clean", "heavy")]
        rows += "| " + " | ".join(f"{mark}{cell}{mark}" for cell in cells) + " |\n"
    clean, heavy = (result["rows"][0][name]["n_events"] for name in ("clean", "heavy"))
    return f"""# How sure it must be before it speaks

Training ends by adding a number to the logit of "none": the smallest, 0 to 1, that leaves at most {result["target_per_minute"]:g} false
events a minute in validation without digits, or 1 if none does (`clcr_edge/train/operating_point.py`). What each takes from the
events that are there is why it stops at 1.

```sh
python benchmarks/operating_point.py clcr_edge/assets/digits-student --root DIR
```

Validation only: {result["quiet_minutes"]} minutes without digits, {clean} clean and {heavy} heavy events, all three modalities, words
simulated; fp32, the model `{result["model"]}`, whose own bias is in bold.

| added to "none" | false events a minute | events right, clean | events right, heavy |
|--:|--:|--:|--:|
{rows}"""


if __name__ == "__main__":
    typer.run(main)
