"""What a model has seen: so that evaluation never scores it on an image, a recording or a voice of its own training.

A checkpoint and a bundle carry 64-bit content hashes of the images and recordings that training and validation used, and the
names of the speakers. Whatever folder an evaluation is given, these are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clcr_edge.data.bank import DIGITS, DigitBank
from clcr_edge.errors import DataError

HashArray = npt.NDArray[np.uint64]
FILE = "seen.npz"
_LIMIT = 32 << 20


@dataclass(frozen=True, eq=False)
class Seen:
    """Sorted content hashes of images and recordings, and the speakers' names."""

    images: HashArray
    recordings: HashArray
    speakers: tuple[str, ...]

    @classmethod
    def of(cls, *banks: DigitBank) -> Seen:
        """Everything in some banks."""
        return cls(
            np.unique(np.concatenate([_hashes(list(b.images)) for b in banks])),
            np.unique(np.concatenate([_hashes(list(b.recordings)) for b in banks])),
            tuple(sorted({s for b in banks for s in b.speakers})),
        )

    def joined(self, other: Seen) -> Seen:
        """What either has seen."""
        speakers = tuple(sorted({*self.speakers, *other.speakers}))
        return Seen(np.union1d(self.images, other.images), np.union1d(self.recordings, other.recordings), speakers)

    def save(self, path: Path) -> None:
        """Write as npz without pickle."""
        np.savez_compressed(path, images=self.images, recordings=self.recordings, speakers=np.array(self.speakers, dtype="U"))

    @classmethod
    def load(cls, path: Path) -> Seen:
        """Read what `save` wrote."""
        try:
            if path.stat().st_size > _LIMIT:
                raise ValueError(f"larger than {_LIMIT} bytes")
            with np.load(path, allow_pickle=False) as data:
                return cls(data["images"], data["recordings"], tuple(str(s) for s in data["speakers"]))
        except (OSError, ValueError, KeyError) as e:
            raise DataError(f"{path}: not a list of what training saw ({e}); copy the model again") from None

    def unseen(self, bank: DigitBank) -> tuple[DigitBank, str]:
        """The part of a bank that is fair to test on, and a line that says what it is.

        Images: those never seen. Recordings: of speakers never heard, where they cover all digits; otherwise unheard recordings
        of known voices, which the line says. Raises `DataError` if too little is left.
        """
        images = np.flatnonzero(~np.isin(_hashes(list(bank.images)), self.images))
        fresh_voice = np.array([s not in self.speakers for s in bank.speakers], bool)
        fresh = ~np.isin(_hashes(list(bank.recordings)), self.recordings)
        chosen = np.flatnonzero(fresh & fresh_voice)
        voices = "speakers that training never heard"
        if len(set(bank.recording_labels[chosen].tolist())) < len(DIGITS):
            chosen, voices = np.flatnonzero(fresh), "KNOWN voices (recordings that training never heard)"
        for what, labels in (("images", bank.image_labels[images]), ("recordings", bank.recording_labels[chosen])):
            if len(set(labels.tolist())) < len(DIGITS):
                raise DataError(
                    f"{bank.name}: training saw nearly all of its {what} ({len(labels)} unseen ones are left, not of every "
                    "digit); give --root a folder with others"
                )
        left = bank.select(images, chosen, f"{bank.name}/unseen")
        names = sorted(set(left.speakers))
        return left, f"{len(images)} unseen images; {len(chosen)} recordings by {', '.join(names)}: {voices}"


def _hashes(arrays: list[npt.NDArray[np.generic]]) -> HashArray:
    digests = [hashlib.blake2b(np.ascontiguousarray(a).tobytes(), digest_size=8).digest() for a in arrays]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
