"""Accuracy of digits models by condition, on images and speakers that training never saw; prints a table, writes JSON.

    python benchmarks/digits_accuracy.py --root DIR MODEL [MODEL ...] --out benchmarks/results/digits_accuracy.json

One model per left-out speaker (clcr-edge train digits --seed k --leave-out k). Each figure is the mean over the models and the
spread (smallest..largest). Event n is per model and condition. --recognised adds rows whose words are those that the shipped
recogniser makes of the streams; it has heard all of FSDD's speakers here, so those rows are of voices known to it. With
--no-simulated they are all there is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from clcr_edge.data.conditions import BY_NAME
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.train.evaluate import Evaluation, Material
from clcr_edge.train.subject import open_subject

ALL = frozenset({"vision", "audio", "language"})
SUBSETS: dict[str, frozenset[str]] = {
    "all three": frozenset(),
    "vision alone": ALL - {"vision"},
    "audio alone": ALL - {"audio"},
    "language alone": ALL - {"language"},
    "without language": frozenset({"language"}),
}
HEARD = {"all three": frozenset(), "language alone": ALL - {"language"}}


def main(
    models: list[Path],
    root: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    events: int = 1_000,
    minutes: float = 20.0,
    seed: int = 0,
    jobs: int = 2,
    recognised: bool = False,
    simulated: bool = True,
) -> None:
    """Measure every model in every row."""
    found: list[dict[str, Any]] = []
    for model in models:
        subject, seen = open_subject(model)
        material = Material(root, seen)
        entry: dict[str, Any] = {"model": model.name, "material": material.bank()[1], "rows": []}
        if simulated:
            with Evaluation(subject, material, jobs) as evaluation:
                for noise, conditions in BY_NAME.items():
                    scores = evaluation.rows(conditions, events, seed, list(SUBSETS.values()))
                    for what, score in zip(SUBSETS, scores, strict=True):
                        entry["rows"].append({"noise": noise, "what": what, "words": "simulated", **score.to_json()})
                        print(f"{model.name:15} {noise:9} {what:17} {score.event_accuracy:.2%} n={score.n_events}", flush=True)
                false = evaluation.negatives(minutes, seed)
                entry["false_events_per_minute"] = round(false.per_minute, 3)
                entry["negative_minutes"] = false.minutes
                print(f"{model.name:15} {false.per_minute:.2f} false events a minute over {false.minutes:.0f} min", flush=True)
        if recognised:
            with Evaluation(subject, Material(root, seen, default_speech_model()), jobs) as evaluation:
                for noise, conditions in BY_NAME.items():
                    scores = evaluation.rows(conditions, events, seed, list(HEARD.values()))
                    for what, score in zip(HEARD, scores, strict=True):
                        entry["rows"].append({"noise": noise, "what": what, "words": "recognised", **score.to_json()})
                        print(f"{model.name:15} {noise:9} {what:17} {score.event_accuracy:.2%} recognised words", flush=True)
                false = evaluation.negatives(minutes, seed)
                entry["false_events_per_minute_recognised"] = round(false.per_minute, 3)
                entry["negative_minutes"] = false.minutes
                print(f"{model.name:15} {false.per_minute:.2f} false events a minute, recognised words", flush=True)
        found.append(entry)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"seed": seed, "models": found}, indent=1) + "\n", "utf-8")
    about = f"{'noise':9} {'what':17} {'words':10}"
    print(f"\n{about} {'event acc.':>10} {'spread':>15} {'tick acc.':>9} {'macro-F1':>9} {'first':>7}")
    for index, row in enumerate(found[0]["rows"]):
        rows = [m["rows"][index] for m in found]
        about = f"{row['noise']:9} {row['what']:17} {row['words']:10}"
        event = np.array([r["event_accuracy"] for r in rows])
        tick, f1, first = (np.mean([r[k] for r in rows]) for k in ("tick_accuracy", "tick_macro_f1", "time_to_first_correct_s"))
        spread = f"{event.min():.1%}..{event.max():.1%}"
        print(f"{about} {event.mean():>10.1%} {spread:>15} {tick:>9.1%} {f1:>9.1%} {first:>6.2f}s")


if __name__ == "__main__":
    typer.run(main)
