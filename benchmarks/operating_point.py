"""What the bias of "nothing there" buys and costs, in validation: how the operating point of training was chosen.

    python benchmarks/operating_point.py MODEL --root DIR [--streams 10] [--minutes 12]

MODEL is a checkpoint, DIR the folder that it was trained on. Its own biases are taken off first, so that 0 is the network as it
was trained. For each set of modalities and each bias: false events a minute in validation without digits, on the very streams
that training sets the biases by, and the events right under clean and heavy conditions. Writes JSON and docs/operating_point.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from validation import open_validation

from clcr_edge.data.bank import NONE
from clcr_edge.data.conditions import CLEAN, HEAVY
from clcr_edge.data.streams import make_stream
from clcr_edge.errors import MissingPartError
from clcr_edge.packets import Modality
from clcr_edge.train.heard_words import listener_at_hand
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import Scorer
from clcr_edge.train.operating_point import (
    ALONE,
    MINUTES,
    TARGET_PER_MINUTE,
    TOGETHER,
    engine_without_bias,
    false_per_minute,
    labels,
    log_probs,
    quiet_streams,
)
from clcr_edge.train.recognised import ears_of

_HERE = Path(__file__).resolve().parent
_NAMES = frozenset(m.key for m in Modality)
_WITHOUT = {"all three": frozenset[str](), **{f"{name} alone": _NAMES - {name} for name in ("vision", "audio", "language")}}
_BIASES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_STREAM_S, _SEED = 60.0, 5_000


def main(
    model: Path,
    root: Annotated[Path, typer.Option()],
    streams: Annotated[int, typer.Option(min=1, help="Minutes with digits, for each condition")] = 10,
    minutes: Annotated[int, typer.Option(min=1, help="Minutes without")] = MINUTES,
    out: Path = _HERE / "results" / "operating_point.json",
    docs: Path = _HERE.parent / "docs" / "operating_point.md",
) -> None:
    """Run every stream once for each set of modalities, score it at every bias, print, write."""
    keep_memory()
    student, provenance, bank = open_validation(model, root)
    engine = engine_without_bias(student)
    listener = listener_at_hand()
    if listener is None:
        raise MissingPartError("the vosk package is not installed; pip install 'clcr-edge[audio]'")
    recogniser = ears_of(listener)
    rows: list[dict[str, Any]] = []
    for there, without in _WITHOUT.items():
        ears = None if there == "language alone" else recogniser  # as `set_operating_point` does
        quiet = [log_probs(engine, stream, without) for stream in quiet_streams(bank, minutes, ears)]
        scorers = {(name, bias): Scorer(NONE) for name in ("clean", "heavy") for bias in _BIASES}
        for name, conditions in (("clean", CLEAN), ("heavy", HEAVY)):
            for k in range(streams):
                stream = make_stream(bank, conditions, _STREAM_S, _SEED + k, ears=ears)
                said = log_probs(engine, stream, without)
                for bias in _BIASES:
                    scorers[name, bias].add(stream.labels, labels(said, bias), stream.events)
        for bias in _BIASES:
            scores = {name: scorers[name, bias].result().to_json() for name in ("clean", "heavy")}
            false = false_per_minute(quiet, bias)
            rows.append({"there": there, "none_bias": bias, "false_events_per_minute": round(false, 3), **scores})
            print(
                f"{there:15} {bias:5.2f}  {false:5.2f} false events a minute, events right: clean "
                f"{scores['clean']['event_accuracy']:.1%}, heavy {scores['heavy']['event_accuracy']:.1%}",
                flush=True,
            )
    result = {
        "model": model.name,
        "seed": provenance["seed"],
        "operating_point": provenance["operating_point"],
        "target_per_minute": TARGET_PER_MINUTE,
        "quiet_minutes": minutes,
        "streams": streams,
        "words": listener.name,
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    docs.write_text(page(result), "utf-8")


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    point = result["operating_point"]
    tables = ""
    for there in _WITHOUT:
        own = point["together"] if there == "all three" else point["alone"][there.removesuffix(" alone")]
        tables += f"""
**{there[0].upper()}{there[1:]}.** The shipped student: {own["none_bias"]:g}, which takes false events from {own["before"]:.1f} to {own["after"]:.1f} a minute.

| added to "none" | false events a minute | events right, clean | events right, heavy |
|--:|--:|--:|--:|
"""
        for row in result["rows"]:
            if row["there"] == there:
                cells = [f"{row['none_bias']:g}", f"{row['false_events_per_minute']:.2f}"]
                cells += [f"{row[name]['event_accuracy']:.1%}" for name in ("clean", "heavy")]
                tables += "| " + " | ".join(cells) + " |\n"
    clean, heavy = (result["rows"][0][name]["n_events"] for name in ("clean", "heavy"))
    return f"""# How sure it must be before it speaks

Training ends by adding a number to the logit of "none", one while two or three modalities are there and one for each that is
alone: the smallest that leaves at most {result["target_per_minute"]:g} false events a minute in validation without digits, within {TOGETHER[0]:g} to {TOGETHER[1]:g}
together and {ALONE[0]:g} to {ALONE[1]:g} alone (`clcr_edge/train/operating_point.py`). What each takes from the events that are there, and
why audio alone stops at {ALONE[1]:g} although it still says too much:

```sh
python benchmarks/operating_point.py clcr_edge/assets/digits-student --root DIR
```

Validation only: {result["quiet_minutes"]} minutes without digits, {clean} clean and {heavy} heavy events for each set of modalities; words
as the recogniser `{result["words"]}` hears them, simulated for language alone (a recogniser's words come with their sound, so words
without it are what a program pushes); fp32, the model `{result["model"]}`.
{tables}"""


if __name__ == "__main__":
    typer.run(main)
