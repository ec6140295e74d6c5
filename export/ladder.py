"""Builds the shedding ladder of a student: tries each change, keeps those that pay, orders them by what they cost.

    each change alone --time--> saves a tick's share? --judge--> saving per loss --> order
    one after the other --time--> does each still save, on top of those before? --judge--> rungs

Rungs make ticks cheaper. Fewer ticks come last, and are no rung: where the last one does not keep up, the runtime lets as many
ticks pass as must (`Shedding.drops`). Half and a quarter of the ticks pass over more than they must; they are rungs only where
nothing else pays. What they save and lose is measured in any case, and told. A change is no rung either that saves less than
`MIN_SAVING` of the tick that it is made to, or loses more than `MOST_LOST`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import onnx

from clcr_edge.calibration.sets import CheckSet
from clcr_edge.config import StudentConfig
from clcr_edge.export.rung_measure import CAMERA, Judged, judge, tick_seconds
from clcr_edge.export.variants import holding_frame, with_window, without_sound
from clcr_edge.model.student import Student
from clcr_edge.packets import Modality
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.ladder import Ladder, Rung
from clcr_edge.runtime.onnx_engine import OnnxEngine

MIN_SAVING = 0.15
# Points of tick accuracy: what loses more is worse than to let ticks pass, which is what follows the last rung.
MOST_LOST = 20.0
STREAMS = 8  # of the check streams: 4,000 ticks, about 30 events
Tell = Callable[[str, int, int], None]
_OFF = {"vision-off": Modality.VISION, "audio-off": Modality.AUDIO}


def changes_of(config: StudentConfig) -> dict[str, Rung]:
    """Every change that is tried, alone. The frame encoder of fewer pixels is not among them: see `docs/shedding.md`."""
    half = config.model.window // 2
    tried = [
        Rung("vision-half-rate", vision_every=2),
        Rung("vision-quarter-rate", vision_every=4),
        Rung("vision-eighth-rate", vision_every=8),
        Rung("vision-off", vision_every=0),
        Rung("audio-off", audio=False),
        Rung("half-rate", tick_every=2),
        Rung("quarter-rate", tick_every=4),
    ]
    if half >= 4:  # the smallest that a configuration may have
        tried.insert(3, Rung("half-windows", window=half))
    return {r.name: r for r in tried}


def added(rung: Rung, change: Rung) -> Rung:
    """A rung with a further change; it takes the change's name."""
    every = (rung.vision_every, change.vision_every)
    return dataclasses.replace(
        rung,
        name=change.name,
        vision_every=0 if 0 in every else max(every),
        audio=rung.audio and change.audio,
        window=change.window or rung.window,
        tick_every=max(rung.tick_every, change.tick_every),
    )


@dataclass
class Graphs:
    """The graphs that rungs need beside the step graph, each built when it is first asked for. made: by file name."""

    student: Student
    fp32: onnx.ModelProto
    made: dict[str, onnx.ModelProto] = field(default_factory=dict)
    _windows: dict[int, onnx.ModelProto] = field(default_factory=dict)

    def named(self, rung: Rung) -> Rung:
        """The rung with the files of its graphs."""
        held = self._file(rung.window, rung.vision_every == 1, rung.audio)
        look = held if rung.vision_every == 0 else self._file(rung.window, True, rung.audio)
        return dataclasses.replace(rung, graph=look, graph_held=held)

    def _file(self, window: int, vision: bool, audio: bool) -> str:
        parts = [*([f"window{window}"] if window else []), *([] if vision else ["held"]), *([] if audio else ["deaf"])]
        if not parts:
            return ""
        name = ".".join(["step", *parts, "fp32.onnx"])
        if name not in self.made:
            model = self.fp32
            if window:
                if window not in self._windows:
                    self._windows[window] = with_window(self.student, window)
                model = self._windows[window]
            model = model if vision else holding_frame(model)
            self.made[name] = model if audio else without_sound(model)
        return name


@dataclass(frozen=True)
class BuiltLadder:
    """rungs: from 1 on, measured. graphs: by file name, what they need. about: for the report."""

    rungs: tuple[Rung, ...]
    graphs: dict[str, onnx.ModelProto]
    about: dict[str, Any]


def build_ladder(
    student: Student, fp32: onnx.ModelProto, engine: Engine, checks: CheckSet, tell: Tell, streams: int = STREAMS
) -> BuiltLadder:
    """Measure every change and build the ladder. engine: what runs rung 0, the precision that the export chose."""
    work = _Work(Graphs(student, fp32), engine, checks, min(streams, checks.count), tell)
    alone = list(changes_of(student.config).values())
    seconds = work.seconds(alone)
    saving = {r.name: 1.0 - s / seconds[0] for r, s in zip(alone, seconds[1:], strict=True)}
    paying = [r for r in alone if saving[r.name] >= MIN_SAVING]
    full, *judged = work.judged([Rung(), *paying])
    losses = {r.name: j.lost(full) for r, j in zip(paying, judged, strict=True)}

    weights = dict(zip(Modality, full.modality_weights, strict=True))
    off = sorted((r for r in paying if r.name in _OFF), key=lambda r: weights[_OFF[r.name]])
    paying = [r for r in paying if r not in off[1:] and losses[r.name][1] <= MOST_LOST]
    paying = [r for r in paying if r.tick_every == 1] or paying
    # By ticks, of which there are a hundred times as many as events; what is lost within their noise counts as that.
    paying.sort(key=lambda r: -saving[r.name] / max(losses[r.name][1], 0.05))
    rungs, dropped = work.stacked(paying)
    kept = {r.name for r in rungs}
    measured = [
        dataclasses.replace(r, lost_event_points=round(e, 3), lost_tick_points=round(t, 3), n_events=full.metrics.n_events)
        for r, (e, t) in zip(rungs, (j.lost(full) for j in work.judged(rungs)), strict=True)
    ]
    files = {f for r in measured for f in (r.graph, r.graph_held) if f}
    about = {
        "tick_ms": round(seconds[0] * 1e3, 4),
        "camera": f"{CAMERA[1]} x {CAMERA[0]}",
        "min_saving": MIN_SAVING,
        "streams": work.count,
        "n_events": full.metrics.n_events,
        "full": full.metrics.to_json(),
        "modality_weights": {m.key: round(w, 4) for m, w in weights.items()},
        "changes": [
            {
                "change": r.name,
                "saving": round(saving[r.name], 4),
                "lost_event_points": round(losses[r.name][0], 3) if r.name in losses else None,
                "lost_tick_points": round(losses[r.name][1], 3) if r.name in losses else None,
                "rung": r.name in kept,
                "why": _why(r, saving[r.name], losses.get(r.name, (0.0, 0.0))[1], off, kept, dropped),
            }
            for r in alone
        ],
        "rungs": [dataclasses.asdict(r) for r in measured],
        "bytes": {f: work.graphs.made[f].ByteSize() for f in sorted(files)},
    }
    return BuiltLadder(tuple(measured), {f: work.graphs.made[f] for f in sorted(files)}, about)


