"""The streaming step against its rivals: interleaved, in one process on one thread, all computing the same outputs.

    clcr-edge export --out out/digits-bundle
    python benchmarks/step_speed.py out/digits-bundle [--continual DIR] [--rounds 120] [--window 64]

Every rival reads the same ticks (random frames, sound and words that come and go) and is held to the step's outputs within
1e-4 at every tick before and while it is timed. "ours" is the step as the native engine runs it; "ours in ONNX Runtime" as the
default engine does. (a), (b) and (e) run in ONNX Runtime and compiled as ours is. A round gives each rival eight consecutive
ticks (every phase of the levels twice) behind one that is not timed, in an order drawn anew each round; a ratio is the median
over the rounds of a rival's median tick over ours in the same round, with the tenth and the ninetieth percentile, so that what
else the machine does cancels. (b) runs every seventh tick.
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
from rivals.compiled import CompiledStream  # noqa: E402
from rivals.continual_tcn import race_tcn  # noqa: E402
from rivals.graphs import INPUTS, Eager, FrameCnn, Stream, export, with_frame_cnn  # noqa: E402
from rivals.material import tick_inputs  # noqa: E402
from rivals.naive import CompiledNaive, NaiveStream  # noqa: E402
from rivals.ours import StepWithoutCnn  # noqa: E402
from rivals.page import page  # noqa: E402
from rivals.race import LIMIT, Race, Rival, ratio, summary, worst_of  # noqa: E402
from rivals.textbook import KvCache, TokenCache  # noqa: E402
from rivals.window import Naive, Window, reach  # noqa: E402

from clcr_edge.bundle import read  # noqa: E402
from clcr_edge.export.graph import export_step  # noqa: E402
from clcr_edge.export.native.compiler import find_compiler  # noqa: E402
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
_ORT = "ours in ONNX Runtime"
_COMPILED = ", compiled as ours"


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
        _ORT: [ours],
        "e: tokens cached, textbook IntraCED": [_graph(TokenCache(student), config)],
        "e': queries, keys, values cached, textbook exchange": [_graph(KvCache(student), config)],
        "a: windows recomputed, features cached": [_graph(Window(student, p), config) for p in range(stride)],
    }
    unfed = [_naive_graph(Naive(student, p)) for p in range(stride)]
    naive = {"b: windows recomputed, nothing cached": NaiveStream(unfed, config)}
    naive |= {name + _COMPILED: CompiledNaive(unfed, config) for name in naive}

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

    def rivals(graphs: dict[str, list[onnx.ModelProto]]) -> dict[str, Rival]:
        """Ours compiled; ours and the others in ONNX Runtime; the others compiled too."""
        found: dict[str, Rival] = {"ours": CompiledStream(graphs[_ORT], stride)}
        found |= {name: Stream(models, stride) for name, models in graphs.items()}
        return found | {n + _COMPILED: CompiledStream(models, stride) for n, models in graphs.items() if n != _ORT}

    without = rivals(bare)
    eager = StepWithoutCnn(student).eval()
    windows = [Window(student, p).eval() for p in range(stride)]
    without["c: ours in torch eager"] = Eager([eager], initial_state(config), stride)
    without["c': a in torch eager"] = Eager(windows, tuple(windows[0].first_state().values()), stride)
    everything = rivals({_ORT: [full]} | {n: [with_frame_cnn(cnn, m) for m in bare[n]] for n in bare if n != _ORT})
    everything["c: ours in torch eager"] = Eager([step], initial_state(config), stride)

    race = Race(
        {f"{name}|without": r for name, r in without.items()} | {f"{name}|all": r for name, r in everything.items()},
        {f"{name}|without": featured for name in without} | {f"{name}|all": feeds for name in everything},
        reference,
        warm,
    )
    names = list(race.rivals)
    for name in names:
        race.run(name, warm, count=False)
    for rival in naive.values():
        for k in range(warm):
            rival.push(feeds[k])
    naive_us: dict[str, list[float]] = {name: [] for name in naive}
    naive_phases: dict[str, list[int]] = {name: [] for name in naive}
    naive_ratio: dict[str, dict[str, list[float]]] = {name: {"ours": [], _ORT: []} for name in naive}
    naive_difference = dict.fromkeys(naive, 0.0)
    order = np.random.default_rng(11)  # nobody always runs behind the same rival, whose weights it finds in the caches or not
    for r in range(rounds):
        for name in order.permutation(names):
            race.run(str(name), _LEAD, count=False)
            race.run(str(name), _BLOCK)
        first = warm + r * (_LEAD + _BLOCK)
        for k in range(first, first + _LEAD + _BLOCK):
            for name in order.permutation(list(naive)):
                rival = naive[str(name)]
                rival.push(feeds[k])
                if k % _NAIVE_EVERY:
                    continue
                begun = time.perf_counter_ns()
                got = rival(k)
                naive_us[name].append((time.perf_counter_ns() - begun) / 1e3)
                naive_phases[name].append((k + 1) % stride)
                for whose, ratios in naive_ratio[name].items():
                    ratios.append(naive_us[name][-1] / race.blocks[f"{whose}|all"][-1])
                naive_difference[name] = max(naive_difference[name], worst_of(reference[k], got))
                assert naive_difference[name] <= LIMIT, f"{name} differs by {naive_difference[name]} at tick {k}"

    def against_ort(part: str) -> dict[str, dict[str, float]]:
        """What the rivals in ONNX Runtime cost against ours there."""
        return {n: ratio(race.blocks[f"{n}|{part}"], race.blocks[f"{_ORT}|{part}"]) for n in bare if n != _ORT}

    timed = race.table("ours|without"), race.table("ours|all")
    in_ort = {"without_frame_cnn": against_ort("without"), "all_included": against_ort("all")}
    for name, found in naive_ratio.items():
        if _COMPILED not in name:
            in_ort["all_included"][name] = ratio(found[_ORT], [1.0] * len(found[_ORT]))

    sweep = np.ones(6_000_000, np.float32)  # 24 MB: more than this machine gives one core of its last cache
    frozen = Race(race.rivals, race.feeds, reference, warm)
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
            name: summary(naive_us[name], naive_phases[name])
            | {
                "ratio_to_ours": ratio(naive_ratio[name]["ours"], [1.0] * len(naive_us[name])),
                "max_difference": naive_difference[name],
            }
            for name in naive
        },
        "in_onnx_runtime": in_ort,
        "compiler": find_compiler().line,
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
