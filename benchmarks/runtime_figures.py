"""How many streams one core serves with every deadline met, and whether being scraped makes ticks later.

    python benchmarks/runtime_figures.py [--bundle out/digits-bundle] [--seconds 10]
    python benchmarks/runtime_figures.py --engine native --precision fp32 --out benchmarks/results/runtime_figures_native.json

Streams: the deadline test of `clcr-edge bench` (640x480 frames, audio and words for every stream, features and step, all ticks
due at once) for a rising number of streams; beside the misses the CPU time of a tick, which a busy machine does not change as
much. Scraping: one pipeline on generated sources with `/metrics` served; another process scrapes ten times a second in every
other two seconds, and the ticks of both kinds of seconds are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

import clcr_edge
from clcr_edge.export.bench import WARM_S, deadlines, worst
from clcr_edge.export.generated import GeneratedCamera, GeneratedMedia, GeneratedMicrophone
from clcr_edge.runtime.assets import default_bundle
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.machine import machine_table
from clcr_edge.runtime.metrics import Metrics
from clcr_edge.runtime.metrics_server import MetricsServer
from clcr_edge.runtime.pipeline import live
from clcr_edge.runtime.session import Session

_OUT = Path(__file__).resolve().parent / "results" / "runtime_figures.json"
_STREAMS = (1, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 80)
_WINDOW_S = 2.0  # scraped and left alone in turn, on the monotonic clock that both processes share
_SCRAPER = """
import sys, time, urllib.request
while True:
    if int(time.monotonic() / float(sys.argv[2])) % 2 == 0:
        urllib.request.urlopen(sys.argv[1]).read()
    time.sleep(0.1)
"""


def streams_per_core(engine: Engine, seconds: float, media: GeneratedMedia) -> dict[str, Any]:
    """The deadline test for every number of streams; the largest without a miss."""
    rows = []
    for streams in _STREAMS:
        found = deadlines(engine, streams, seconds, media)
        cpu_ms = 1e3 * found.cpu_share * engine.config.tick.seconds / streams
        rows.append(
            {"streams": streams, "missed": found.missed, **worst(found.latency_s), "cpu_share": found.cpu_share,
             "cpu_ms_per_tick": round(cpu_ms, 3), "load_1min": round(os.getloadavg()[0], 2)}
        )  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr)
    met = [row["streams"] for row in rows if row["missed"] == 0]
    return {"every_deadline_met_with": max(met, default=0), "rows": rows}


def scraped(engine: Engine, seconds: float, media: GeneratedMedia) -> dict[str, Any]:
    """Age of audio at its prediction and step time, in seconds scraped and in seconds left alone."""
    wake = threading.Event()
    session = Session(engine)
    pipeline = live(session, camera=GeneratedCamera(media, wake), microphone=GeneratedMicrophone(media, wake), wake=wake)
    metrics = Metrics({"bundle": "bench"})
    server = MetricsServer(metrics)
    metrics.attach(pipeline)
    scraper = subprocess.Popen([sys.executable, "-c", _SCRAPER, f"{server.url}/metrics", str(_WINDOW_S)])
    ages: dict[bool, list[float]] = {True: [], False: []}
    steps: dict[bool, list[float]] = {True: [], False: []}
    end = time.monotonic() + WARM_S + seconds
    try:
        for prediction in pipeline:
            metrics.saw(prediction)
            now = time.monotonic()
            kind = int(now / _WINDOW_S) % 2 == 0
            if now > end - seconds and "audio" in pipeline.ages:
                ages[kind].append(pipeline.ages["audio"])
                steps[kind].append(prediction.latency_ms / 1e3)
            if now > end:
                break
    finally:
        scraper.terminate()
        scraper.wait()
        pipeline.close()
        server.close()
    names = {True: "scraped_10_hz", False: "left_alone"}
    return {name: {"audio_age": worst(ages[kind]), "step": worst(steps[kind])} for kind, name in names.items()}


def main(
    bundle: Path | None = None,
    seconds: Annotated[float, typer.Option(min=1.0)] = 10.0,
    precision: str | None = None,
    engine_name: Annotated[str, typer.Option("--engine", help="onnxruntime or native.")] = "onnxruntime",
    out: Path = _OUT,
) -> None:
    """Measure, print, write JSON."""
    engine = clcr_edge.open_engine(bundle or default_bundle(), precision, engine_name)
    media = GeneratedMedia()
    result = {
        "machine": {**machine_table(), "load_1min_before": round(os.getloadavg()[0], 2)},
        "engine": engine_name,
        "precision": engine.precision,
        "seconds": seconds,
        "scraping": scraped(engine, 4 * seconds, media),
        "streams": streams_per_core(engine, seconds, media),
    }
    print(json.dumps(result, indent=1))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
