"""Real-time soak: `clcr-edge run` on a sound server, an HTTP camera and the shipped Vosk model; memory and latency over time.

    python benchmarks/soak.py [--minutes 60] [--bundle out/digits-bundle] [--engine native] [--width 640 --height 480]

The camera is HTTP MJPEG on loopback, and a frame's age begins when OpenCV hands it over, decoded. Needs what the live tests
need (PulseAudio, PortAudio, OpenCV, Vosk); the demo clip's speech is played round and round. Times of arrival are taken here,
in the reader's process, so the sink and a pipe are in them; the first, from the start of a cold process, holds the opening of
camera, microphone and recogniser too. Writes results/soak.json and results/soak.svg; exit code 1 if a tick is missing, a
source is not live in the end, or memory grows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from live_rig import SoundServer, camera_server, sound_server, write_wav  # noqa: E402 - beside the tests

from clcr_edge.runtime.assets import default_bundle  # noqa: E402
from clcr_edge.runtime.machine import machine_table  # noqa: E402
from clcr_edge.runtime.media_file import MediaFile  # noqa: E402
from clcr_edge.train.curves import draw_panels  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "soak.json"
_BINS = 120
_SETTLED = 0.25  # of the run: buffers fill and Vosk meets its first utterances before memory is judged


class Player(threading.Thread):
    """Plays a file again and again until told to stop."""

    def __init__(self, sound: SoundServer, path: Path) -> None:
        super().__init__(daemon=True)
        self._sound, self._path = sound, path
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            playing = self._sound.play(self._path)
            while playing.poll() is None and not self._over.wait(0.2):
                pass
            playing.terminate()
            playing.wait()

    def stop(self) -> None:
        self._over.set()
        self.join()


def speech_of(clip: Path, folder: Path) -> Path:
    """The sound of a clip as a WAV file."""
    file = MediaFile(clip, video=False, audio=True)
    assert file.audio is not None
    samples = np.concatenate([chunk.samples for chunk in file.audio.until(600.0)])
    file.close()
    return write_wav(folder / "speech.wav", samples)


def scrape(url: str) -> dict[str, float]:
    """The metrics without labels, by name."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^(\w+) ([0-9.e+-]+)$", text, re.MULTILINE)}