def _why(
    change: Rung, saving: float, lost: float, off: Sequence[Rung], kept: set[str], dropped: dict[str, float]
) -> str:
    if change.name in kept:
        return "a rung"
    if saving < MIN_SAVING:
        return f"saves {saving:.1%} of a tick, less than {MIN_SAVING:.0%}"
    if change.tick_every > 1:
        return f"saves {saving:.0%}, loses {lost:.1f} points of tick accuracy; below the last rung as many ticks pass as must"
    if lost > MOST_LOST:
        return f"loses {lost:.1f} points of tick accuracy, more than to let ticks pass"
    if change in off[1:]:
        return "another modality has less weight"
    return f"saves {dropped[change.name]:.1%} of the tick of the rung before it, less than {MIN_SAVING:.0%}"


@dataclass
class _Work:
    graphs: Graphs
    engine: Engine
    checks: CheckSet
    count: int
    tell: Tell
    _known: dict[tuple[int, bool, int, int], Judged] = field(default_factory=dict)

    def _ladder(self, rungs: Sequence[Rung]) -> Ladder:
        named = [self.graphs.named(r) for r in rungs]
        config = self.engine.config
        wanted = {f for r in named for f in (r.graph, r.graph_held) if f}
        return Ladder(
            self.engine, named, {f: OnnxEngine(self.graphs.made[f].SerializeToString(), config, "fp32") for f in wanted}
        )

    def seconds(self, rungs: Sequence[Rung]) -> list[float]:
        """Seconds of a tick, the full one's first."""
        self.tell("building the ladder's graphs", 0, 0)
        ladder = self._ladder(rungs)
        self.tell("measuring what each rung saves", 0, 0)
        return [float(s) for s in tick_seconds(self.engine, ladder).mean(axis=1)]

    def judged(self, rungs: Sequence[Rung]) -> list[Judged]:
        """What rungs say on the check streams; nothing is run twice."""
        new = {_what(r): r for r in rungs if _what(r) not in self._known}
        if new:
            # The sessions' rung 0 is the full network: run along only if it is asked for.
            ladder = self._ladder(list(new.values()))
            ladder.rungs = ladder.rungs[1:]
            streams = islice(self.checks.streams(), self.count)
            found = judge(self.engine, ladder, streams, lambda n: self.tell("measuring what each rung loses", n, self.count))
            self._known |= dict(zip(new, found, strict=True))
        return [self._known[_what(r)] for r in rungs]

    def stacked(self, changes: Sequence[Rung]) -> tuple[list[Rung], dict[str, float]]:
        """The changes one on top of the other, without those that do not save enough there (and what they did save).

        A change that the one before it makes useless is tried before that one: small steps are kinder than large ones.
        """
        changes = list(changes)
        dropped: dict[str, float] = {}
        rungs, steps = self._steps(changes)
        while (weak := _weak(steps)) is not None:
            name = changes[weak].name
            if weak > 0:
                order = [*changes[: weak - 1], changes[weak], changes[weak - 1], *changes[weak + 1 :]]
                other, found = self._steps(order)
                if min(found[: weak + 1]) >= MIN_SAVING:
                    changes, rungs, steps = order, other, found
                    continue
            dropped[name] = steps[weak]
            changes = [c for c in changes if c.name != name]
            rungs, steps = self._steps(changes)
        return rungs, dropped

    def _steps(self, changes: Sequence[Rung]) -> tuple[list[Rung], list[float]]:
        """The changes stacked, each with its saving against a full tick; and what each saves of the tick of the rung before."""
        rungs = [Rung()]
        for change in changes:
            rungs.append(added(rungs[-1], change))
        seconds = self.seconds(rungs[1:])
        timed = zip(rungs[1:], seconds[1:], strict=True)
        saved = [dataclasses.replace(self.graphs.named(r), saving=round(1.0 - s / seconds[0], 4)) for r, s in timed]
        return saved, [1.0 - b / a for a, b in pairwise(seconds)]


def _weak(steps: Sequence[float]) -> int | None:
    return next((i for i, s in enumerate(steps) if s < MIN_SAVING), None)


def _what(rung: Rung) -> tuple[int, bool, int, int]:
    return rung.vision_every, rung.audio, rung.window, rung.tick_every
