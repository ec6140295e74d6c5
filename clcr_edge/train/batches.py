"""Labelled streams -> batches of ticks, made in a background process while the network trains.

Batch k of a run is a function of (seed, k) alone, so a resumed run sees exactly what the unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.conditions import ModalityDropout
from clcr_edge.data.frames import training_frames
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.streams import RATE_TICKS_HZ, Stream, StreamMaker, make_stream, training_streams
from clcr_edge.data.words import known_by, make_words
from clcr_edge.features import fbank_of_ticks, word_age_ticks, word_ngrams
from clcr_edge.model.student import NEVER, TickBatch
from clcr_edge.train.recognised import ears_of
from clcr_edge.train.voices import other_voices

T = TypeVar("T")


class LabelledTicks(NamedTuple):
    """A batch, the ticks to predict in each recording and their labels (int64 `[B, N]`); and for the auxiliary heads, at every
    tick, the digit that the frame shows and the one that was just spoken (int64 `[B, T]`, 10 for none)."""

    batch: TickBatch
    ticks: Tensor
    labels: Tensor
    shown: Tensor
    spoken: Tensor


def collate(streams: Sequence[Stream], config: TickConfig) -> TickBatch:
    """Streams of one length -> a batch, through the features that live use runs."""
    words = [list(zip(s.words, s.word_ticks.tolist(), strict=True)) for s in streams]
    slots = max(1, *(len(w) for w in words))
    ngrams = np.zeros((len(streams), slots, config.ngrams_per_word), np.int64)
    confidence = np.zeros((len(streams), slots), np.float32)
    word_tick = np.full((len(streams), slots), NEVER, np.int64)
    word_age = np.zeros((len(streams), slots), np.int64)
    for row, heard in enumerate(words):
        for slot, (word, tick) in enumerate(heard):
            ngrams[row, slot] = word_ngrams(word.text, config)
            confidence[row, slot] = word.confidence
            word_tick[row, slot] = tick
            word_age[row, slot] = word_age_ticks(word.end_s, (tick + 1) / config.rate_hz, config)
    return TickBatch(
        frames=torch.from_numpy(np.stack([s.frames for s in streams])),
        vision=torch.from_numpy(np.stack([s.vision_present for s in streams])),
        fbank=torch.from_numpy(np.stack([fbank_of_ticks(s.audio, s.audio_present, config) for s in streams])),
        audio=torch.from_numpy(np.stack([s.audio_present for s in streams])),
        ngrams=torch.from_numpy(ngrams),
        confidence=torch.from_numpy(confidence),
        word_tick=torch.from_numpy(word_tick),
        word_age=torch.from_numpy(word_age),
    )


def sound_alone(fbank: Tensor, config: TickConfig) -> TickBatch:
    """A batch of recordings, float32 `[B, T, F, n_mels]`, with no picture and no words."""
    batch, ticks = fbank.shape[:2]
    there = torch.ones(batch, ticks, dtype=torch.bool)
    return TickBatch(
        frames=torch.zeros(batch, ticks, 1, 1, dtype=torch.uint8),  # never looked at
        vision=~there,
        fbank=fbank,
        audio=there,
        ngrams=torch.zeros(batch, 1, config.ngrams_per_word, dtype=torch.int64),
        confidence=torch.zeros(batch, 1),
        word_tick=torch.full((batch, 1), NEVER),
        word_age=torch.zeros(batch, 1, dtype=torch.int64),
    )


class StreamBatches(Dataset[LabelledTicks]):
    """Training batches by number: batch k holds `streams` random streams of `seconds` each, with `predict` ticks of each.

    listener: a Vosk model whose words the streams get, None for simulated ones.
    """

    def __init__(
        self,
        bank: DigitBank,
        config: TickConfig,
        seed: int,
        streams: int,
        seconds: float,
        predict: int,
        dropout: ModalityDropout | None = None,
        listener: Path | None = None,
    ) -> None:
        self.bank, self.config, self.seed = bank, config, seed
        self.streams, self.seconds, self.predict = streams, seconds, predict
        self.dropout = dropout or ModalityDropout()
        self._listener = listener
        self._make: StreamMaker = make_stream

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> LabelledTicks:
        if self._listener is not None and self._make is make_stream:  # opened where it is used: in the worker's process
            self._make = partial(make_stream, ears=ears_of(self._listener))
        source = training_streams(
            self.bank, self.seed, seconds=self.seconds, dropout=self.dropout, start=k * self.streams, make=self._make
        )
        made = [next(source) for _ in range(self.streams)]
        rng = np.random.default_rng([self.seed, k])
        ticks = np.stack([np.sort(rng.choice(s.ticks, self.predict, replace=False)) for s in made])
        labels = np.stack([s.labels[t] for s, t in zip(made, ticks, strict=True)])
        batch = collate(made, self.config)
        batch.fbank = other_voices(batch.fbank, int(rng.integers(1 << 31)))
        return LabelledTicks(
            batch,
            *(torch.from_numpy(x) for x in (ticks, labels)),
            *(torch.from_numpy(np.stack([evident(s, kind) for s in made])) for kind in ("shown", "said")),
        )


def evident(stream: Stream, kind: str) -> npt.NDArray[np.int64]:
    """Per tick the digit that the frame shows ("shown"), or that was said within the last third of a second ("said")."""
    out = np.full(stream.ticks, NONE, np.int64)
    for event, trace in zip(stream.events, stream.traces, strict=True):
        span = trace.shown_s if kind == "shown" else trace.said_s
        if span is None:
            continue
        if kind == "said":
            start, end = (round(t * RATE_HZ) for t in span)
            out[known_by(start, end - start)] = event.label
        else:
            first, last = (round(t * RATE_TICKS_HZ) for t in span)
            out[first:last] = event.label
    return out


class FrameBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of unrelated frames by number: uint8 `[count, S, S]` and the digit that each shows, int64 `[count]`. The first
    `easy` batches grow from little noise and blur to all of it."""

    def __init__(self, bank: DigitBank, seed: int, count: int, easy: int) -> None:
        self.bank, self.seed, self.count, self.easy = bank, seed, count, easy

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        frames, shown = next(training_frames(self.bank, self.seed, self.count, start=k, easy=self.easy))
        return torch.from_numpy(frames), torch.from_numpy(shown)


class WordBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of single words by number: float32 `[count, T, F, n_mels]` and the digit just said, int64 `[count, T]`."""

    def __init__(self, bank: DigitBank, config: TickConfig, seed: int, count: int) -> None:
        self.bank, self.config, self.seed, self.count = bank, config, seed, count

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        own, voice = np.random.SeedSequence([self.seed, k, 2]).generate_state(2).tolist()
        words = make_words(self.bank, self.config, self.count, own)
        return other_voices(torch.from_numpy(words.fbank), voice), torch.from_numpy(words.said)


def batches_from(dataset: Dataset[T], first: int, count: int) -> Iterator[T]:
    """Batches `first .. first + count - 1`, made ahead by one worker process."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first, first + count),
        num_workers=1,
        prefetch_factor=4,
        multiprocessing_context="fork",
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
