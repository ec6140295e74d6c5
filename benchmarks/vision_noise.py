"""Event accuracy of vision alone against image noise, in validation: how HEAVY_IMAGE_NOISE was fixed.

    python benchmarks/vision_noise.py MODEL --root DIR [--streams 14]

MODEL is a checkpoint, DIR the folder that it was trained on. Images are those of the validation part, in streams of a minute
each that are the same at every noise but for the noise; sound and words are withheld. `heavy` is to be so hard that vision
alone gets 70 to 85 % of events right. Writes JSON and docs/vision_noise.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from validation import open_validation

from clcr_edge.data.conditions import HEAVY, HEAVY_IMAGE_NOISE, TRAINING_IMAGE_NOISE
from clcr_edge.data.streams import make_stream
from clcr_edge.export.graph import export_step
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.train.evaluate import score
from clcr_edge.train.memory import keep_memory

_HERE = Path(__file__).resolve().parent
_LEVELS = "0,0.1,0.2,0.3,0.35,0.4,0.45,0.5,0.55,0.6"
_LOW, _HIGH = 0.70, 0.85
_STREAM_S, _SEED = 60.0, 5_000


def main(
    model: Path,
    root: Annotated[Path, typer.Option()],
    streams: Annotated[int, typer.Option(min=1)] = 14,
    noise: Annotated[str, typer.Option(help="Levels, shares of full scale, with commas between")] = _LEVELS,
    out: Path = _HERE / "results" / "vision_noise.json",
    docs: Path = _HERE.parent / "docs" / "vision_noise.md",
) -> None:
    """Measure every level, print, write."""
    keep_memory()
    levels = [float(level) for level in noise.split(",")]
    student, provenance, bank = open_validation(model, root)
    engine = OnnxEngine(export_step(student).SerializeToString(), student.config, "fp32")
    rows: list[dict[str, Any]] = []
    for level in levels:
        conditions = dataclasses.replace(HEAVY, image_noise=level, name="custom")
        made = (make_stream(bank, conditions, _STREAM_S, _SEED + k) for k in range(streams))
        found = score(engine, made, frozenset({"audio", "language"}))
        rows.append({"image_noise": level, **found.to_json()})
        print(f"{level:4.2f} {found.event_accuracy:6.1%} of {found.n_events} events", flush=True)
    result = {
        "model": model.name,
        "seed": provenance["seed"],
        "material": f"{len(bank.images)} validation images",
        "streams": streams,
        "heavy_image_noise": HEAVY_IMAGE_NOISE,
        "training_image_noise": TRAINING_IMAGE_NOISE,
        "aim": [_LOW, _HIGH],
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    docs.write_text(page(result), "utf-8")


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    heavy, (low, high) = result["heavy_image_noise"], result["aim"]
    rows = ""
    for row in result["rows"]:
        mark = "**" if row["image_noise"] == heavy else ""
        n, right = row["n_events"], row["event_accuracy"]
        doubt = (right * (1 - right) / n) ** 0.5
        rows += f"| {mark}{row['image_noise']:.2f}{mark} | {mark}{right:.1%}{mark} | {doubt:.1%} | {row['tick_accuracy']:.1%} | {n} |\n"
    return f"""# How hard heavy noise is

`heavy` has an image noise of {heavy:g} of full scale (`HEAVY_IMAGE_NOISE` in `clcr_edge/data/conditions.py`). It is fixed so that
vision alone gets {100 * low:.0f} to {100 * high:.0f} % of events right: hard, and not hopeless. That is decided in validation; test images have no
part in it. Training draws noise up to {result["training_image_noise"]:g}.

```sh
python benchmarks/vision_noise.py clcr_edge/assets/digits-student --root DIR
```

Vision alone, {result["material"]}, {result["streams"]} streams of a minute, the same scenes at every noise; fp32, the model
`{result["model"]}`.

| image noise | events right | standard error | ticks right | n events |
|---|--:|--:|--:|--:|
{rows}"""


if __name__ == "__main__":
    typer.run(main)
