"""What a bundle costs on this machine: latency alone, at pace, of many streams with a deadline, from capture to prediction.

Every measurement gives its raw samples, in seconds; `worst` makes the table of them. The first second of everything that is
paced, and the first 30 steps of what is not, are made and not counted.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.errors import EngineError
from clcr_edge.export.generated import RATE_HZ, GeneratedCamera, GeneratedMedia, GeneratedMicrophone
from clcr_edge.export.latency import percentiles
from clcr_edge.packets import Modality, Word
from clcr_edge.runtime.child_python import child_python
from clcr_edge.runtime.engine import Engine
from clcr_edge.runtime.machine import resident_bytes
from clcr_edge.runtime.opening import open_pipeline
from clcr_edge.runtime.pipeline import Pipeline, live
from clcr_edge.runtime.session import Session
from clcr_edge.runtime.sources import Plan
from clcr_edge.runtime.speech import Speech

WARM_S = 1.0
_WORD_TICKS = 25  # the deadline test hears a word a second


def worst(seconds: Sequence[float]) -> dict[str, float]:
    """n, p50, p90, p99 and max in milliseconds."""
    return {**percentiles(seconds), "max_ms": round(max(seconds) * 1e3, 4)}


class _Cpu:
    """CPU time of this process, and of a pipeline's recogniser in its own, over wall time, as a share of one core."""

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self._pipeline = pipeline
        self._wall, self._cpu = time.monotonic(), self._used_s()

    def _used_s(self) -> float:
        use = None if self._pipeline is None else self._pipeline.speech_use
        return time.process_time() + (0.0 if use is None else use.cpu_s)

    @property
    def share(self) -> float:
        return round((self._used_s() - self._cpu) / max(time.monotonic() - self._wall, 1e-9), 4)


@dataclass
class Streams:
    """Many streams on one engine in one thread. latency_s: from a tick's end to its prediction, every stream's own; missed:
    how many were later than one tick. bytes_each: resident memory that a stream added (None where the system does not tell)."""

    latency_s: list[float]
    missed: int
    cpu_share: float
    bytes_each: float | None


def deadlines(
    engine: Engine,
    streams: int,
    seconds: float,
    media: GeneratedMedia,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Streams:
    """N streams at the bundle's rate, all of whose ticks end at the same instant (the hardest phase). Each gets a frame of
    640x480, its audio and a word a second, computes features and step, and must be done before the next tick ends.
    """
    tick = engine.config.tick
    before = resident_bytes()
    sessions = [Session(engine) for _ in range(streams)]
    for session in sessions:
        session.start(0.0)
    latency: list[float] = []
    missed, warm, cpu = 0, round(WARM_S * tick.rate_hz), _Cpu()
    begun = clock()
    for turn in range(warm + max(1, round(seconds * tick.rate_hz))):
        if turn == warm:
            cpu = _Cpu()
        due = begun + (turn + 1) * tick.seconds
        sleep(max(0.0, due - clock()))
        t_s = turn * tick.seconds
        for number, session in enumerate(sessions):
            session.push_frame(media.frame(turn + number, t_s))
            session.push_audio(media.audio((turn + 7 * number) * tick.samples, tick.samples, t_s))
            if (turn + number) % _WORD_TICKS == 0:
                session.push_word(Word("seven", max(t_s - 0.6, 0.0), max(t_s - 0.3, 0.0)))
            session.step()
            if turn >= warm:
                latency.append(clock() - due)
                missed += latency[-1] > tick.seconds
    after = resident_bytes()
    each = None if before is None or after is None else (after - before) / streams
    return Streams(latency, missed, cpu.share, each)


@dataclass
class Live:
    """A pipeline in real time. age_s: by modality, from capture to prediction. step_s: of every tick. late: ticks whose
    prediction came more than a tick after their end, the warm-up's included. cpu_share, process_bytes: of this process and of
    the recogniser's."""

    source: str
    step_s: list[float] = field(default_factory=list)
    age_s: dict[str, list[float]] = field(default_factory=dict)
    late: int = 0
    cpu_share: float = 0.0
    process_bytes: int | None = None
    drops: dict[str, int] = field(default_factory=dict)


def run_live(engine: Engine, seconds: float, plan: Plan | None, speech: Speech | None, media: GeneratedMedia) -> Live:
    """The live path for some seconds: on the plan's sources, or on generated ones (None)."""
    session = Session(engine)
    found = Live("generated" if plan is None else str(plan), age_s={m.key: [] for m in Modality})
    with _pipeline(session, plan, speech, media) as pipeline:
        warm, cpu = round(WARM_S * session.config.tick.rate_hz), _Cpu(pipeline)
        last = warm + max(1, round(seconds * session.config.tick.rate_hz))
        for count, prediction in enumerate(pipeline, start=1):
            if count == warm:
                cpu = _Cpu(pipeline)
            if count > warm:
                found.step_s.append(prediction.latency_ms / 1e3)
                for modality, age_s in pipeline.ages.items():
                    found.age_s[modality].append(age_s)
            if count >= last:
                break
        own, speech_use = resident_bytes(), pipeline.speech_use
        found.process_bytes = own and own + (0 if speech_use is None else speech_use.resident_bytes)
        found.cpu_share, found.late = cpu.share, pipeline.late
        found.drops = {f"{what}_{why}": n for (what, why), n in pipeline.drops.items()}
    if not found.step_s:
        raise EngineError(f"{found.source}: ended within the {WARM_S:g} s of warm-up; give a longer file")
    return found


def _pipeline(session: Session, plan: Plan | None, speech: Speech | None, media: GeneratedMedia) -> Pipeline:
    if plan is not None:
        return open_pipeline(session, plan, speech=speech)
    wake = threading.Event()
    camera, microphone = GeneratedCamera(media, wake), GeneratedMicrophone(media, wake)
    return live(session, camera=camera, microphone=microphone, wake=wake, speech=speech)


@dataclass(frozen=True)
class Start:
    """A cold process. first_s: from its start to the first prediction on its stdout. process_bytes: its resident memory at
    its last prediction."""

    first_s: float
    process_bytes: int | None


def cold_start(arguments: Sequence[str], folder: Path, media: GeneratedMedia, seconds: float) -> Start:
    """`clcr-edge run` with `arguments` in a new process, on a sound file in `folder` if they name no source.

    The process is cold, the system's file cache is not. With files the first tick itself takes its 40 ms.
    """
    command = [*child_python("from clcr_edge.cli import main; main()"), "run", *arguments, "--json", "--duration", str(seconds)]
    if not {"--camera", "--mic"} & set(arguments):
        command += ["--mic", str(_sound(folder, media, seconds + 1.0))]
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    first_s, memory = 0.0, None
    status = Path(f"/proc/{process.pid}/status")
    for line in process.stdout:
        if line.startswith("{"):
            first_s = first_s or time.monotonic() - begun
            memory = resident_bytes(status) or memory
    _, said = process.communicate()
    if process.returncode or not first_s:
        raise EngineError(f"start-up: {' '.join(said.strip().splitlines()[-1:]) or 'it ended without a prediction'}")
    return Start(first_s, memory)


def _sound(folder: Path, media: GeneratedMedia, seconds: float) -> Path:
    path = folder / "speech.wav"
    samples = media.audio(0, round(seconds * RATE_HZ), 0.0).samples
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


def state_bytes(engine: Engine) -> int:
    """What one stream remembers between ticks."""
    return sum(np.asarray(value).nbytes for value in engine.initial_state().values())


def tables(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """`worst` of every series that has samples."""
    return {name: worst(values) for name, values in samples.items() if values}
