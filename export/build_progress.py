"""How far a TensorRT build is, and how long it will take: ten silent minutes look like a crash.

TensorRT tells of nested phases with steps. A phase counts as one step of its parent, so the share done is

    (steps of the outer phase done + share of the inner phase that runs now) / steps of the outer phase

The time left is the time so far, scaled by that share; it is told only once the share says something. Where TensorRT begins
another outermost phase after the first, share and time left are that phase's: how many follow, it does not tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_ENOUGH = 0.05  # share below which a time left would be a guess


@dataclass
class _Phase:
    steps: int
    done: int = 0
    inner: list[str] = field(default_factory=list)


class BuildProgress:
    """Follows the phases of one build. `fraction` never falls within an outermost phase. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._begun = clock, clock()
        self._outer_begun = self._begun
        self._phases: dict[str, _Phase] = {}
        self._outer: list[str] = []
        self._finished = 0
        self._most = 0.0
        self.phase = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins; parent None: an outermost one."""
        self._phases[name] = _Phase(max(1, steps))
        above = self._phases.get(parent) if parent is not None else None
        if above is None and not self._outer:
            self._outer_begun, self._most = self._clock(), 0.0
        (self._outer if above is None else above.inner).append(name)
        self.phase = name

    def step(self, name: str, step: int) -> None:
        """Step number `step`, from 0, of a phase is done."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = min(phase.steps, max(phase.done, step + 1))

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._phases.pop(name, None)
        for phase in self._phases.values():
            if name in phase.inner:
                phase.inner.remove(name)
        if name in self._outer:
            self._outer.remove(name)
            self._finished += 1

    @property
    def fraction(self) -> float:
        """Share that is done of the outermost phase, 0..1."""
        running = max((self._share(name) for name in self._outer), default=0.0)
        if not self._outer and self._finished:
            return 1.0
        self._most = max(self._most, running)
        return self._most

    @property
    def elapsed_s(self) -> float:
        """Seconds since the build began."""
        return self._clock() - self._begun

    @property
    def left_s(self) -> float | None:
        """Seconds left by the pace so far; None while too little is known."""
        done = self.fraction
        return None if done < _ENOUGH else (self._clock() - self._outer_begun) * (1.0 - done) / done

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        inner = max((self._share(n) for n in phase.inner if n in self._phases), default=0.0)
        return min(1.0, (phase.done + inner) / phase.steps)
