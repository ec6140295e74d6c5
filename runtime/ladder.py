"""The shedding ladder: what may be left out when ticks cannot be finished in time, in the order in which it pays.

    rung 0   the whole network, one static graph
    rung 1   the change that saves most per loss of accuracy
    rung k   all changes of the rungs before it, and one more

The export measures what each rung saves and loses, and writes the rungs into the bundle's manifest, with the graphs that they
need (fp32, of the same state layout, so that a stream goes from one to the other within a tick). `Shedding` picks the rung.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from clcr_edge.bundle import Bundle
from clcr_edge.errors import BundleError
from clcr_edge.packets import Modality
from clcr_edge.runtime.engine import Engine, State, StepInputs, StepOutputs
from clcr_edge.runtime.step_state import resized

FULL = "full"


@dataclass(frozen=True)
class Rung:
    """What one rung computes, and what was measured of it at export.

    name: the change that it adds. vision_every: the frame encoder runs at every n-th tick and its last token is held in
    between; 0: vision is off. audio: whether the audio encoder runs. window: tokens per level window, 0: the bundle's own.
    tick_every: of n ticks one is computed. graph, graph_held: the files for ticks with and without the frame encoder; "": the
    bundle's step graph.
    saving: share of a full tick's time that the whole rung saves, on average. lost_event_points, lost_tick_points: points of
    event and tick accuracy that it loses against the full network on n_events events of the export's check streams.
    """

    name: str = FULL
    vision_every: int = 1
    audio: bool = True
    window: int = 0
    tick_every: int = 1
    graph: str = ""
    graph_held: str = ""
    saving: float = 0.0
    lost_event_points: float = 0.0
    lost_tick_points: float = 0.0
    n_events: int = 0

    def looks(self, tick: int) -> bool:
        """Whether tick `tick` runs the frame encoder. The ticks chosen are those at which the slower levels fire."""
        return self.vision_every > 0 and (tick + 1) % self.vision_every == 0

    def computes(self, tick: int) -> bool:
        """Whether tick `tick` is computed at all."""
        return (tick + 1) % self.tick_every == 0


class Ladder:
    """Rungs and the engines that run them. Holds no stream: sessions share it.

    engine: runs rung 0. engines: by file name, those of the rungs' own graphs; rungs: from 1 on.
    """

    def __init__(self, engine: Engine, rungs: Sequence[Rung], engines: Mapping[str, Engine]) -> None:
        self.rungs = (Rung(), *rungs)
        self._engine, self._engines = engine, engines

    @property
    def costs(self) -> tuple[float, ...]:
        """Time of an average tick on each rung, as a share of a full tick's."""
        return tuple(1.0 - r.saving for r in self.rungs)

    def step(self, rung: Rung, tick: int, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """One tick on a rung; the state may come from any other."""
        file = rung.graph if rung.looks(tick) else rung.graph_held
        engine = self._engines[file] if file else self._engine
        inputs = masked(inputs, vision=rung.vision_every > 0, audio=rung.audio)
        return engine.step(inputs, resized(state, rung.window or engine.config.model.window))


def masked(inputs: StepInputs, vision: bool, audio: bool) -> StepInputs:
    """The inputs with a modality marked absent."""
    if vision and audio:
        return inputs
    present = inputs.present.copy()
    if not vision:
        present[Modality.VISION - 1] = 0.0
    if not audio:
        present[Modality.AUDIO - 1] = 0.0
    return StepInputs(**{**vars(inputs), "present": present})


def read_rungs(bundle: Bundle) -> tuple[Rung, ...]:
    """The rungs of a bundle's manifest, in order; empty for a bundle without a ladder. Raises `BundleError`."""
    where = bundle.path / "manifest.toml"
    table = bundle.manifest.get("ladder")
    if table is None:
        return ()
    if not isinstance(table, dict) or not isinstance(table.get("rungs"), list):
        raise BundleError(f"{where}: [ladder] needs rungs = [names]; export again")
    rungs = []
    for name in table["rungs"]:
        values = table.get(name)
        if not isinstance(name, str) or not isinstance(values, dict):
            raise BundleError(f"{where}: rung {name!r} has no table in [ladder]; export again")
        rungs.append(_rung(str(where), name, values))
    for rung in rungs:
        for file in (rung.graph, rung.graph_held):
            if file and file not in bundle.manifest["files"]:
                raise BundleError(f"{where}: rung {rung.name} names {file!r}, which [files] does not list; export again")
    return tuple(rungs)


def _rung(where: str, name: str, values: Mapping[str, Any]) -> Rung:
    known = {f.name: type(f.default) for f in fields(Rung)}
    for key, value in values.items():
        if key not in known or key == "name":
            raise BundleError(f"{where}: rung {name} has an unknown key {key!r}; update clcr-edge")
        if type(value) is not known[key]:
            raise BundleError(f"{where}: rung {name}: {key} = {value!r} is no {known[key].__name__}; export again")
    rung = Rung(name=name, **values)
    if rung.vision_every < 0 or rung.window < 0 or rung.tick_every < 1 or not 0.0 <= rung.saving < 1.0:
        raise BundleError(f"{where}: rung {name} holds a value outside its range; export again")
    return rung


def ladder_sha256(bundle: Bundle) -> str:
    """Names what the rungs of a bundle compute, graphs included; "" for a bundle without a ladder. What was measured of them is
    left out: an export on another day measures anew, and a rung gives the same predictions all the same."""
    rungs = read_rungs(bundle)
    if not rungs:
        return ""
    files = bundle.manifest["files"]
    computed = [
        [r.vision_every, r.audio, r.window, r.tick_every, *(files[f]["sha256"] if f else "" for f in (r.graph, r.graph_held))]
        for r in rungs
    ]
    return hashlib.sha256(json.dumps(computed).encode()).hexdigest()


def to_table(rungs: Sequence[Rung]) -> dict[str, Any]:
    """Rungs -> what `read_rungs` reads."""
    return {"rungs": [r.name for r in rungs], **{r.name: {k: v for k, v in vars(r).items() if k != "name"} for r in rungs}}


def open_ladder(bundle: Bundle, engine: Engine, when_needed: bool = False) -> Ladder | None:
    """The ladder of a bundle around an open engine; None where a bundle has none.

    Rungs are ONNX Runtime's, which measured them and runs their graphs. Another engine gets a ladder of rung 0 alone: what
    cannot be made in time passes without a prediction, and nothing else is left out.
    All graphs are opened now: the moment of overload is a bad one for that. when_needed: each is opened by the first tick that
    needs it, for one thread; a replay has time, and most recordings never shed.
    """
    from clcr_edge.runtime.onnx_engine import OnnxEngine  # not everywhere: a Jetson may have TensorRT alone

    class Graphs(dict[str, Engine]):
        def __missing__(self, file: str) -> Engine:
            engine = self[file] = OnnxEngine(bundle.path / file, bundle.config, "fp32")
            return engine

    rungs = read_rungs(bundle)
    if not isinstance(engine, OnnxEngine):
        return Ladder(engine, (), {})
    if not rungs:
        return None
    graphs = Graphs()
    if not when_needed:
        for file in sorted({file for rung in rungs for file in (rung.graph, rung.graph_held) if file}):
            graphs[file]
    return Ladder(engine, rungs, graphs)
