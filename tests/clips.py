"""Media made by PyAV for the tests: pictures that carry their number, and sound that can be found again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from live_rig import counter_image

from clcr_edge.packets import ByteArray, FloatArray


def noise(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> FloatArray:
    """Band-limited noise (below 3 kHz, so that resampling and AAC leave it nearly alone), about -20 dB."""
    rng = np.random.default_rng(seed)
    count = int(seconds * rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[np.fft.rfftfreq(count, 1 / rate_hz) > 3_000] = 0
    wave = np.fft.irfft(spectrum, count)
    level: FloatArray = (0.1 * wave / wave.std()).astype(np.float32)
    return level


def make_clip(
    path: Path,
    *,
    video_s: float = 1.0,
    audio: FloatArray | None = None,
    rate_hz: int = 16_000,
    fps: int = 25,
    video_from_s: float = 0.0,
    audio_from_s: float = 0.0,
    interleaved: bool = True,
    options: dict[str, str] | None = None,
    image: Callable[[int], ByteArray] = counter_image,
) -> Path:
    """Write a clip of pictures and sound; the container by the suffix. video_s = 0 or audio None leave one out.

    image: the picture of a frame's number, 120 x 160.
    """
    with av.open(str(path), "w", options=options or {}) as out:
        packets: list[list[Any]] = []
        video: Any = None
        sound: Any = None
        if video_s:
            video = out.add_stream({".mpg": "mpeg2video", ".avi": "mjpeg"}.get(path.suffix, "h264"), fps)
            video.width, video.height, video.gop_size = 160, 120, fps
            video.pix_fmt = "yuvj420p" if path.suffix == ".avi" else "yuv420p"
            video.bit_rate = 800_000
        if audio is not None:
            codec = {".wav": "pcm_s16le", ".avi": "pcm_s16le", ".flac": "flac", ".mpg": "mp2", ".mp3": "mp3"}.get(
                path.suffix, "aac"
            )
            sound = out.add_stream(codec, rate_hz)
            sound.layout = "mono"
        if video is not None:
            packets.append(list(_encode_video(video, video_s, fps, video_from_s, image)))
        if sound is not None:
            assert audio is not None
            packets.append(list(_encode_audio(sound, audio, rate_hz, audio_from_s)))
        if interleaved:
            merged = sorted((p for track in packets for p in track), key=lambda p: float(p.dts * p.time_base))
            out.mux(merged)
        else:
            for track in packets:
                for packet in track:
                    out.mux_one(packet)
    return path


def _encode_video(stream: Any, seconds: float, fps: int, from_s: float, image: Callable[[int], ByteArray]) -> Iterable[Any]:
    for count in range(round(seconds * fps)):
        frame = av.VideoFrame.from_ndarray(image(count), format="rgb24")
        frame.pts = count + round(from_s * fps)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _encode_audio(stream: Any, samples: FloatArray, rate_hz: int, from_s: float) -> Iterable[Any]:
    pcm = (np.clip(samples, -1, 1) * 32_767).astype(np.int16)
    for start in range(0, len(pcm), 1_024):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 1_024], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        frame.pts = start + round(from_s * rate_hz)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def find_in(haystack: FloatArray, needle: FloatArray) -> tuple[int, float]:
    """Where `needle` lies in `haystack`, by correlation: (sample, correlation coefficient)."""
    size = 1 << int(np.ceil(np.log2(len(haystack) + len(needle))))
    product = np.fft.rfft(haystack, size) * np.conj(np.fft.rfft(needle, size))
    score = np.fft.irfft(product, size)[: len(haystack) - len(needle) + 1]
    at = int(np.argmax(score))
    part = haystack[at : at + len(needle)]
    return at, float(np.dot(part, needle) / (np.linalg.norm(part) * np.linalg.norm(needle) + 1e-12))
