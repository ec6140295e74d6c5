"""Proof of a bundle on the machine that will run it: golden vectors through the real engine, latency, and a choice by both.

What is measured here is never guessed elsewhere: INT8 that is slower than fp32 on this machine, or that loses too much in this
engine, is not chosen, and the result says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clcr_edge.errors import BundleError
from clcr_edge.export.latency import interleaved, paced, percentiles
from clcr_edge.runtime.engine import Engine, StepInputs
from clcr_edge.runtime.golden import Golden, differences, rolled_out


@dataclass(frozen=True)
class Tolerance:
    """How far a precision may be from the torch fp32 reference over the golden ticks, states rolled out.

    max_abs: of any output. sqnr_db: of probs, at least. agreement: share of ticks with the reference's label, at least, among
    those that the reference does not leave open (margin of 0.1 between its two best labels).
    """

    max_abs: float
    sqnr_db: float
    agreement: float


# Judged, not measured; an export says what ONNX Runtime reaches (parity in report.json). fp32: other kernels and orders of
# summation only. FP16: an engine may also sum in half precision. INT8: kernels round differently.
TOLERANCES = {"fp32": Tolerance(1e-3, 60.0, 1.0), "fp16": Tolerance(0.05, 40.0, 0.99), "int8": Tolerance(0.5, 20.0, 0.97)}
_MARGIN = 0.1
# Points of event accuracy, as the export measured them on its check streams: what it would not choose is not chosen here. A
# bundle says how many its own gate allowed (`export --max-drop`); this is for one that does not.
_MAX_LOSS_POINTS = 0.5


def tolerance_of(precision: str) -> Tolerance:
    """The tolerance of a precision; the name may carry a target before it ("trt-int8")."""
    return TOLERANCES.get(precision.rsplit("-", 1)[-1], TOLERANCES["fp32"])


def check_accuracy(engine: Engine, golden: Golden, tolerance: Tolerance) -> dict[str, Any]:
    """Golden ticks through an engine: differences per output, label agreement, and whether the tolerance holds, and why not."""
    made = rolled_out(engine, golden)
    found = differences(made, golden)
    wanted = golden.outputs["probs"]
    best = np.sort(wanted, axis=-1)
    clear = best[:, -1] - best[:, -2] >= _MARGIN
    same = np.argmax(made["probs"], axis=-1) == np.argmax(wanted, axis=-1)
    agreement = float(same[clear].mean()) if clear.any() else 1.0
    worst = max(found, key=lambda name: found[name]["max_abs"])
    reasons = []
    if not found[worst]["max_abs"] <= tolerance.max_abs:
        reasons.append(f"{worst} is off by {found[worst]['max_abs']:.1e}, more than {tolerance.max_abs:.0e}")
    if not found["probs"]["sqnr_db"] >= tolerance.sqnr_db:
        reasons.append(f"probs have {found['probs']['sqnr_db']:.0f} dB, fewer than {tolerance.sqnr_db:.0f}")
    if not agreement >= tolerance.agreement:
        reasons.append(f"the label agrees in {agreement:.1%} of {clear.sum()} clear ticks, under {tolerance.agreement:.0%}")
    return {
        "holds": not reasons,
        "reason": "; ".join(reasons),
        "ticks": len(golden.inputs),
        "clear_ticks": int(clear.sum()),
        "agreement": round(agreement, 4),
        "worst_output": worst,
        "tolerance": vars(tolerance),
        "outputs": found,
    }


def lost_at_export(manifest: Mapping[str, Any], graph: str) -> str:
    """Why a graph's event accuracy, as its export measured it, is too low; "" if it holds or nothing was measured.

    Golden vectors say that this engine computes what the graph says; whether the graph is good enough only an export can say,
    which has data with labels. Raises `BundleError` where the manifest holds something else than numbers.
    """
    try:
        metrics = manifest.get("metrics", {})
        if "event_accuracy" not in metrics.get("fp32", {}) or "event_accuracy" not in metrics.get(graph, {}):
            return ""
        lost = 100.0 * (float(metrics["fp32"]["event_accuracy"]) - float(metrics[graph]["event_accuracy"]))
        allowed = float(manifest.get("gate", {}).get("max_drop", _MAX_LOSS_POINTS))
    except (AttributeError, TypeError, ValueError) as e:
        raise BundleError(f"the manifest's [metrics] or [gate] is not what an export writes ({e}); export again") from None
    if lost <= allowed:
        return ""
    return f"it loses {lost:.2f} points of event accuracy by its export's measurement, more than {allowed:g}"


def at_pace(
    engine: Engine,
    ticks: Sequence[StepInputs],
    rate_hz: float,
    count: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, float]:
    """Percentiles of `paced`."""
    return percentiles(paced(engine, ticks, rate_hz, count, clock=clock, sleep=sleep))


def verify(
    engines: Mapping[str, Engine],
    golden: Golden,
    rate_hz: float,
    paced_s: float,
    rounds: int,
    tell: Callable[[str], None],
    lost: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Accuracy, both latencies and the choice over some precisions of one engine: a table for a report.

    chosen is None if no precision holds; why says why in any case. lost: precisions that hold in no case, and why.
    """
    accuracy = {}
    for precision, engine in engines.items():
        tell(f"golden vectors, {precision}")
        found = check_accuracy(engine, golden, tolerance_of(precision))
        if lost is not None and lost.get(precision):
            found |= {"holds": False, "reason": "; ".join(filter(None, (found["reason"], lost[precision])))}
        accuracy[precision] = found
    tell("latency back to back, interleaved")
    loop = interleaved(engines, golden.inputs, rounds)
    at_rate = {}
    for precision, engine in engines.items():
        tell(f"latency at the stream's pace, {precision}")
        at_rate[precision] = at_pace(engine, golden.inputs, rate_hz, max(1, round(paced_s * rate_hz)))
    chosen, why = choose(accuracy, at_rate)
    table = {p: {"accuracy": accuracy[p], "back_to_back": loop[p], "at_pace": at_rate[p]} for p in engines}
    return {"precisions": table, "chosen": chosen, "why": why}


def choose(accuracy: Mapping[str, Mapping[str, Any]], paced: Mapping[str, Mapping[str, float]]) -> tuple[str | None, str]:
    """The fastest precision (p50 at the stream's pace) among those whose accuracy holds, and a sentence that says why."""
    held = [p for p in accuracy if accuracy[p]["holds"]]
    refused = "; ".join(f"{p} does not hold: {accuracy[p]['reason']}" for p in accuracy if p not in held)
    if not held:
        return None, refused
    best = min(held, key=lambda p: paced[p]["p50_ms"])
    others = ", ".join(f"{p} {paced[p]['p50_ms']:.2f} ms" for p in held if p != best)
    why = f"{best} takes {paced[best]['p50_ms']:.2f} ms (p50 at the stream's pace)"
    alone = ", and is the only one that was measured" if len(accuracy) == 1 else ", and is the only one that holds"
    why += f", the fastest that holds ({others})" if others else alone
    return best, why + (f"; {refused}" if refused else "")
