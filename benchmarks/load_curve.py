"""Accuracy against load: the shedding ladder beside plain frame dropping, and beside doing nothing.

    python benchmarks/load_curve.py BUNDLE [--events 1000] [--root DIR]

Load is the time of a whole tick over the 40 ms that it has: 2 is a machine half as fast as it would have to be. The network
runs, the machine is simulated: a virtual clock on which each tick of a rung takes its measured share of a whole tick's time
(median, interleaved), times the load, with 10 % of noise. Scored is, a tick's length after each tick's end, the label of the
newest prediction that is finished by then: what comes late is wrong.

ladder: `Shedding` on the bundle's rungs, from the whole network on. dropping: whole ticks only; one that could begin only a
tick late is dropped, while its sound still feeds the network. nothing: every tick is computed, however late; 2 s behind, the
stream begins anew, as a live run without a ladder does.

Beside the curve, what changes that are no rungs would lose at all loads: a smaller frame, a smaller budget, shorter windows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import typer
from onnx import helper, numpy_helper

from clcr_edge import bundle as bundles
from clcr_edge.calibration.streams import packets_of
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.conditions import BY_NAME
from clcr_edge.data.seen import FILE as SEEN
from clcr_edge.data.seen import Seen
from clcr_edge.data.streams import Stream, make_stream
from clcr_edge.export.drawing import curves
from clcr_edge.export.rung_measure import judge, tick_seconds
from clcr_edge.export.variants import without_sound
from clcr_edge.runtime.engine import Engine, State, StepInputs, StepOutputs
from clcr_edge.runtime.ladder import Ladder, Rung, masked, open_ladder, read_rungs
from clcr_edge.runtime.machine import cpu_name
from clcr_edge.runtime.onnx_engine import OnnxEngine
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.shedding import Shedding
from clcr_edge.train.evaluate import Material
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import Scorer

LOADS = (0.6, 0.9, 1.2, 1.6, 2.2, 3.0, 4.0, 6.0)
STREAM_S, SEED, NOISE, BEHIND_S = 60.0, 90_000, 0.1, 2.0
POLICIES = ("ladder", "dropping", "nothing")
_RESULTS = Path(__file__).resolve().parent / "results"
_STYLE = (
    "text{font:11px sans-serif;fill:#333}.axis{stroke:#333}.even{stroke:#ddd}"
    ".line0{stroke:#0a7;stroke-width:2}.line1{stroke:#c60;stroke-width:2}.line2{stroke:#888;stroke-width:2}"
)


def streams_of(bank: DigitBank, events: int) -> Iterator[Stream]:
    """Streams of 60 s, clean and moderate in turn, until they hold so many events."""
    found = 0
    for index in count():
        stream = make_stream(bank, BY_NAME[("clean", "moderate")[index % 2]], STREAM_S, SEED + index)
        yield stream
        found += len(stream.events)
        if found >= events:
            return


class Machine:
    """A machine of some load. shares: time of each tick of each rung's pattern over a whole tick's, `[rungs, period]`."""

    def __init__(self, shares: npt.NDArray[np.float64], skip: float, load: float, tick_s: float, seed: int) -> None:
        self.shares, self.skip, self.load, self.tick_s = shares, skip, load, tick_s
        self._rng = np.random.default_rng(seed)

    def takes(self, rung: int, tick: int) -> float:
        """Seconds that a tick takes."""
        return self._s(float(self.shares[rung, tick % self.shares.shape[1]]))

    def passes(self) -> float:
        """Seconds that a dropped tick takes."""
        return self._s(self.skip)

    def _s(self, share: float) -> float:
        return share * self.load * self.tick_s * float(np.exp(NOISE * self._rng.standard_normal()))


def live(policy: str, engine: Engine, ladder: Ladder, stream: Stream, machine: Machine) -> tuple[npt.NDArray[np.int64], Any]:
    """The label that exists a tick after each tick's end, `[T]`, and (predictions made, mean rung)."""
    config, tick_s = engine.config, machine.tick_s
    session = Session(engine, ladder)
    session.start(0.0)
    shedding = Shedding(ladder.costs, tick_s) if policy == "ladder" else None
    finished: list[tuple[float, int]] = []
    free_s, rungs, resume = 0.0, [], 0
    for tick, packets in enumerate(packets_of(stream, config)):
        end_s = (tick + 1) * tick_s
        begun_s = max(free_s, end_s)
        if tick < resume:
            continue
        if begun_s - end_s > BEHIND_S:
            # Live, the stream begins anew at the present: the ticks in between are gone.
            resume = int(np.ceil(free_s / tick_s)) - 1
            rung = session.rung
            session = Session(engine, ladder)
            session.start(resume * tick_s)
            session.rung = rung
            if shedding is not None:
                shedding.restarted()
            continue
        packets.into(session)
        rungs.append(session.rung)
        late = begun_s - end_s > tick_s if policy == "dropping" else shedding is not None and shedding.drops
        if late or not session.due:
            session.skip()
            busy_s = machine.passes() if late else machine.takes(session.rung, tick)
        else:
            busy_s = machine.takes(session.rung, tick)
            finished.append((begun_s + busy_s, config.classes.index(session.step().label)))
        free_s = begun_s + busy_s
        if shedding is not None:
            session.rung = shedding.observe(busy_s)
    said = np.full(stream.ticks, NONE, np.int64)
    times = np.array([t for t, _ in finished])
    newest = np.searchsorted(times, (np.arange(stream.ticks) + 2) * tick_s, side="right") - 1
    labels = np.array([label for _, label in finished], np.int64)
    said[newest >= 0] = labels[newest[newest >= 0]]
    return said, (len(finished), float(np.mean(rungs)))


