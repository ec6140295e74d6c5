"""What recording a run costs: bytes, processor time of the recorder's thread, and what a tick waits for it.

    python benchmarks/record_cost.py BUNDLE [--clip FILM] [--ticks 100]

The pictures of a film (the demo clip by default), cut to the camera's shape and scaled, are pushed at the camera's pace through a
session whose recorder is on, sound and predictions with them; "noisy" adds noise of sd 4 of 255, as a camera in a dim room has.
What a tick pays is the processor time of the recorder's calls in the tick's own thread; what it waits is their wall time, in
which a busy machine shows. Beside it, the luma that is kept against the
whole colour frame, both lossless FFV1, encoded alone. Writes JSON and docs/record_cost.md.
"""
# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import json
import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"

import av  # noqa: E402
import numpy as np  # noqa: E402
import typer  # noqa: E402

from clcr_edge import bundle as bundles  # noqa: E402
from clcr_edge.commands.replay import about  # noqa: E402
from clcr_edge.packets import AudioChunk, ByteArray, VideoFrame  # noqa: E402
from clcr_edge.runtime.feed import Listener  # noqa: E402
from clcr_edge.runtime.machine import cpu_name  # noqa: E402
from clcr_edge.runtime.onnx_engine import OnnxEngine  # noqa: E402
from clcr_edge.runtime.recorded_pictures import luma_of  # noqa: E402
from clcr_edge.runtime.recorder import Recorder  # noqa: E402
from clcr_edge.runtime.session import Session  # noqa: E402

_HERE = Path(__file__).resolve().parent
_DEMO = _HERE.parent / "examples" / "demo.mp4"
_CAMERAS = ((640, 480, 0.0), (640, 480, 4.0), (1280, 720, 4.0))
_ENCODED = 40  # frames for the comparison of luma with colour


def pictures(clip: Path, width: int, height: int, noise: float, count: int) -> list[ByteArray]:
    """The first frames of a film, its middle cut to the camera's shape, scaled: uint8 `[H, W, 3]` each."""
    rng, made = np.random.default_rng(0), []
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            whole = frame.to_ndarray(format="rgb24")
            tall, wide = whole.shape[:2]
            h, w = (tall, tall * width // height) if wide * height > tall * width else (wide * height // width, wide)
            top, left = (tall - h) // 2, (wide - w) // 2
            cut = np.ascontiguousarray(whole[top : top + h, left : left + w])
            image = av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(width, height).to_ndarray(format="rgb24")
            if noise:
                image = (image + rng.normal(0.0, noise, image.shape)).round().clip(0, 255).astype(np.uint8)
            made.append(image)
            if len(made) == count:
                break
    return made


def encoded(images: list[ByteArray], layout: str) -> dict[str, float]:
    """Lossless FFV1 of some frames in one thread: milliseconds of processor time each (luma included), and kilobytes."""
    height, width = images[0].shape[:2]
    side = min(height, width)
    codec = av.CodecContext.create("ffv1", "w")
    codec.width, codec.height = (side, side) if layout == "gray" else (width, height)
    codec.pix_fmt, codec.time_base, codec.thread_count, codec.gop_size = layout, Fraction(1, 25), 1, 1  # type: ignore[attr-defined]
    times, sizes = [], []
    for image in images:
        begun = time.thread_time()
        if layout == "gray":
            frame = av.VideoFrame.from_ndarray(luma_of(image), format="gray")
        else:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=layout)
        sizes.append(sum(packet.size for packet in codec.encode(frame)))  # type: ignore[attr-defined]
        times.append(time.thread_time() - begun)
    return {"ms": round(1e3 * float(np.median(times)), 2), "kb": round(float(np.mean(sizes)) / 1e3, 1)}


