"""The bank that ships with the package: digits this project draws, and espeak-ng saying digits and other words.

So that a bare `export --int8` calibrates and measures on data of its own. Three parts share no hand and no voice.
Made by `clcr_edge.data.make_synthetic`; per part an Opus file with all speech on end, and an npz (no pickle) that says
where each recording lies, beside the images.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np

from clcr_edge.data.bank import DIGITS, DigitBank, Part
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.errors import DataError
from clcr_edge.packets import FloatArray

SyntheticPart = Literal["train", "calibration", "check"]
PARTS: tuple[SyntheticPart, ...] = get_args(SyntheticPart)
FOLDER = Path(__file__).resolve().parent.parent / "assets" / "synthetic"
_REMEDY = "install the package again, or run python -m clcr_edge.data.make_synthetic"


def _decode(path: Path) -> FloatArray:
    """A whole sound file as mono float32 `[N]` at 16 kHz."""
    blocks: list[FloatArray] = []
    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)
            for frame in container.decode(audio=0):
                blocks += [f.to_ndarray()[0] for f in resampler.resample(frame)]
            blocks += [f.to_ndarray()[0] for f in resampler.resample(None)]
    except (av.error.FFmpegError, OSError, IndexError) as e:
        raise DataError(f"{path}: cannot be decoded ({e}); {_REMEDY}") from None
    return np.concatenate([np.empty(0, np.float32), *blocks]).astype(np.float32, copy=False)


@lru_cache(maxsize=len(PARTS))
def synthetic_bank(part: SyntheticPart) -> DigitBank:
    """The shipped bank's part `train`, `calibration` or `check`, decoded once per process.

    speakers are named `espeak-ng/<accent>+<variant>`; image_ids run through all three parts. Raises `DataError`
    where a file is missing or damaged.
    """
    if part not in PARTS:
        raise DataError(f"part {part!r}: choose {', '.join(PARTS)}")
    return read_part(FOLDER, part)


def read_part(folder: Path, part: SyntheticPart) -> DigitBank:
    """`synthetic_bank` of another folder, not cached."""
    path = folder / f"{part}.npz"
    try:
        # Read first: numpy leaves a file open that proves to be no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            images, labels, ids = data["images"], data["image_labels"], data["image_ids"]
            starts, lengths, texts, voices = data["starts"], data["lengths"], data["texts"], data["voices"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as e:
        raise DataError(f"{path}: not the index of a synthetic bank ({e}); {_REMEDY}") from None
    sound_path = folder / f"{part}.opus"
    sound = _decode(sound_path)
    if len(starts) and int((starts + lengths).max()) > len(sound):
        needed = int((starts + lengths).max())
        raise DataError(f"{sound_path}: {len(sound)} samples, the index needs {needed}; {_REMEDY}")
    clips = [sound[s : s + n] for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    said = [DIGITS.index(t) if t in DIGITS else None for t in texts.tolist()]
    spoken = [i for i, digit in enumerate(said) if digit is not None]
    counts: dict[tuple[str, str], int] = {}
    numbers = []
    for i in spoken:
        key = (str(texts[i]), str(voices[i]))
        numbers.append(counts.setdefault(key, 0))
        counts[key] += 1
    return DigitBank(
        images=images,
        image_labels=labels.astype(np.int64),
        image_ids=ids.astype(np.int64),
        recordings=tuple(clips[i] for i in spoken),
        recording_labels=np.asarray([said[i] for i in spoken], np.int64),
        recording_ids=np.asarray(numbers, np.int64),
        speakers=tuple(f"espeak-ng/{voices[i]}" for i in spoken),
        other_speech=tuple((str(texts[i]), clips[i]) for i in range(len(clips)) if said[i] is None),
        name=f"synthetic/{part}",
    )


_MATCHING: dict[Part, SyntheticPart] = {"train": "train", "val": "calibration", "test": "check"}


def with_other_speech(bank: DigitBank, part: Part) -> DigitBank:
    """A bank of real digits with the shipped words that are no digits beside it, in voices that belong to this part."""
    if part not in _MATCHING:
        raise DataError(f"part {part!r}: choose {', '.join(_MATCHING)}")
    return dataclasses.replace(bank, other_speech=bank.other_speech + synthetic_bank(_MATCHING[part]).other_speech)