def curve(engine: Engine, ladder: Ladder, bank: DigitBank, events: int, loads: tuple[float, ...]) -> list[dict[str, Any]]:
    """Scores of every policy at every load, over the same streams."""
    seconds = tick_seconds(engine, Ladder(engine, [*ladder.rungs[1:], Rung("x", tick_every=2)], ladder._engines))
    whole = float(seconds[0].mean())
    shares, skip = seconds[:-1] / whole, float(seconds[-1, 0] / whole)
    tick_s = engine.config.tick.seconds
    scorers = {(p, load): Scorer(NONE) for p in POLICIES for load in loads}
    made: dict[tuple[str, float], list[tuple[int, float, int]]] = {key: [] for key in scorers}
    for number, stream in enumerate(streams_of(bank, events)):
        for policy, load in scorers:
            machine = Machine(shares, skip, load, tick_s, SEED + number)
            said, (predictions, rung) = live(policy, engine, ladder, stream, machine)
            scorers[policy, load].add(stream.labels, said, stream.events)
            made[policy, load].append((predictions, rung, stream.ticks))
        typer.echo(f"stream {number + 1}", err=True)
    rows = []
    for (policy, load), scorer in scorers.items():
        ticks = sum(m[2] for m in made[policy, load])
        rows.append(
            {
                "policy": policy,
                "load": load,
                **scorer.result().to_json(),
                "predictions_per_s": round(sum(m[0] for m in made[policy, load]) / ticks / tick_s, 2),
                "mean_rung": round(float(np.mean([m[1] for m in made[policy, load]])), 2),
            }
        )
    return rows


class _Unseeing:
    """An engine for which no camera is there."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.config, self.precision = engine, engine.config, engine.precision
        self.initial_state = engine.initial_state

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        return self._engine.step(masked(inputs, vision=False, audio=True), state)


def _smaller_frame(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same weights on a frame of half the side, area-averaged."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        node.input[:] = ["frame.half" if name == "frame" else name for name in node.input]
    pool = helper.make_node("AveragePool", ["frame"], ["frame.half"], kernel_shape=[2, 2], strides=[2, 2], name="frame.pool")
    nodes = [pool, *out.graph.node]
    del out.graph.node[:], out.graph.value_info[:]
    out.graph.node.extend(nodes)
    return out


def _with_budget(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """The same weights with IntraCED's budget at a share of the learned one."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    rho = next(i for i in out.graph.initializer if i.name == "rho")
    rho.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(rho) * np.float32(share), "rho"))
    return out


