"""Makes the bank that ships with the package: `python -m clcr_edge.data.make_synthetic`; needs espeak-ng.

Seeded: the drawings come out the same everywhere; the speech as far as espeak-ng does (some of its voices breathe at
random). Files are written beside their place and moved there at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from clcr_edge.data.bank import DIGITS
from clcr_edge.data.glyphs import draw_hand, render_digit
from clcr_edge.data.hearing import SOUND_ALIKES
from clcr_edge.data.readers import RATE_HZ, resample, trim
from clcr_edge.data.synthetic import FOLDER, PARTS, SyntheticPart
from clcr_edge.errors import ClcrEdgeError, MissingPartError
from clcr_edge.packets import ByteArray, FloatArray
from clcr_edge.stt.vocabulary import TRAIN_FILLERS

SEED = 2_602
_ESPEAK_HZ = 22_050
_BIT_RATE = 16_000
_GAP = RATE_HZ // 20
# espeak-ng's variants, chosen so that no two of different parts sound alike: see `check_voices`.
VARIANTS: dict[SyntheticPart, tuple[str, ...]] = {
    "train": tuple(
        """m1 m3 m4 m6 m7 m8 f1 f2 f3 f4 f5 Michael Mario quincy robert norbert john paul ed victor Denis marcelo gustave
        belinda linda boris klatt2 klatt3 adam edward Diogo Hugo Gene iven Andrea Lee grandpa kaukovalta""".split()  # noqa: SIM905 - the quoted list reads worse
    ),
    "calibration": ("Jacky", "Marco", "Alicia", "antonio", "Storm", "anika", "m2", "pablo"),
    "check": ("travis", "Andy", "grandma", "Annie", "pedro", "sandro", "aunty", "david"),
}
ACCENTS = (
    "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
)  # fmt: skip
OTHER_WORDS = tuple(
    """yes no stop go help hello thanks left right up down start play please good bad okay open close light music
    camera table window water coffee morning today people because another always number picture again never house
    after color green what where maybe sorry robot""".split()  # noqa: SIM905 - the quoted list reads worse
)
# Training alone has many more: with 45 words, two other words in five were taken for digits. Words that sound like digits are
# left out, as nobody could tell.
MORE_WORDS = tuple(
    w for w in TRAIN_FILLERS if w not in OTHER_WORDS and not any(w in alike for alike in SOUND_ALIKES.values())
)
_VOICES_PER_MORE = 2
# Hands and drawings per hand and digit.
HANDS: dict[SyntheticPart, int] = {"train": 30, "calibration": 10, "check": 10}
DRAWINGS = 3
# Mean difference, in dB over time and frequency, below which two voices count as one (the same voice twice: below 1).
_LEAST_DIFFERENCE_DB = 3.5
# How many of a part's voices say each of the other words.
_VOICES_PER_WORD: dict[SyntheticPart, int] = {"train": 7, "calibration": 3, "check": 3}


@dataclass(frozen=True)
class Clip:
    """One thing said. voice: accent+variant. samples: float32 `[n]`, 16 kHz."""

    text: str
    voice: str
    samples: FloatArray


def speak(text: str, voice: str, words_per_minute: int, pitch: int) -> FloatArray:
    """espeak-ng's rendering: float32 `[N]` at 16 kHz, trimmed. Raises `MissingPartError` where it is not installed."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise MissingPartError("espeak-ng is not installed: apt-get install espeak-ng")
    command = [program, "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", text]
    done = subprocess.run(command, capture_output=True, check=False)
    # Its WAV header states no length when it writes to a pipe: take what follows the 44 bytes.
    if done.returncode != 0 or len(done.stdout) < 4_000:
        raise MissingPartError(f"espeak-ng has no voice {voice!r} ({done.stderr.decode(errors='replace').strip()})")
    samples = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], "<i2").astype(np.float32) / 32_768.0
    return trim(resample(samples, _ESPEAK_HZ))