def recorded(bundle: bundles.Bundle, images: list[ByteArray], ticks: int) -> dict[str, Any]:
    """`ticks` ticks at the bundle's own pace, recorded."""
    engine = OnnxEngine.from_bundle(bundle)
    tick = engine.config.tick
    session = Session(engine)
    session.start(0.0)
    rng = np.random.default_rng(0)
    sound = rng.normal(0.0, 0.05, tick.sample_rate_hz // tick.rate_hz).astype(np.float32)
    paid, waited = [], []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "recording", about(bundle, engine))
        listener = recorder.listening(Listener())
        listener.on_start(0.0)
        clock = time.pthread_getcpuclockid(recorder._thread.ident)
        begun, worked = time.monotonic(), time.clock_gettime(clock)
        for k in range(ticks):
            t_s = k * tick.seconds
            frame, chunk = VideoFrame(images[k % len(images)], t_s, k), AudioChunk(sound, tick.sample_rate_hz, t_s)
            session.push_frame(frame)
            session.push_audio(chunk)
            prediction = session.step()
            at, busy = time.perf_counter(), time.thread_time()
            listener.on_frame(frame)
            listener.on_audio(chunk)
            listener.on_prediction(prediction)
            paid.append(time.thread_time() - busy)
            waited.append(time.perf_counter() - at)
            time.sleep(max(0.0, begun + (k + 1) * tick.seconds - time.monotonic()))
        worked = time.clock_gettime(clock) - worked
        late = recorder._items_in - recorder._items_out
        recorder.close()
        sizes = {path.name: path.stat().st_size for path in (Path(folder) / "recording").iterdir()}
    per_minute = 60.0 * tick.rate_hz / ticks / 1e6
    return {
        "mb_per_minute": round(sum(sizes.values()) * per_minute, 1),
        "sound_mb_per_minute": round(sizes["sound.au"] * per_minute, 2),
        "events_mb_per_minute": round(sizes["events.jsonl"] * per_minute, 2),
        "thread_ms_per_tick": round(1e3 * worked / ticks, 2),
        **_percentiles("paid", paid),
        **_percentiles("waited", waited),
        "frames_lost": recorder.frames_lost,
        "items_still_waiting_at_the_end": late,
    }


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name}_p{p}_ms": round(1e3 * float(np.percentile(seconds, p)), 3) for p in (50, 99)}


def main(
    bundle: Path,
    clip: Path = _DEMO,
    ticks: Annotated[int, typer.Option(min=25)] = 100,
    out: Path = _HERE / "results" / "record_cost.json",
    docs: Path = _HERE.parent / "docs" / "record_cost.md",
) -> None:
    """Measure every camera, print, write."""
    loaded = bundles.read(bundle)
    rows = []
    for width, height, noise in _CAMERAS:
        images = pictures(clip, width, height, noise, ticks)
        row: dict[str, Any] = {"width": width, "height": height, "noise_sd": noise, **recorded(loaded, images, ticks)}
        rows.append(row | {name: encoded(images[:_ENCODED], layout) for name, layout in (("luma", "gray"), ("colour", "bgr0"))})
        print(json.dumps(rows[-1]), flush=True)
    result = {"machine": cpu_name(), "load_1min": round(os.getloadavg()[0], 1), "clip": clip.name, "ticks": ticks, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    docs.write_text(page(result), "utf-8")


def page(result: dict[str, Any]) -> str:
    """Markdown of a result."""
    kept = compared = ""
    for r in result["rows"]:
        name = f"{r['width']} x {r['height']}, {'noisy' if r['noise_sd'] else 'clean'}"
        kept += (
            f"| {name} | {r['mb_per_minute']:.0f} | {r['thread_ms_per_tick']:.1f} ms | {r['paid_p50_ms']:.2f} / "
            f"{r['paid_p99_ms']:.2f} ms | {r['waited_p50_ms']:.2f} / {r['waited_p99_ms']:.2f} ms | {r['frames_lost']} of {result['ticks']} |\n"
        )
        luma, colour = r["luma"], r["colour"]
        compared += (
            f"| {name} | {luma['ms']:.1f} ms, {luma['kb']:.0f} kB | {colour['ms']:.1f} ms, {colour['kb']:.0f} kB | "
            f"{luma['ms'] / colour['ms']:.2f}, {luma['kb'] / colour['kb']:.2f} |\n"
        )
    first = result["rows"][0]
    return f"""# What recording a run costs

{result["machine"]}, busy with other work (load {result["load_1min"]:g}), {result["ticks"]} ticks at the camera's pace each, pictures of `{result["clip"]}` cut to
the camera's shape and scaled; "noisy" adds noise of sd {max(r["noise_sd"] for r in result["rows"]):g} of 255, as a camera in a dim room has.

```sh
clcr-edge export --out out/digits-bundle
python benchmarks/record_cost.py out/digits-bundle --clip FILM
```

| frames | MB per minute | processor time per tick, own thread | a tick pays, p50 / p99 | a tick waits, p50 / p99 | frames lost |
|---|--:|--:|--:|--:|--:|
{kept}
"Pays" is processor time of the tick's own thread, "waits" the wall time of the same calls, this machine's other work included.
Of the bytes, sound is {first["sound_mb_per_minute"]:.1f} and events are {first["events_mb_per_minute"]:.1f} MB a minute. Lost frames are lost from the recording, never from the run.

Luma of the centre square, which is kept, against the whole colour frame, both lossless; processor time (median) and bytes of a frame,
encoded alone:

| frames | luma | colour | share of time, of bytes |
|---|--:|--:|--:|
{compared}"""


if __name__ == "__main__":
    typer.run(main)
