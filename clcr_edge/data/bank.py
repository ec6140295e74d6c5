"""The raw material of the digits task: images of written digits, recordings of spoken ones, and how they are split.

A bank is made once (`load_bank`, `synthetic_bank`), cut into parts that share no image and no recording
(`split_bank`), and handed to the stream generator.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from clcr_edge.data.readers import read_idx_images, read_idx_labels, read_wav
from clcr_edge.errors import DataError
from clcr_edge.packets import ByteArray, FloatArray

Part = Literal["train", "val", "test"]
IntArray = npt.NDArray[np.int64]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NONE = 10
_NAME = re.compile(r"^([0-9])_(.+)_([0-9]+)\.wav$")
# One fixed order for everybody: the split must not depend on a run's seed, or runs would test on others' training data.
_SPLIT_SEED = 2602_19605


@dataclass(frozen=True, eq=False)
class DigitBank:
    """Written and spoken digits, and human speech that is none.

    images: uint8 `[N, 28, 28]`, 0 paper, 255 ink; image_labels: `[N]`, 0..9; image_ids: `[N]`, place in the source.
    recordings: float32 `[n]` each, 16 kHz mono, trimmed; recording_labels `[R]`; speakers: one name per recording;
    recording_ids: `[R]`, the recording's number within its digit and speaker.
    other_speech: (word, float32 `[n]` at 16 kHz) of words that are not digits. name: for reports.
    """

    images: ByteArray
    image_labels: IntArray
    image_ids: IntArray
    recordings: tuple[FloatArray, ...]
    recording_labels: IntArray
    recording_ids: IntArray
    speakers: tuple[str, ...]
    other_speech: tuple[tuple[str, FloatArray], ...] = ()
    name: str = "digits"

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.image_labels) == len(self.image_ids):
            raise DataError(f"{self.name}: {len(self.images)} images but {len(self.image_labels)} labels; give one each")
        count = len(self.recordings)
        if not count == len(self.recording_labels) == len(self.recording_ids) == len(self.speakers):
            raise DataError(f"{self.name}: {count} recordings but {len(self.recording_labels)} labels; give one each")
        for kind, labels in (("written", self.image_labels), ("spoken", self.recording_labels)):
            missing = sorted(set(range(10)) - set(labels.tolist()))
            if missing:
                raise DataError(f"{self.name}: no {kind} digit {missing[0]}; every digit needs at least one example")

    def images_of(self, digit: int) -> IntArray:
        """Places of the images of one digit."""
        return np.flatnonzero(self.image_labels == digit)

    def recordings_of(self, digit: int) -> IntArray:
        """Places of the recordings of one digit."""
        return np.flatnonzero(self.recording_labels == digit)

    def select(self, images: IntArray, recordings: IntArray, name: str) -> DigitBank:
        """The bank of some images and recordings only."""
        return dataclasses.replace(
            self,
            images=self.images[images],
            image_labels=self.image_labels[images],
            image_ids=self.image_ids[images],
            recordings=tuple(self.recordings[i] for i in recordings),
            recording_labels=self.recording_labels[recordings],
            recording_ids=self.recording_ids[recordings],
            speakers=tuple(self.speakers[i] for i in recordings),
            name=name,
        )


def merge_banks(first: DigitBank, *others: DigitBank, name: str | None = None) -> DigitBank:
    """All images, recordings and other speech of several banks, in order; for training with more voices, say."""
    banks = (first, *others)
    return DigitBank(
        images=np.concatenate([b.images for b in banks]),
        image_labels=np.concatenate([b.image_labels for b in banks]),
        image_ids=np.concatenate([b.image_ids for b in banks]),
        recordings=tuple(r for b in banks for r in b.recordings),
        recording_labels=np.concatenate([b.recording_labels for b in banks]),
        recording_ids=np.concatenate([b.recording_ids for b in banks]),
        speakers=tuple(s for b in banks for s in b.speakers),
        other_speech=tuple(w for b in banks for w in b.other_speech),
        name=name or " + ".join(b.name for b in banks),
    )


_NAMED = 20  # of the files that something is wrong with


def _one_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found)} files match {pattern}, expected one; put MNIST's files there")
    return found[0]


def load_bank(root: Path | str) -> DigitBank:
    """Read `root/fsdd/recordings/{digit}_{speaker}_{index}.wav` and `root/mnist/*-ubyte.gz`; any speakers, any images.

    Recordings are brought to 16 kHz and trimmed. `other_speech` is empty: see `with_other_speech`. Raises `DataError`
    with the files, what was found and the remedy; so do two recordings of the same sound. Images are not compared.
    """
    root = Path(root)
    recordings, mnist = root / "fsdd" / "recordings", root / "mnist"
    for folder, what in ((recordings, "the spoken digits (*.wav)"), (mnist, "MNIST's *-ubyte.gz")):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; put {what} there, or name another --root")
    images = read_idx_images(_one_file(mnist, "*images-idx3-ubyte.gz"))
    labels = read_idx_labels(_one_file(mnist, "*labels-idx1-ubyte.gz"))
    if len(images) != len(labels):
        raise DataError(f"{mnist}: {len(images)} images but {len(labels)} labels; fetch both files of one set")
    sounds, digits, numbers, speakers = [], [], [], []
    wrong: list[str] = []
    first: dict[bytes, Path] = {}
    for path in sorted(recordings.glob("*.wav")):
        match = _NAME.match(path.name)
        if match is None:
            wrong.append(f"{path}: expected a name like 7_jackson_12.wav ({{digit}}_{{speaker}}_{{index}}.wav)")
            continue
        try:
            sound = read_wav(path)
        except DataError as e:
            wrong.append(str(e))
            continue
        # Copied under another name, a recording would be tested on that was trained on.
        twin = first.setdefault(hashlib.sha256(sound.tobytes()).digest(), path)
        if twin != path:
            wrong.append(f"{path}: the same recording as {twin.name}; keep one of them")
        sounds.append(sound)
        digits.append(int(match[1]))
        speakers.append(match[2])
        numbers.append(int(match[3]))
    if wrong:
        more = f"\nand {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise DataError("\n".join(wrong[:_NAMED]) + more)
    if not sounds:
        raise DataError(f"{recordings}: no *.wav found; put the spoken digits there")
    return DigitBank(
        images=images,
        image_labels=labels.astype(np.int64),
        image_ids=np.arange(len(images)),
        recordings=tuple(sounds),
        recording_labels=np.asarray(digits, np.int64),
        recording_ids=np.asarray(numbers, np.int64),
        speakers=tuple(speakers),
        name="digits",
    )


def split_bank(bank: DigitBank, part: Part, leave_out_speaker: str | None = None) -> DigitBank:
    """One part of a bank. No image and no recording is ever in two parts.

    Images: a fixed order that depends on nothing but their number, cut 5 : 1 : 1 (7,000 give 5000 / 1000 / 1000).
    Recordings with a speaker left out: `test` is all of that speaker; `val` the other speakers' recordings whose
    index ends in 0; `train` their rest. With nobody left out (the shipped model): `train` is everybody but the
    recordings whose index ends in 0, and those are both `val` and `test`: known voices, unheard recordings.
    `other_speech` is passed on as it is. Raises `DataError` where a part would lack a digit or a speaker is unknown.
    """
    if part not in ("train", "val", "test"):
        raise DataError(f"part {part!r}: choose train, val or test")
    names = sorted(set(bank.speakers))
    if leave_out_speaker is not None and leave_out_speaker not in names:
        raise DataError(f"speaker {leave_out_speaker!r} is not in {bank.name}; choose one of {', '.join(names)}")
    count = len(bank.images)
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    first, second = round(count * 5 / 7), round(count * 6 / 7)
    images = {"train": order[:first], "val": order[first:second], "test": order[second:]}[part]
    out = np.asarray([s == leave_out_speaker for s in bank.speakers])
    held = bank.recording_ids % 10 == 0
    if leave_out_speaker is None:
        chosen = ~held if part == "train" else held
    else:
        chosen = {"train": ~out & ~held, "val": ~out & held, "test": out}[part]
    return bank.select(np.sort(images), np.flatnonzero(chosen), f"{bank.name}/{part}")