def no_rungs(bundle: bundles.Bundle, bank: DigitBank, events: int) -> list[dict[str, Any]]:
    """Saving and loss of changes that the ladder does without, each alone, from the fp32 graph."""
    model, config = onnx.load(bundle.path / bundle.manifest["graphs"]["fp32"]), bundle.config

    def opened(made: onnx.ModelProto) -> Engine:
        return OnnxEngine(made.SerializeToString(), config, "fp32")

    full = opened(model)
    held = next((r.graph_held for r in read_rungs(bundle) if "held" in r.graph_held and "window" not in r.graph_held), None)
    tried: list[tuple[Rung, dict[str, Engine]]] = [
        (Rung("frame of 48 x 48, same weights", graph="small"), {"small": opened(_smaller_frame(model))}),
        (Rung("budget x 0.5", graph="half"), {"half": opened(_with_budget(model, 0.5))}),
        (Rung("budget x 0.1", graph="tenth"), {"tenth": opened(_with_budget(model, 0.1))}),
        (Rung("no exchange (budget 0)", graph="none"), {"none": opened(_with_budget(model, 0.0))}),
        (Rung("audio encoder off", audio=False, graph="deaf", graph_held="deaf"), {"deaf": opened(without_sound(model))}),
    ]
    if held is not None:
        engine = OnnxEngine(bundle.path / held, config, "fp32")
        tried += [
            (Rung("vision every second tick, held between", vision_every=2, graph_held="held"), {"held": engine}),
            (
                Rung("vision every second tick, absent between", vision_every=2, graph_held="absent"),
                {"absent": _Unseeing(engine)},
            ),
        ]
    ladder = Ladder(full, [r for r, _ in tried], {k: v for _, e in tried for k, v in e.items()})
    seconds = tick_seconds(full, ladder).mean(axis=1)
    first, *judged = judge(full, ladder, streams_of(bank, events), lambda n: typer.echo(f"no rungs: stream {n + 1}", err=True))
    rows = []
    for (rung, _), j, s in zip(tried, judged, seconds[1:], strict=True):
        event, tick = j.lost(first)
        rows.append(
            {
                "change": rung.name,
                "saving": round(1.0 - float(s / seconds[0]), 4),
                "lost_event_points": round(event, 3),
                "lost_tick_points": round(tick, 3),
                "n_events": j.metrics.n_events,
            }
        )
    return rows


def main(
    bundle: Path,
    events: Annotated[int, typer.Option(min=1)] = 1000,
    ablation_events: Annotated[int | None, typer.Option(help="For the changes that are no rungs [default: the same]")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of MNIST and FSDD files [default: the own check part]")] = None,
    out: Path = _RESULTS / "load_curve.json",
) -> None:
    """Measure, print, write JSON and the picture beside it."""
    keep_memory()
    loaded = bundles.read(bundle)
    engine = OnnxEngine.from_bundle(loaded)
    ladder = open_ladder(loaded, engine)
    if ladder is None:
        raise typer.BadParameter(f"{bundle} has no ladder; export it again with --ladder")
    seen = Seen.load(bundle / SEEN) if (bundle / SEEN).is_file() else None
    bank, line = Material(root, seen).bank()
    others = no_rungs(loaded, bank, ablation_events or events)
    rows = curve(engine, ladder, bank, events, LOADS)
    for row in others:
        typer.echo(json.dumps(row))
    for row in rows:
        typer.echo(
            f"{row['policy']:9} load {row['load']:3.1f}: events {row['event_accuracy']:6.1%}, "
            f"ticks {row['tick_accuracy']:6.1%}, {row['predictions_per_s']:5.1f} predictions/s, mean rung {row['mean_rung']}"
        )
    result = {
        "machine": cpu_name(),
        "precision": engine.precision,
        "material": line,
        "events": rows[0]["n_events"],
        "ladder": loaded.manifest["ladder"],
        "curve": rows,
        "no_rungs": others,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for measure in ("event", "tick"):
        series = [(p, [r[f"{measure}_accuracy"] for r in rows if r["policy"] == p]) for p in POLICIES]
        name = f"{measure} accuracy"
        drawn = curves(f"{name} against load", LOADS, series, ("load: time of a whole tick / 40 ms", name))
        styled = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        styled = styled.replace(">", f'><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>', 1)
        out.with_name(f"{out.stem}_{measure}s.svg").write_text(styled + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
