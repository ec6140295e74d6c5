"""The training streams of `digits-match` as the front ends read them, made once: every step and every variant draws from these.

A pool is a function of (bank, front ends, seed, size); its file says of which, and one of another is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import DigitBank
from clcr_edge.data.match import Match, match_training_streams
from clcr_edge.data.seen import Seen
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.model.student import NEVER, TickBatch
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.train.batches import LabelledTicks, batches_from, collate
from clcr_edge.train.checkpoint import load_tensors, save_tensors
from clcr_edge.train.match_start import fronted
from clcr_edge.train.teacher_checkpoint import read_metadata
from clcr_edge.train.voices import other_voices

_AT_ONCE = 8  # streams through the CNNs together
_LABELS = "labels"


class _Streams(Dataset[tuple[TickBatch, Tensor]]):
    """Batch k: streams 8 k to 8 k + 7, and their labels int64 `[8, T]`."""

    def __init__(self, bank: DigitBank, seed: int, seconds: float) -> None:
        self.bank, self.seed, self.seconds = bank, seed, seconds

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> tuple[TickBatch, Tensor]:
        source = match_training_streams(self.bank, self.seed, seconds=self.seconds, start=k * _AT_ONCE)
        made = [next(source) for _ in range(_AT_ONCE)]
        batch = collate(made, TickConfig())
        voice = int(np.random.SeedSequence([self.seed, k, 9]).generate_state(1)[0] >> 1)
        batch.fbank = other_voices(batch.fbank, voice)
        return batch, torch.from_numpy(np.stack([s.labels for s in made]))


class Pool:
    """N streams of T ticks that `fronted` has read, and their labels int64 `[N, T]`."""

    def __init__(self, batch: TickBatch, labels: Tensor) -> None:
        self.batch, self.labels = batch, labels

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, rng: np.random.Generator, streams: int, predict: int) -> LabelledTicks:
        """Some streams, and some ticks of each, without repeats: half of them same or different, as far as there are any, since
        these are the ones to learn and only one tick in seven is."""
        rows = torch.from_numpy(rng.choice(len(self), streams, replace=False))
        ticks = torch.from_numpy(np.stack([_ticks(own, rng, predict) for own in self.labels[rows].numpy()]))
        batch = TickBatch(*(getattr(self.batch, f.name)[rows] for f in fields(TickBatch)))
        return LabelledTicks(batch, ticks, self.labels[rows].gather(1, ticks), self.labels[:0], self.labels[:0])

    def batches(self, seed: int, streams: int, predict: int, first: int, count: int) -> Iterator[LabelledTicks]:
        """Batches first .. first + count - 1; batch k depends on (pool, seed, k) alone."""
        for k in range(first, first + count):
            yield self.draw(np.random.default_rng([seed, k, 10]), streams, predict)


def open_pool(path: Path, bank: DigitBank, teacher: Teacher, seed: int, streams: int, seconds: float) -> Pool:
    """The pool in a file; made and written where there is none. streams: rounded up to whole batches of 8.

    Raises `ClcrEdgeError` for a file that holds another pool.
    """
    streams = -(-streams // _AT_ONCE) * _AT_ONCE
    identity = _identity(bank, teacher, seed, streams, seconds)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, _make(bank, teacher, seed, streams, seconds), {"identity": identity})
    if read_metadata(path).get("identity") != identity:
        raise ClcrEdgeError(f"{path}: streams of another seed, data, front end or size; remove it to make them anew")
    held = load_tensors(path)
    labels = held.pop(_LABELS)
    return Pool(TickBatch(**held), labels)


def _ticks(labels: npt.NDArray[np.int64], rng: np.random.Generator, predict: int) -> npt.NDArray[np.int64]:
    order = rng.permutation(len(labels))
    verdicts = np.isin(labels[order], (Match.SAME, Match.DIFFERENT))
    first = order[verdicts][: predict // 2]
    rest = order[~np.isin(order, first)]
    return np.sort(np.concatenate([first, rest[: predict - len(first)]]))


def _make(bank: DigitBank, teacher: Teacher, seed: int, streams: int, seconds: float) -> dict[str, Tensor]:
    parts: list[dict[str, Tensor]] = []
    count = streams // _AT_ONCE
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        for batch, labels in bar.track(batches_from(_Streams(bank, seed, seconds), 0, count), count, description="streams"):
            read = fronted(teacher, batch)
            parts.append({f.name: getattr(read, f.name) for f in fields(TickBatch)} | {_LABELS: labels})
    slots = max(p["word_tick"].shape[1] for p in parts)
    return {name: torch.cat([_widened(name, p[name], slots) for p in parts]) for name in parts[0]}


def _widened(name: str, part: Tensor, slots: int) -> Tensor:
    """Room for the words of the stream that has most: empty slots after the others'."""
    if name not in ("ngrams", "confidence", "word_tick", "word_age"):
        return part
    empty = part.new_full((len(part), slots - part.shape[1], *part.shape[2:]), NEVER if name == "word_tick" else 0)
    return torch.cat([part, empty], dim=1)


def _identity(bank: DigitBank, teacher: Teacher, seed: int, streams: int, seconds: float) -> str:
    digest = hashlib.sha256(f"{seed} {streams} {seconds}".encode())
    seen = Seen.of(bank)
    digest.update(seen.images.tobytes() + seen.recordings.tobytes())
    for encoder in teacher.encoders.values():
        for key, value in encoder.state_dict().items():
            # Only what makes the vectors: the rest learns.
            if key.startswith("front.encoder."):
                digest.update(value.numpy().tobytes())
    return digest.hexdigest()
