"""The streaming step against its rivals: interleaved, in one process on one thread, all computing the same outputs.

    clcr-edge export --out out/digits-bundle
    python benchmarks/step_speed.py out/digits-bundle [--continual DIR] [--rounds 120] [--window 64]

Every rival reads the same ticks (random frames, sound and words that come and go) and is held to the step's outputs within
1e-4 at every tick before and while it is timed. A round gives each rival eight consecutive ticks (every phase of the levels
twice) behind one that is not timed, in an order drawn anew each round; a ratio is the median over the rounds of a rival's
median tick over ours in the same round, with the tenth and the ninetieth percentile, so that what else the machine does
cancels. (b) runs every seventh tick.
Afterwards the same with caches swept before each tick, as a camera's pace leaves them. Writes JSON and docs/speed.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import torch  # noqa: E402
import typer  # noqa: E402
from rivals import floor  # noqa: E402
from rivals.continual_tcn import race_tcn  # noqa: E402
from rivals.graphs import INPUTS, Arrays, Eager, FrameCnn, Stream, export, with_frame_cnn  # noqa: E402
from rivals.material import tick_inputs  # noqa: E402
from rivals.ours import StepWithFreeExchange, StepWithoutCnn  # noqa: E402
from rivals.page import page  # noqa: E402
from rivals.race import LIMIT, Race, Rival, ratio, summary, worst_of  # noqa: E402
from rivals.textbook import KvCache, TokenCache  # noqa: E402
from rivals.window import Naive, Window, reach  # noqa: E402

from clcr_edge.bundle import read  # noqa: E402
from clcr_edge.export.graph import export_step  # noqa: E402
from clcr_edge.export.step import OUTPUTS, StepGraph, example_inputs, initial_state  # noqa: E402
from clcr_edge.model.student import Student  # noqa: E402
from clcr_edge.runtime.machine import cpu_name  # noqa: E402
from clcr_edge.runtime.onnx_engine import open_graph  # noqa: E402
from clcr_edge.train.checkpoint import load_student  # noqa: E402

_HERE = Path(__file__).resolve().parent
_SHIPPED = _HERE.parent / "clcr_edge" / "assets" / "digits-student"
_BLOCK = 8  # ticks a rival runs at a time: every phase twice
_LEAD = 1  # before them, untimed: a rival's first tick pays for the one before it, and would always fall on the same phase
_NAIVE_EVERY = 7
_BOUND = "ours, were the exchange free"


class NaiveStream:
    """(b): the host keeps raw media of the receptive field; only the call is timed, not that copying."""

    def __init__(self, models: list[onnx.ModelProto], config: Any) -> None:
        self.sessions = [open_graph(m.SerializeToString()) for m in models]
        shapes = {i.name: i.shape for i in self.sessions[-1].get_inputs()}
        kinds = {"ngrams": np.int32}
        self.rings: Arrays = {name: np.zeros(shape, kinds.get(name, np.float32)) for name, shape in shapes.items()}
        self.words = config.model.window

    def push(self, feed: Arrays) -> None:
        def append(name: str, new: np.ndarray) -> None:
            if len(new):
                ring = self.rings[name]
                ring[: -len(new)] = ring[len(new) :].copy()
                ring[-len(new) :] = new

        append("frames", feed["frame"])
        append("fbank", feed["fbank"])
        self.rings["presence"] = np.concatenate([self.rings["presence"][:, 1:], feed["present"][:, None]], axis=1)
        count = int(feed["n_new"][0, 0])
        self.rings["word_ages"] += 1
        for name in ("ngrams", "confidence"):
            append(name, feed[name][:count])
        append("word_ages", feed["word_age"][:count])
        append("word_there", np.ones(count, np.float32))

    def __call__(self, tick: int) -> list[np.ndarray]:
        return self.sessions[(tick + 1) % len(self.sessions)].run(list(OUTPUTS), self.rings)


def _named(module: Any, config: Any, feature: bool) -> dict[str, torch.Tensor]:
    inputs = dict(zip(INPUTS, example_inputs(config), strict=True))
    if feature:
        inputs["frame"] = torch.zeros(1, config.model.width)
    state = module.first_state() if hasattr(module, "first_state") else initial_state(config)
    return inputs | (dict(state) if isinstance(state, dict) else state._asdict())


def _graph(module: Any, config: Any) -> onnx.ModelProto:
    inputs = _named(module, config, feature=True)
    states = [name for name in inputs if name not in INPUTS]
    return export(module, inputs, [*OUTPUTS, *(f"next_{name}" for name in states)])


def _naive_graph(module: Naive) -> onnx.ModelProto:
    m, t = module.config.model, module.config.tick
    words = m.window + 3
    inputs = {
        "frames": torch.zeros(module.longest, 1, t.image_size, t.image_size),
        "fbank": torch.zeros(module.longest * t.fbank_frames + m.audio_context, t.n_mels),
        "presence": torch.zeros(2, module.longest),
        "ngrams": torch.zeros(words, t.ngrams_per_word, dtype=torch.int32),
        "confidence": torch.zeros(words),
        "word_there": torch.zeros(m.window),
        "word_ages": torch.zeros(m.window),
    }
    return export(module, inputs, OUTPUTS)


def main(
    bundle: Path,
    checkpoint: Path = _SHIPPED,
    rounds: Annotated[int, typer.Option(min=8)] = 120,
    cold: Annotated[int, typer.Option(min=8, help="Ticks with swept caches.")] = 150,
    continual: Annotated[Path | None, typer.Option(help="Where continual-inference was installed.")] = None,
    window: Annotated[int | None, typer.Option(help="A student of random weights with so many tokens a window.")] = None,
    out: Path = _HERE / "results" / "step_speed.json",
    docs: Path = _HERE.parent / "docs" / "speed.md",
) -> None:
    """Race, print, write."""
    torch.set_num_threads(1)
    student = load_student(checkpoint)[0].eval()
    full = onnx.load(read(bundle).graph("fp32"))
    if window:
        torch.manual_seed(0)
        model = dataclasses.replace(student.config.model, window=window)
        student = Student(dataclasses.replace(student.config, model=model)).eval()
        full = export_step(student)
    config = student.config
    stride = config.model.strides[-1]

    step = StepGraph(student).eval()
    cnn = export(FrameCnn(step), {"frame": example_inputs(config)[0]}, ["features"])
    ours = _graph(StepWithoutCnn(student), config)
    bare = {
        "ours": [ours],
        "e: tokens cached, textbook IntraCED": [_graph(TokenCache(student), config)],
        "e': queries, keys, values cached, textbook exchange": [_graph(KvCache(student), config)],
        "a: windows recomputed, features cached": [_graph(Window(student, p), config) for p in range(stride)],
    }
    naive = NaiveStream([_naive_graph(Naive(student, p)) for p in range(stride)], config)

    words_gone = max(config.model.window * stride, config.model.word_ticks)
    warm = max(words_gone, *(reach(config.model, p) for p in range(stride))) + 2 * _BLOCK
    ticks = warm + rounds * (_LEAD + _BLOCK) + cold
    made = tick_inputs(config, ticks, seed=7)
    feeds = [{f.name: getattr(t, f.name) for f in dataclasses.fields(t)} for t in made]
    encode = open_graph(cnn.SerializeToString())
    featured = [feed | {"frame": encode.run(None, {"frame": feed["frame"]})[0]} for feed in feeds]
    truth = Stream([full], stride)
    state_bytes = truth.state_bytes
    reference = [truth(k, feed) for k, feed in enumerate(feeds)]

    without: dict[str, Rival] = {name: Stream(models, stride) for name, models in bare.items()}
    eager = StepWithoutCnn(student).eval()
    windows = [Window(student, p).eval() for p in range(stride)]
    without["c: ours in torch eager"] = Eager([eager], initial_state(config), stride)
    without["c': a in torch eager"] = Eager(windows, tuple(windows[0].first_state().values()), stride)
    everything: dict[str, Rival] = {"ours": Stream([full], stride)}
    for name in list(bare)[1:]:
        everything[name] = Stream([with_frame_cnn(cnn, m) for m in bare[name]], stride)
    everything["c: ours in torch eager"] = Eager([step], initial_state(config), stride)

    free = _graph(StepWithFreeExchange(student), config)
    bounds: dict[str, Rival] = {
        f"{_BOUND}|without": Stream([free], stride),
        f"{_BOUND}|all": Stream([with_frame_cnn(cnn, free)], stride),
    }
    race = Race(
        {f"{name}|without": r for name, r in without.items()} | {f"{name}|all": r for name, r in everything.items()} | bounds,
        {f"{name}|without": featured for name in [*without, _BOUND]} | {f"{name}|all": feeds for name in [*everything, _BOUND]},
        reference,
        warm,
        frozenset(bounds),
    )
    names = list(race.rivals)
    for name in names:
        race.run(name, warm, count=False)
    for k in range(warm):
        naive.push(feeds[k])
    naive_us: list[float] = []
    naive_ratio: list[float] = []
    naive_to_bound: list[float] = []
    naive_difference = 0.0
    order = np.random.default_rng(11)  # nobody always runs behind the same rival, whose weights it finds in the caches or not
    for r in range(rounds):
        for name in order.permutation(names):
            race.run(str(name), _LEAD, count=False)
            race.run(str(name), _BLOCK)
        first = warm + r * (_LEAD + _BLOCK)
        for k in range(first, first + _LEAD + _BLOCK):
            naive.push(feeds[k])
            if k % _NAIVE_EVERY == 0:
                begun = time.perf_counter_ns()
                got = naive(k)
                naive_us.append((time.perf_counter_ns() - begun) / 1e3)
                naive_ratio.append(naive_us[-1] / race.blocks["ours|all"][-1])
                naive_to_bound.append(naive_us[-1] / race.blocks[f"{_BOUND}|all"][-1])
                naive_difference = max(naive_difference, worst_of(reference[k], got))
                assert naive_difference <= LIMIT, f"(b) differs by {naive_difference} at tick {k}"
    timed = race.table("ours|without"), race.table("ours|all")

    to_bound = {
        f"{name}|{part}": ratio(race.blocks[f"{name}|{part}"], race.blocks[f"{_BOUND}|{part}"])
        for part in ("without", "all")
        for name in list(bare)
    }
    bound = {
        "without_frame_cnn": race.table("ours|without")[f"{_BOUND}|without"],
        "all_included": race.table("ours|all")[f"{_BOUND}|all"],
        "nodes_without_frame_cnn": len(free.graph.node),
        "rivals_to_it": to_bound | {"b|all": ratio(naive_to_bound, [1.0] * len(naive_to_bound))},
    }

    sweep = np.ones(6_000_000, np.float32)  # 24 MB: more than this machine gives one core of its last cache
    frozen = Race(race.rivals, race.feeds, reference, warm, race.unheld)
    frozen.at = dict(race.at)
    for _ in range(cold):
        for name in order.permutation(names):
            frozen.run(str(name), 1, before=sweep.sum)
    swept = frozen.table("ours|without"), frozen.table("ours|all")

    def split(tables: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
        return {
            "without_frame_cnn": {n: tables[0][f"{n}|without"] for n in without},
            "all_included": {n: tables[1][f"{n}|all"] for n in everything},
        }

    speed = floor.machine()
    per_node = floor.node_cost_us()
    floors = {}
    for name, model in (("step", full), ("step_without_frame_cnn", ours)):
        table = [config.tick.ngram_buckets, config.model.embedding_width]
        tables = {i.name for i in model.graph.initializer if list(i.dims) == table}
        found = floor.work(model, tables)
        floors[name] = found | floor.floor_us(found, speed)
    result = {
        "machine": cpu_name(), "weights": "random" if window else "shipped", "threads": 1,
        "ticks_per_rival": rounds * _BLOCK, "rounds": rounds,
        "student": {"window": config.model.window, "strides": list(config.model.strides), "width": config.model.width},
        "reach_ticks": [w.reach for w in windows],
        "state_bytes_per_stream": state_bytes,
        "warm": split(timed), "swept_caches": split(swept),
        "b": {
            **summary(naive_us, [0] * len(naive_us)), "ratio_to_ours": ratio(naive_ratio, [1.0] * len(naive_ratio)),
            "max_difference": naive_difference,
        },
        "bound": bound,
        "d": race_tcn(student, continual, 3 * rounds, _BLOCK),
        "floor": floors | {"machine": speed, "onnx_runtime_us_per_node": round(per_node, 2)},
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = page(result)
    docs.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
