"""Makes examples/demo.mp4 and its truth, examples/demo.json: python examples/make_demo_clip.py

Twenty seconds that this project drew and espeak-ng spoke: somebody in a room holds up digits and says them. The digits
and the voice are of the bank's part `check`, which nothing was trained on. Three times something is missing: a digit is
only said, one is only shown, and one is said while the lens is covered. Needs espeak-ng.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from clcr_edge.data.background import make_background
from clcr_edge.data.bank import DIGITS
from clcr_edge.data.cards import SIDE, Card, make_face
from clcr_edge.data.fields import blur, enlarge_matrix
from clcr_edge.data.make_synthetic import speak
from clcr_edge.data.scene import wander
from clcr_edge.data.sound import active_power
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.packets import FloatArray

SECONDS, FPS, RATE_HZ = 20, 25, 16_000
WIDTH, HEIGHT = 640, 480
VOICE = "en-us+Annie"
SEED = 6


@dataclass(frozen=True)
class Act:
    """One thing that happens: `word` is said at `said_s`, the digit is held up from shown_s[0] to shown_s[1]."""

    word: str
    said_s: float | None = None
    shown_s: tuple[float, float] | None = None


# Between the end of an event's label (1.0 s after its offset) and the next onset lie at least 0.6 s.
ACTS = (
    Act("hello", 0.5),
    Act("three", 2.0, (1.6, 3.6)),
    Act("seven", 5.9, (5.3, 7.2)),
    Act("table", 8.3),
    Act("zero", 9.2),
    Act("five", None, (11.6, 13.4)),
    Act("four", 15.3),
    Act("music", 16.3),
    Act("eight", 17.8, (17.5, 18.9)),
)
COVERED_S = (14.6, 17.0)  # a hand over the lens


def _large(image: FloatArray, height: int, width: int) -> FloatArray:
    grown = enlarge_matrix(image.shape[0], height) @ image @ enlarge_matrix(image.shape[1], width).T
    return np.asarray(np.clip(grown, 0.0, 255.0), np.float32)


def _card(glyph: FloatArray, side: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A white card with a thick pen's digit on it: grey 0..255 and opacity 0..1, float32 `[side, side]` each."""
    cell = side * 7 // 10
    ink = np.clip((_large(glyph, cell, cell) / 255.0 - 0.4) * 6.0 + 0.5, 0.0, 1.0)
    value = np.full((side, side), 238.0, np.float32) + np.linspace(-10, 10, side, dtype=np.float32)
    at = (side - cell) // 2
    value[at : at + cell, at : at + cell] -= ink * np.float32(238.0 - 25.0)
    edge = np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / 3.0 - 2.0, 0.0, 1.0).astype(np.float32)
    return blur(value, 1.0, 1.0), edge[:, None] * edge


def _paste(
    frame: FloatArray, value: FloatArray, opacity: FloatArray, y: float, x: float, angle: float, tint: FloatArray
) -> None:
    """Put a square picture onto the frame `[H, W, 3]`, its middle at (y, x), turned; bilinear, in place."""
    side = len(value)
    reach = side * 0.72
    y0, y1 = max(int(y - reach), 0), min(int(y + reach), HEIGHT)
    x0, x1 = max(int(x - reach), 0), min(int(x + reach), WIDTH)
    if y1 <= y0 or x1 <= x0:
        return
    dy, dx = np.arange(y0, y1)[:, None] - y, np.arange(x0, x1)[None, :] - x
    v = np.clip(np.cos(angle) * dy - np.sin(angle) * dx + side / 2, 0, side - 1.001)
    u = np.clip(np.cos(angle) * dx + np.sin(angle) * dy + side / 2, 0, side - 1.001)
    vi, ui = v.astype(int), u.astype(int)
    fv, fu = (v - vi)[..., None], (u - ui)[..., None]
    both = np.stack([value * opacity, opacity], axis=-1)
    top = both[vi, ui] * (1 - fu) + both[vi, ui + 1] * fu
    low = both[vi + 1, ui] * (1 - fu) + both[vi + 1, ui + 1] * fu
    mixed = (top * (1 - fv) + low * fv).astype(np.float32)
    part = frame[y0:y1, x0:x1]
    part *= 1.0 - mixed[..., 1:]
    part += mixed[..., :1] * tint


def _picture(card: Card, side: int) -> tuple[FloatArray, FloatArray]:
    keep, paint = card.keep.reshape(SIDE, SIDE), card.paint.reshape(SIDE, SIDE)
    opacity = np.clip(_large((1.0 - keep) * 255.0, side, side) / 255.0, 0.0, 1.0)
    return _large(paint, side, side) / np.maximum(opacity, 1e-3), opacity


