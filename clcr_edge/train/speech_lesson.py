"""Audio's first phase: the sounds of synthetic speech, in as many voices as there are utterances.

A few people and some dozens of synthetic voices teach an encoder ten words, not how a sound differs from mouth to mouth. So
it first learns, frame by frame, which phoneme of which word is being said: the lesson of the small recogniser
(`clcr_edge.stt`), by the speech that its builder makes. Nobody who was recorded is in it: it is the same whoever is left out.

    espeak-ng, voices drawn at random -> fbank -> SoundEncoder, TCN -> level 0: the unit said 0.1 s ago
                                                               \\-> levels 1, 2, and the student's head: the digit just said
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import DIGITS, NONE
from clcr_edge.data.plan import AFTERMATH
from clcr_edge.errors import DataError
from clcr_edge.features import fbank
from clcr_edge.stt.corpus import count_units, label
from clcr_edge.stt.synthetic import Spoken, render
from clcr_edge.train.batches import batches_from
from clcr_edge.train.voices import other_voices

UNITS = 256
"""Outputs of the head that names units: room for the inventory, which has some 190."""
TICKS = 40
_DRAWN = 0.7  # the rest are espeak-ng's own voices
_LAG = 10  # frames: a phoneme is known by what follows it


class Speech(NamedTuple):
    """A corpus end on end. fbank: float16 `[N, n_mels]`; units: int16 `[N]`, the unit of each 10 ms frame; said: int8 `[N]`,
    the digit just said, 10 for none."""

    fbank: npt.NDArray[np.float16]
    units: npt.NDArray[np.int16]
    said: npt.NDArray[np.int8]


def just_said(corpus: list[Spoken], frames_per_second: float, aftermath_s: float) -> npt.NDArray[np.int8]:
    """Per frame of the whole corpus the digit just said: from its last third until `aftermath_s` after it, or the next one."""
    out = np.full(sum(len(spoken.features) for spoken in corpus), NONE, np.int8)
    first = 0
    for spoken in corpus:
        for place, word in enumerate(spoken.words):
            times = [t for _, of, start_s, end_s in spoken.phones if of == place for t in (start_s, end_s)]
            if word in DIGITS and times:
                known_s = min(times) + (max(times) - min(times)) * 2 / 3
                span = [first + round(t * frames_per_second) for t in (known_s, max(times) + aftermath_s)]
                out[span[0] : span[1]] = DIGITS.index(word)
        first += len(spoken.features)
    return out


def make_speech(config: TickConfig, count: int, seed: int, workers: int = 1) -> Speech:
    """`count` utterances through the student's own filter bank. Deterministic in (config, count, seed).

    Raises `MissingPartError` where espeak-ng is not installed, `DataError` for too few utterances to say every word.
    """
    corpus = render(count, seed, workers, drawn=_DRAWN, features=partial(fbank, config=config))
    units = count_units(corpus)
    if units.n_pdfs > UNITS:
        raise DataError(f"{units.n_pdfs} units in {count} utterances, the head has {UNITS}: render fewer")
    targets = [label(spoken, units)[1] for spoken in corpus]
    frames_per_second = config.sample_rate_hz / config.fbank_hop
    return Speech(
        np.concatenate([spoken.features for spoken in corpus]).astype(np.float16, copy=False),
        np.concatenate(targets).astype(np.int16, copy=False),
        just_said(corpus, frames_per_second, AFTERMATH / config.rate_hz),
    )


class SpeechBatches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pieces of the corpus by number of batch: float32 `[count, TICKS, F, n_mels]`; int64 `[count, TICKS]` the unit said `_LAG`
    frames before the tick's end, and the digit just said at it."""

    def __init__(self, speech: Speech, config: TickConfig, seed: int, count: int) -> None:
        self.speech, self.config, self.seed, self.count = speech, config, seed, count
        if len(speech.fbank) <= self._frames + _LAG:
            raise DataError(f"{len(speech.fbank)} frames of speech are too few to learn from: render more utterances")

    @property
    def _frames(self) -> int:
        return TICKS * self.config.fbank_frames

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, k, 5])
        first = rng.integers(_LAG, len(self.speech.fbank) - self._frames, self.count)
        index = first[:, None] + np.arange(self._frames)
        frames = self.speech.fbank[index].astype(np.float32)
        heard = torch.from_numpy(frames.reshape(self.count, TICKS, self.config.fbank_frames, -1))
        last = index[:, self.config.fbank_frames - 1 :: self.config.fbank_frames]
        targets = (self.speech.units[last - _LAG], self.speech.said[last])
        units, said = (torch.from_numpy(t.astype(np.int64)) for t in targets)
        return other_voices(heard, int(rng.integers(1 << 31))), units, said


def speech_batches(
    config: TickConfig, utterances: int, seed: int, pieces: int, workers: int, first: int, count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches `first .. first + count - 1`; nothing is rendered where none is wanted (a resumed run that is past them)."""
    if not count:
        return iter(())
    return batches_from(SpeechBatches(make_speech(config, utterances, seed, workers), config, seed, pieces), first, count)
