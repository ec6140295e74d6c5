"""The gate: INT8 is handed over only if it loses no more accuracy than allowed; if it loses more, units go back to float.

    all units in INT8 --measured--> holds: done
                          |
                          fails: the most harmful unit goes back to float, measured again, ... until it holds or none is left
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clcr_edge.calibration.units import ConvSite
from clcr_edge.errors import UsageError
from clcr_edge.export.measure import Measured
from clcr_edge.export.sensitivity import Sensitivity


@dataclass(frozen=True)
class Gate:
    """What INT8 must hold. max_drop: points of event accuracy that it may lose against fp32. min_speedup: how many times
    as fast as fp32 it must be on this CPU (p50, interleaved); None: any speed will do."""

    max_drop: float = 0.5
    min_speedup: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_drop <= 100.0:
            raise UsageError(f"--max-drop {self.max_drop}: give points of event accuracy, 0 to 100")
        if self.min_speedup is not None and not 0.0 < self.min_speedup <= 100.0:
            raise UsageError(f"--min-speedup {self.min_speedup}: give a factor above 0, such as 1.1; leave it out for no limit")


@dataclass
class Outcome:
    """What became of one INT8 graph. sites: those still in INT8; none of them: it did not hold. reverted: unit and reason,
    in the order in which they went back. tries: every measurement on the way."""

    sites: list[ConvSite]
    measured: Measured
    reverted: list[dict[str, str]] = field(default_factory=list)
    tries: list[dict[str, Any]] = field(default_factory=list)
    speedup: float | None = None
    why: str = ""

    @property
    def held(self) -> bool:
        """Whether there is an INT8 graph to hand over."""
        return bool(self.sites)

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "held": self.held,
            "int8_units": [s.unit for s in self.sites],
            "reverted": self.reverted,
            "tries": self.tries,
            "speedup": None if self.speedup is None else round(self.speedup, 3),
            "why": self.why,
        }


def hold(
    sites: Sequence[ConvSite],
    first: Measured,
    reference: Measured,
    gate: Gate,
    ranking: Callable[[], Sequence[Sensitivity]],
    again: Callable[[Sequence[ConvSite]], Measured],
    speedup: Callable[[Sequence[ConvSite]], float] | None = None,
) -> Outcome:
    """Turn units back to float until the gate holds.

    first: all sites in INT8, measured; reference: fp32 on the same streams. ranking: sensitivities, most harmful first; asked
    for only when it is needed. again: measures with only some sites in INT8. speedup: times as fast as fp32; None: no limit.
    """
    out = Outcome(list(sites), first)
    n = len(reference.events)

    def lost(measured: Measured) -> float:
        found = measured.lost(reference)
        out.tries.append({"int8_units": len(out.sites), **found})
        return float(found["points"])

    points = lost(first)
    if points > gate.max_drop:
        for found in [s for s in ranking() if s.shipped == "int8"]:
            out.sites = [s for s in out.sites if s.unit != found.unit]
            out.reverted.append(
                {
                    "unit": found.unit,
                    "why": f"INT8 lost {points:.2f} points of event accuracy with it; it was the most harmful unit left "
                    f"({found.sqnr_db:.1f} dB, {found.labels_changed:.2f} % of the labels changed)",
                }
            )
            if not out.sites:
                break
            out.measured = again(out.sites)
            points = lost(out.measured)
            if points <= gate.max_drop:
                break
    if not out.sites:
        out.why = f"no set of units holds the {gate.max_drop:g} points of event accuracy that may be lost (n = {n} events)"
        return out
    if speedup is not None and gate.min_speedup is not None:
        _hold_speed(out, gate.min_speedup, ranking, again, speedup)
        if out.sites and out.reverted and lost(out.measured) > gate.max_drop:
            out.sites, out.why = [], f"the units that are fast enough lose more than {gate.max_drop:g} points (n = {n} events)"
        if not out.sites:
            return out
    still = [f"{len(out.sites)} of {len(sites)} units in INT8"]
    still += [f"back to float: {', '.join(r['unit'] for r in out.reverted)}"] if out.reverted else []
    points = out.measured.lost(reference)["points"]
    out.why = f"{'; '.join(still)}; {_told(points)}, {gate.max_drop:g} may be lost (n = {n} events)"
    return out


def _told(points: float) -> str:
    return "no points lost" if points == 0 else f"{abs(points):.2f} points {'lost' if points > 0 else 'gained'}"


def _hold_speed(
    out: Outcome,
    least: float,
    ranking: Callable[[], Sequence[Sensitivity]],
    again: Callable[[Sequence[ConvSite]], Measured],
    speedup: Callable[[Sequence[ConvSite]], float],
) -> None:
    """The same for speed: units that cost time in INT8 go back, the dearest first."""
    before = len(out.sites)
    out.speedup = speedup(out.sites)
    if out.speedup >= least:
        return
    left = {s.unit for s in out.sites}
    costs = {s.unit: s.latency_ms for s in ranking() if s.unit in left and s.latency_ms is not None and s.latency_ms > 0}
    for unit in sorted(costs, key=lambda u: -(costs[u] or 0.0)):
        why = f"INT8 ran at {out.speedup:.2f}x with it; it costs {costs[unit]:.3f} ms a tick"
        out.reverted.append({"unit": unit, "why": why})
        out.sites = [s for s in out.sites if s.unit != unit]
        if not out.sites:
            break
        out.speedup = speedup(out.sites)
        if out.speedup >= least:
            break
    if not out.sites or out.speedup < least:
        out.sites = []
        out.why = f"INT8 runs at {out.speedup:.2f}x the speed of fp32 here (p50, interleaved), and {least:g}x was asked for"
    elif len(out.sites) < before:
        out.measured = again(out.sites)