def health(url: str) -> str:
    """The line of /healthz."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as e:
        return str(e.read().decode().strip())


class Bin:
    """Some seconds of predictions, as they arrived."""

    def __init__(self) -> None:
        self.step_ms: list[float] = []
        self.age_ms: dict[str, list[float]] = {"vision": [], "audio": []}
        self.words = 0

    def add(self, line: dict[str, Any], now_s: float) -> None:
        self.step_ms.append(line["latency_ms"])
        self.words += len(line["words"])
        for modality, ages in self.age_ms.items():
            if line["age_s"][modality] is not None:
                ages.append(1e3 * (now_s - line["t_s"] + line["age_s"][modality]))

    def row(self) -> dict[str, Any]:
        """Percentiles of the bin."""
        found: dict[str, Any] = {"predictions": len(self.step_ms), "words": self.words}
        for name, values in (("step", self.step_ms), *((f"age_{m}", v) for m, v in self.age_ms.items())):
            if values:
                p50, p99 = np.percentile(values, [50, 99])
                table = {"p50": float(p50), "p99": float(p99), "max": max(values)}
                found |= {f"{name}_{key}_ms": round(value, 3) for key, value in table.items()}
        return found


def soak(run: list[str], minutes: float, server: SoundServer, speech: Path) -> dict[str, Any]:
    """Run for `minutes`; a table for the report. run: the bundle and the options of `clcr-edge run`."""
    command = [sys.executable, "-m", "clcr_edge", "run", *run, "--json", "--metrics", "0"]
    launched = time.monotonic()
    process = subprocess.Popen(command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    url = next(line.split(" at ")[1].strip().removesuffix("/metrics") for line in process.stderr if " at http" in line)
    player = Player(server, speech)
    length_s = 60.0 * minutes / _BINS if minutes > 2 else max(1.0, 60.0 * minutes / 30)
    rows: list[dict[str, Any]] = []
    whole, part, missing, last_tick, begun = Bin(), Bin(), 0, -1, 0.0
    before = (0.0, 0.0)
    try:
        for text in process.stdout:
            now = time.monotonic()
            line = json.loads(text)
            if not begun:
                begun, before = now, (now, used(scrape(url))[1])
            missing += line["tick"] - last_tick - 1
            last_tick = line["tick"]
            part.add(line, now)
            whole.add(line, now)
            if now - begun >= (len(rows) + 1) * length_s:
                found = scrape(url)
                memory, cpu = used(found)
                row = {"t_s": round(now - begun, 2), "rss_bytes": memory}
                row["cpu_share"] = round((cpu - before[1]) / (now - before[0]), 4)
                row["late_ticks"] = int(found["clcr_edge_ticks_late_total"])
                rows.append({**row, **part.row()})
                part, before = Bin(), (now, cpu)
            if now - begun >= 60.0 * minutes:
                break
        ended = health(url)
    finally:
        player.stop()
        process.send_signal(2)
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(30)
    return {
        "minutes": minutes,
        "exit_code": code,
        "said": said.splitlines(),
        "health_at_the_end": ended,
        "ticks": last_tick + 1,
        "missing_ticks": missing,
        "first_prediction_s": round(begun - launched, 3),
        "whole": whole.row(),
        "memory": memory_of(rows),
        "bins": rows,
    }


def memory_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Resident memory once it has settled: the highest of each half, and the slope of a straight line through it.

    Halves, because Vosk keeps the features of up to ten minutes and then lets go of them (up and down like a
    saw): only a run of forty minutes or more has whole teeth in both.
    """
    settled = rows[int(len(rows) * _SETTLED) :]
    times, sizes = np.array([r["t_s"] for r in settled]), np.array([r["rss_bytes"] for r in settled], float)
    slope = float(np.polyfit(times, sizes, 1)[0]) if len(settled) > 2 else 0.0
    return {
        "settled_after_s": settled[0]["t_s"],
        "highest_bytes_first_half": int(sizes[: (len(sizes) + 1) // 2].max()),
        "highest_bytes_second_half": int(sizes[len(sizes) // 2 :].max()),
        "bytes_per_hour": round(3600.0 * slope),
    }


def faults(found: dict[str, Any], max_growth_bytes: float) -> list[str]:
    """What is wrong with a soak, in words."""
    memory = found["memory"]
    grown = memory["highest_bytes_second_half"] - memory["highest_bytes_first_half"]
    checks = {
        f"exit code {found['exit_code']}": found["exit_code"] != 0,
        f"{found['missing_ticks']} ticks are missing": found["missing_ticks"] != 0,
        f"health at the end: {found['health_at_the_end']}": found["health_at_the_end"] != "ready",
        f"memory grew by {grown / 1e6:.1f} MB after it had settled": grown > max_growth_bytes,
        "no word was heard": found["whole"]["words"] == 0,
    }
    return [text for text, wrong in checks.items() if wrong]


def used(found: dict[str, float]) -> tuple[int, float]:
    """Resident memory, bytes, and CPU time, s, of `clcr-edge run` and of its recogniser's process."""
    memory = found["process_resident_memory_bytes"] + found.get("clcr_edge_speech_process_resident_memory_bytes", 0.0)
    return int(memory), found["process_cpu_seconds_total"] + found.get("clcr_edge_speech_process_cpu_seconds_total", 0.0)


def draw(found: dict[str, Any], out: Path) -> None:
    """Memory, ages, step and CPU over time."""
    minutes = [row["t_s"] / 60.0 for row in found["bins"]]

    def line(key: str, scale: float = 1.0) -> list[tuple[float, float]]:
        return [(m, row[key] * scale) for m, row in zip(minutes, found["bins"], strict=True) if key in row]

    ages = {f"{m} {p}": line(f"age_{m}_{p}_ms") for m in ("vision", "audio") for p in ("p50", "p99")}
    panels = [
        ("resident memory, MB", {"clcr-edge run": line("rss_bytes", 1e-6)}),
        ("capture to prediction, ms", ages),
        ("step, ms", {p: line(f"step_{p}_ms") for p in ("p50", "p99")}),
        ("CPU, % of a core", {"clcr-edge run": line("cpu_share", 100.0)}),
    ]
    draw_panels(panels, out, "minutes")


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 60.0,
    bundle: Path | None = None,
    engine: str = "onnxruntime",
    width: int = 640,
    height: int = 480,
    out: Annotated[Path, typer.Option(help="JSON; the picture goes beside it.")] = OUT,
    max_growth_mb: float = 8.0,
) -> None:
    """Soak, print, write."""
    with tempfile.TemporaryDirectory() as folder, sound_server() as server, camera_server() as camera:
        speech = speech_of(ROOT / "examples" / "demo.mp4", Path(folder))
        load = os.getloadavg()[0]
        camera.size = (height, width)
        run = [str(bundle or default_bundle()), "--camera", camera.url, "--engine", engine]
        found = soak(run, minutes, server, speech)
    about = {"engine": engine, "picture": [width, height]}
    found = {"machine": {**machine_table(), "load_1min_before": round(load, 2)}, **about, **found}
    wrong = faults(found, max_growth_mb * 1e6)
    found["faults"] = wrong
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    draw(found, out.with_suffix(".svg"))
    print(json.dumps({k: v for k, v in found.items() if k != "bins"}, indent=1))
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