def _picture(samples: FloatArray) -> FloatArray:
    """A word as 16 moments x 20 bands of log power relative to its loudest, in dB: what a voice sounds like."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 200), 400)[::80]
    chosen = frames[np.linspace(0, len(frames) - 1, 16).astype(int)]
    power = np.square(np.abs(np.fft.rfft(chosen * np.hanning(400), 512)))
    edges = np.geomspace(3, 256, 21).astype(int)
    bands = np.stack([power[:, a : max(b, a + 1)].sum(axis=1) for a, b in pairwise(edges)], axis=1)
    return np.asarray(10.0 * np.log10(bands / bands.max() + 1e-6), np.float32)


def check_voices() -> float:
    """The least difference between voices of different parts, or from the plain voice, in dB; raises if too small.

    espeak-ng takes an unknown variant without a word and speaks with the plain voice, and some of its variants are
    copies of each other.
    """
    words = ("seven", "nine", "three", "zero")
    pictures: dict[str, FloatArray] = {}
    parts = {v: p for p in PARTS for v in VARIANTS[p]}
    for variant in ("", *parts):
        voice = f"en-us+{variant}" if variant else "en-us"
        pictures[variant] = np.stack([_picture(speak(w, voice, 165, 50)) for w in words])
    least = np.inf
    for i, a in enumerate(pictures):
        for b in list(pictures)[i + 1 :]:
            difference = float(np.abs(pictures[a] - pictures[b]).mean())
            # Within a part (and against the plain voice) it is enough that they are not the same.
            across = a != "" and parts[a] != parts[b]
            if difference < (_LEAST_DIFFERENCE_DB if across else 0.2):
                raise MissingPartError(f"espeak-ng's voices {a!r} and {b!r} sound alike ({difference:.2f} dB): choose others")
            least = min(least, difference) if across else least
    return float(least)


def make_clips(part: SyntheticPart, rng: np.random.Generator, progress: Callable[[str], None]) -> list[Clip]:
    """All that a part's voices say: every digit in two accents, speeds and pitches, and some of the other words."""
    clips = []
    for n, variant in enumerate(VARIANTS[part]):
        first = int(rng.integers(len(ACCENTS)))
        for accent in (ACCENTS[first], ACCENTS[(first + int(rng.integers(1, len(ACCENTS)))) % len(ACCENTS)]):
            speed, pitch = int(rng.integers(120, 215)), int(rng.integers(30, 75))
            clips += [Clip(w, f"{accent}+{variant}", speak(w, f"{accent}+{variant}", speed, pitch)) for w in DIGITS]
        progress(f"{part}: voice {n + 1} of {len(VARIANTS[part])}, {variant}")
    others = [(w, _VOICES_PER_WORD[part]) for w in OTHER_WORDS]
    others += [(w, _VOICES_PER_MORE) for w in MORE_WORDS if part == "train"]
    for word, voices in others:
        for variant in rng.choice(VARIANTS[part], voices, replace=False).tolist():
            voice = f"{ACCENTS[int(rng.integers(len(ACCENTS)))]}+{variant}"
            speed, pitch = int(rng.integers(120, 215)), int(rng.integers(30, 75))
            clips.append(Clip(word, voice, speak(word, voice, speed, pitch)))
    progress(f"{part}: {len(others)} other words")
    return clips


def make_images(part: SyntheticPart) -> tuple[ByteArray, ByteArray, np.ndarray]:
    """A part's drawings, uint8 `[N, 28, 28]` in 16 grey levels, labels and ids; no two parts share a hand."""
    before = sum(HANDS[p] for p in PARTS[: PARTS.index(part)])
    images, labels = [], []
    for hand_number in range(before, before + HANDS[part]):
        rng = np.random.default_rng([SEED, 1, hand_number])
        hand = draw_hand(rng)
        for digit in range(10):
            for _ in range(DRAWINGS):
                images.append(render_digit(digit, hand, rng))
                labels.append(digit)
    stack = np.stack(images)
    ids = np.arange(len(images)) + before * 10 * DRAWINGS
    return (np.rint(stack / 17.0) * 17.0).astype(np.uint8), np.asarray(labels, np.uint8), ids


def write_opus(path: Path, samples: FloatArray) -> None:
    """Mono float32 `[N]` at 16 kHz -> an Opus file."""
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = _BIT_RATE
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000, frame_size=960)
        pcm = np.clip(np.rint(samples * 32_767.0), -32_768, 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        for source in (frame, None):
            for piece in resampler.resample(source):
                container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def make(folder: Path, progress: Callable[[str], None], parts: Sequence[SyntheticPart] = PARTS) -> None:
    """Write parts, all of them by default, to `folder`."""
    progress(f"voices of different parts differ by at least {check_voices():.1f} dB")
    scratch = folder.with_name(folder.name + ".partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for part in parts:
        clips = make_clips(part, np.random.default_rng([SEED, 2, PARTS.index(part)]), progress)
        starts, at, pieces = [], _GAP, [np.zeros(_GAP, np.float32)]
        for clip in clips:
            level = 0.5 / max(float(np.abs(clip.samples).max()), 1e-3)
            starts.append(at)
            pieces += [clip.samples * np.float32(level), np.zeros(_GAP, np.float32)]
            at += len(clip.samples) + _GAP
        write_opus(scratch / f"{part}.opus", np.concatenate(pieces))
        images, labels, ids = make_images(part)
        np.savez_compressed(
            scratch / f"{part}.npz",
            images=images,
            image_labels=labels,
            image_ids=ids,
            starts=np.asarray(starts, np.int64),
            lengths=np.asarray([len(c.samples) for c in clips], np.int64),
            texts=np.asarray([c.text for c in clips]),
            voices=np.asarray([c.voice for c in clips]),
        )
        size = sum((scratch / f"{part}.{e}").stat().st_size for e in ("opus", "npz"))
        progress(f"{part}: {len(images)} images, {len(clips)} clips, {at / RATE_HZ:.0f} s, {size / 1e6:.2f} MB")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(scratch.iterdir()):
        os.replace(path, folder / path.name)
    scratch.rmdir()


def main() -> int:
    """Entry point of `python -m clcr_edge.data.make_synthetic`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: the package's own assets)")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part (can be given again)")
    arguments = parser.parse_args()
    try:
        make(arguments.out, print, arguments.part or PARTS)
    except ClcrEdgeError as e:
        print(f"make_synthetic: {e}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
