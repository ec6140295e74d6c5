"""Samples of different lengths -> one batch of padded arrays with masks. numpy only; nothing is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clcr_edge.data.sets.sample import BoolArray, Features, IntArray, Sample
from clcr_edge.errors import DataError
from clcr_edge.packets import ByteArray, FloatArray, Modality, Word

S = TypeVar("S", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples, padded at the end with zeros; a mask is True where there is something.

    frames: uint8 `[B, T, S, S, 3]`, frame_mask: bool `[B, T]`, frames_per_s: their rate; audio: float32 `[B, N]`, audio_mask:
    bool `[B, N]`, rate_hz; words: per sample. These are None (words: empty) for sets of features.
    features: modality -> (float32 `[B, T, D]`, bool `[B, T]`), for every modality that any sample has; a sample without it has
    an empty mask. texts: the transcript per sample; step_texts: the transcripts of its segments, per sample.
    targets: int64 `[B]` classes, float32 `[B]` numbers, or int64 `[B, S]` with target_mask bool `[B, S]` for segments
    (target_mask is `[B]`, all True, otherwise). Padding of targets is 0: use the mask.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    targets: npt.NDArray[np.int64] | FloatArray
    target_mask: BoolArray
    frames: ByteArray | None
    frame_mask: BoolArray | None
    frames_per_s: float | None
    audio: FloatArray | None
    audio_mask: BoolArray | None
    rate_hz: int | None
    words: tuple[tuple[Word, ...], ...]
    features: Mapping[Modality, tuple[FloatArray, BoolArray]]
    texts: tuple[str, ...]
    step_texts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    def lengths(self, modality: Modality) -> IntArray:
        """Valid steps of a modality's features per sample, int64 `[B]`; zeros where no sample has it."""
        if modality not in self.features:
            return np.zeros(len(self), np.int64)
        return np.asarray(self.features[modality][1].sum(axis=1), np.int64)


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad samples into a batch. Raises `DataError` where they do not belong together (other widths, rates, kinds of target)."""
    if not samples:
        raise DataError("an empty batch; give at least one sample")
    targets, target_mask = _targets(samples)
    frames = frame_mask = audio = audio_mask = None
    frames_per_s = rate_hz = None
    clips = [s.clip for s in samples if s.clip is not None]
    if clips:
        if len(clips) != len(samples):
            raise DataError(f"{samples[0].name}: raw media and features in one batch; take them from one data set")
        rates = {(c.frames_per_s, c.rate_hz) for c in clips}
        if len(rates) != 1:
            raise DataError(f"{samples[0].name}: clips of several rates in one batch {sorted(rates)}; decode them alike")
        frames_per_s, rate_hz = rates.pop()
        # A clip without a picture has no size of its own to disagree with.
        frames, frame_mask = _pad([c.frames for c in clips], samples, np.uint8)
        audio, audio_mask = _pad([c.audio for c in clips], samples, np.float32)
    features = {}
    for modality in Modality:
        rows = [s.features.get(modality) for s in samples]
        if any(row is not None for row in rows):
            features[modality] = _pad_features(rows, samples)
    return Batch(
        names=tuple(s.name for s in samples),
        groups=tuple(s.group for s in samples),
        targets=targets,
        target_mask=target_mask,
        frames=frames,
        frame_mask=frame_mask,
        frames_per_s=frames_per_s,
        audio=audio,
        audio_mask=audio_mask,
        rate_hz=rate_hz,
        words=tuple(c.words for c in clips),
        features=features,
        texts=tuple(s.text for s in samples),
        step_texts=tuple(s.texts for s in samples),
    )


def _targets(samples: Sequence[Sample]) -> tuple[npt.NDArray[np.int64] | FloatArray, BoolArray]:
    kinds = {type(s.target) for s in samples}
    if kinds == {int}:
        return np.asarray([s.target for s in samples], np.int64), np.ones(len(samples), bool)
    if kinds == {float}:
        return np.asarray([s.target for s in samples], np.float32), np.ones(len(samples), bool)
    if kinds == {np.ndarray}:
        return _pad([np.asarray(s.target, np.int64) for s in samples], samples, np.int64)
    names = ", ".join(sorted(k.__name__ for k in kinds))
    raise DataError(f"{samples[0].name}: targets of several kinds in one batch ({names}); take them from one data set")


def _pad(rows: Sequence[npt.NDArray[S]], samples: Sequence[Sample], dtype: type[S]) -> tuple[npt.NDArray[S], BoolArray]:
    """Arrays `[T_i, ...]` -> `[B, max T, ...]` and its mask."""
    full = [r for r in rows if len(r)]
    tail = full[0].shape[1:] if full else rows[0].shape[1:]
    longest = max(len(r) for r in rows)
    out = np.zeros((len(rows), longest, *tail), dtype)
    mask = np.zeros((len(rows), longest), bool)
    for at, row in enumerate(rows):
        if len(row):
            if row.shape[1:] != tail:
                raise DataError(f"{samples[at].name}: shape {row.shape} in a batch of [T, {tail}]; make all alike")
            out[at, : len(row)] = row
            mask[at, : len(row)] = True
    return out, mask


def _pad_features(rows: Sequence[Features | None], samples: Sequence[Sample]) -> tuple[FloatArray, BoolArray]:
    width = next(r.values.shape[1] for r in rows if r is not None)
    empty = np.zeros((0, width), np.float32)
    values, mask = _pad([empty if r is None else r.values for r in rows], samples, np.float32)
    for at, row in enumerate(rows):
        if row is not None:
            mask[at, : len(row.mask)] = row.mask
            # What a mask hides must not be read: a stray number there would be a leak that no test of masks sees.
            values[at, ~mask[at]] = 0
    return np.asarray(values, np.float32), mask