def draw(rng: np.random.Generator) -> np.ndarray:
    """All frames: uint8 `[SECONDS * FPS, 480, 640, 3]`."""
    count = SECONDS * FPS
    bank = synthetic_bank("check")
    room = _large(make_background(rng, 0.6), 760, 760)
    face, face_opacity = _picture(make_face(112.0, (0.5, 0.5), rng, body=True), 500)
    pan_y, pan_x = 100 + wander(count, 30, 14.0, rng), 60 + wander(count, 30, 20.0, rng)
    sway_y, sway_x = wander(count, 25, 5.0, rng), wander(count, 20, 8.0, rng)
    warm, skin, white = (np.asarray(c, np.float32) for c in ((1.04, 1.0, 0.9), (1.1, 1.0, 0.86), (1.0, 1.0, 0.97)))
    cards = []
    for act in ACTS:
        if act.shown_s is not None:
            glyph = bank.images[rng.choice(bank.images_of(DIGITS.index(act.word)))].astype(np.float32)
            picture = _card(glyph, int(rng.integers(250, 320)), rng)
            cards.append((act.shown_s, picture, rng.uniform(-0.2, 0.2), WIDTH / 2 + rng.choice([-1, 1]) * rng.uniform(40, 80)))
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(count):
        y, x = int(np.clip(pan_y[t], 0, 760 - HEIGHT)), int(np.clip(pan_x[t], 0, 760 - WIDTH))
        frame = room[y : y + HEIGHT, x : x + WIDTH, None] * warm
        _paste(frame, face, face_opacity, 290 + sway_y[t], WIDTH / 2 + sway_x[t], 0.004 * sway_x[t], skin)
        for (start_s, end_s), (value, opacity), angle, at_x in cards:
            # It comes up from below within a third of a second, and is up when the truth says so.
            outside = max(start_s - t / FPS, (t + 1) / FPS - end_s, 0.0) / 0.3
            if outside < 1.0:
                where = 270 + 420 * outside**1.5 + 2 * sway_y[t]
                _paste(frame, value, opacity, where, at_x + 2 * sway_x[t], angle + 0.006 * sway_y[t], white)
        if COVERED_S[0] <= t / FPS < COVERED_S[1]:
            frame[:] = 6.0
        frames[t] = np.clip(frame, 0.0, 255.0).astype(np.uint8)
    return frames


def say(rng: np.random.Generator) -> tuple[FloatArray, list[tuple[float, float] | None]]:
    """The sound, float32 `[SECONDS * 16000]`, and when each act's word is said."""
    audio = rng.normal(0.0, 10 ** (-62 / 20), SECONDS * RATE_HZ).astype(np.float32)
    times: list[tuple[float, float] | None] = []
    for act in ACTS:
        if act.said_s is None:
            times.append(None)
            continue
        sound = speak(act.word, VOICE, 150, 50)
        sound = sound * np.float32(10 ** (-20 / 20) / np.sqrt(active_power(sound)))
        start = int(act.said_s * RATE_HZ)
        audio[start : start + len(sound)] += sound
        times.append((act.said_s, (start + len(sound)) / RATE_HZ))
    return np.clip(audio, -1.0, 1.0), times


def truth(times: list[tuple[float, float] | None]) -> dict[str, object]:
    """What is in the clip: digits with onset, offset and the end of their label, and the other words, in seconds."""
    events, words = [], []
    for act, said_s in zip(ACTS, times, strict=True):
        spans = [s for s in (act.shown_s, said_s) if s is not None]
        if act.word in DIGITS:
            onset_s, offset_s = min(s[0] for s in spans), max(s[1] for s in spans)
            events.append(
                {
                    "label": str(DIGITS.index(act.word)),
                    "onset_s": round(onset_s, 3),
                    "offset_s": round(offset_s, 3),
                    "end_s": round(offset_s + 1.0, 3),
                    "shown_s": act.shown_s,
                    "said_s": said_s,
                }
            )
        else:
            words.append({"word": act.word, "said_s": said_s})
    return {
        "made_by": "examples/make_demo_clip.py",
        "voice": f"espeak-ng {VOICE}",
        "seconds": SECONDS,
        "lens_covered_s": COVERED_S,
        "events": events,
        "other_words": words,
    }


def write(path: Path, frames: np.ndarray, audio: FloatArray) -> None:
    """H.264 and AAC in one mp4."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "27", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        sound.bit_rate = 48_000
        block = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
        block.rate, block.pts, block.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        fifo = av.AudioFifo()
        fifo.write(block)
        for t, image in enumerate(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            while fifo.samples_read * FPS < (t + 1) * RATE_HZ and (piece := fifo.read(1_024)) is not None:
                container.mux(sound.encode(piece))
        if (rest := fifo.read(0, partial=True)) is not None:
            container.mux(sound.encode(rest))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write to")
    out = parser.parse_args().out
    rng = np.random.default_rng(SEED)
    try:
        audio, times = say(rng)
    except ClcrEdgeError as e:
        print(f"make_demo_clip: {e}", file=sys.stderr)
        return e.exit_code
    frames = draw(rng)
    scratch = out / "demo.partial.mp4"
    write(scratch, frames, audio)
    os.replace(scratch, out / "demo.mp4")
    (out / "demo.json").write_text(json.dumps(truth(times), indent=2) + "\n", encoding="utf-8")
    print(f"{out / 'demo.mp4'}: {(out / 'demo.mp4').stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
