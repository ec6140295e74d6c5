"""The figures of an export that README quotes: size, parity, speed, accuracy and ladder, taken from the bundle's own report.

    clcr-edge export --int8 --out out/digits-bundle
    python benchmarks/export_figures.py out/digits-bundle

Nothing is measured here: `clcr-edge export` measured it, and report.json holds it. Writes JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_OUT = Path(__file__).resolve().parent / "results" / "export.json"


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """What is quoted, of a report."""
    kept: dict[str, Any] = {name: report[name] for name in ("created", "machine", "chosen", "check")}
    kept["precisions"] = {
        name: {
            "bytes": found["bytes"],
            "nodes": found["nodes"],
            "probs": found["parity"]["probs"],
            "accuracy": found["accuracy"],
            "latency": found.get("latency"),
        }
        for name, found in report["precisions"].items()
    }
    if "ladder" in report:
        ladder = report["ladder"]
        kept["ladder"] = {name: ladder[name] for name in ("tick_ms", "camera", "n_events", "rungs", "bytes")}
    return kept


def main(bundle: Path, out: Path = _OUT) -> None:
    """Read, write, print one line for each precision."""
    kept = figures(json.loads((bundle / "report.json").read_text("utf-8")))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    for name, found in kept["precisions"].items():
        speed = found["latency"] or {"p50_ms": float("nan")}
        print(
            f"{name:9} {found['bytes'] / 1e6:.2f} MB, probabilities off by {found['probs']['max_abs']:.1e} at most, "
            f"p50 {speed['p50_ms']:.2f} ms, events {found['accuracy']['event_accuracy']:.1%}"
        )


if __name__ == "__main__":
    typer.run(main)
