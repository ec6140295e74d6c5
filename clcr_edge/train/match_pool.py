"""The training streams of `digits-match` as the front ends read them, made once: every step and every variant draws from these.

What is seen of one stream and what is heard of another are a third stream, whose labels follow from the digits that are known
in each: so a few thousand streams give millions, too many to learn their pairs of digits by heart.

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
from clcr_edge.data.match import Match, known_digits, match_labels, match_training_streams
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
_SEEN, _SAID = "seen", "said"
PIECE = 64  # ticks, 2.6 s: a network reads so much at a time, in training and after it
_ASKED = 0.85
_OWN = 0.2  # how often a stream stays as it is
_CANDIDATES = 24


class _Streams(Dataset[tuple[TickBatch, Tensor, Tensor]]):
    """Batch k: streams 8 k to 8 k + 7, and the digits that are known of what they show and say, int64 `[8, T]` each."""

    def __init__(self, bank: DigitBank, seed: int, seconds: float) -> None:
        self.bank, self.seed, self.seconds = bank, seed, seconds

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, k: int) -> tuple[TickBatch, Tensor, Tensor]:
        source = match_training_streams(self.bank, self.seed, seconds=self.seconds, start=k * _AT_ONCE)
        made = [next(source) for _ in range(_AT_ONCE)]
        batch = collate(made, TickConfig())
        voice = int(np.random.SeedSequence([self.seed, k, 9]).generate_state(1)[0] >> 1)
        batch.fbank = other_voices(batch.fbank, voice)
        seen, said = zip(*(known_digits(s, self.bank) for s in made), strict=True)
        return batch, torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(said))


class Pool:
    """N streams of T ticks that `fronted` has read, and the digits known of what they show and say: int64 `[N, T]` each."""

    def __init__(self, batch: TickBatch, seen: Tensor, said: Tensor) -> None:
        self.batch, self.seen, self.said = batch, seen, said

    def __len__(self) -> int:
        return len(self.seen)

    def draw(self, rng: np.random.Generator, streams: int, predict: int) -> LabelledTicks:
        """Pieces of some streams, most of them made of what is seen of one and heard of another, and some ticks of each,
        without repeats: half of them same or different, as far as there are any, since these are the ones to learn and only
        one in seven is. A piece is `PIECE` ticks long, or the whole stream; what is asked for lies behind its first quarter.
        shown and spoken hold the digits known, `UNKNOWN` for none."""
        shows = rng.choice(len(self), streams, replace=False)
        says = np.array([self._partner(row, rng) for row in shows])
        labels = match_labels(self.seen[shows].numpy(), self.said[says].numpy())
        length = min(PIECE, labels.shape[1])
        first = np.array([_first(own, length, rng) for own in labels])
        inside = first[:, None] + np.arange(length)
        labels = np.take_along_axis(labels, inside, 1)
        skip = length // 4
        ticks = np.stack([_ticks(own[skip:], rng, min(predict, length - skip)) + skip for own in labels])
        return LabelledTicks(
            take_pieces(self.batch, torch.from_numpy(shows), torch.from_numpy(says), torch.from_numpy(inside)),
            torch.from_numpy(ticks),
            torch.from_numpy(np.take_along_axis(labels, ticks, 1)),
            self.seen[torch.from_numpy(shows)].gather(1, torch.from_numpy(inside)),
            self.said[torch.from_numpy(says)].gather(1, torch.from_numpy(inside)),
        )

    def _partner(self, row: int, rng: np.random.Generator) -> int:
        """Whose sound and words go with the pictures of a stream: its own, or of some others that with most of same or of
        different, as likely."""
        if rng.random() < _OWN:
            return row
        others = rng.choice(len(self), min(_CANDIDATES, len(self)), replace=False)
        labels = match_labels(self.seen[row].numpy()[None], self.said[others].numpy())
        wanted = Match.SAME if rng.random() < 0.5 else Match.DIFFERENT
        return int(others[(labels == wanted).sum(axis=1).argmax()])

    def batches(self, seed: int, streams: int, predict: int, first: int, count: int) -> Iterator[LabelledTicks]:
        """Batches first .. first + count - 1; batch k depends on (pool, seed, k) alone."""
        for k in range(first, first + count):
            yield self.draw(np.random.default_rng([seed, k, 10]), streams, predict)


def take_pieces(own: TickBatch, shows: Tensor, says: Tensor, inside: Tensor) -> TickBatch:
    """What is seen of some streams and heard of others (int64 `[B]` each), in the ticks int64 `[B, length]`, one after the
    other; words that arrive in them. `own` is what `fronted` made."""
    seen, heard = shows.unsqueeze(1), says.unsqueeze(1)
    arrival = own.word_tick[says] - inside[:, :1]
    there = (arrival >= 0) & (arrival < inside.shape[1])
    return TickBatch(
        frames=own.frames[seen, inside],
        vision=own.vision[seen, inside],
        fbank=own.fbank[heard, inside],
        audio=own.audio[heard, inside],
        ngrams=own.ngrams[says],
        confidence=own.confidence[says],
        word_tick=torch.where(there, arrival, NEVER),
        word_age=own.word_age[says],
    )


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
    seen, said = held.pop(_SEEN), held.pop(_SAID)
    return Pool(TickBatch(**held), seen, said)


def _first(labels: npt.NDArray[np.int64], length: int, rng: np.random.Generator) -> int:
    """Where a piece begins: mostly so that a tick of same or different lies behind its first quarter."""
    verdicts = np.flatnonzero(np.isin(labels, (Match.SAME, Match.DIFFERENT)))
    tick = int(rng.choice(verdicts)) if len(verdicts) and rng.random() < _ASKED else int(rng.integers(len(labels)))
    return int(np.clip(tick - rng.integers(length // 4, length), 0, len(labels) - length))


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
        for batch, seen, said in bar.track(batches_from(_Streams(bank, seed, seconds), 0, count), count, description="streams"):
            read = fronted(teacher, batch)
            parts.append({f.name: getattr(read, f.name) for f in fields(TickBatch)} | {_SEEN: seen, _SAID: said})
    return joined(parts)


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Batches of streams, by field, as one: with slots for the words of the stream that has most."""
    slots = max(p["word_tick"].shape[1] for p in parts)
    return {name: torch.cat([_widened(name, p[name], slots) for p in parts]) for name in parts[0]}


def _widened(name: str, part: Tensor, slots: int) -> Tensor:
    """A field of `TickBatch` with room for the words of the stream that has most: empty slots after the others'."""
    if name not in ("ngrams", "confidence", "word_tick", "word_age"):
        return part
    empty = part.new_full((len(part), slots - part.shape[1], *part.shape[2:]), NEVER if name == "word_tick" else 0)
    return torch.cat([part, empty], dim=1)


def _identity(bank: DigitBank, teacher: Teacher, seed: int, streams: int, seconds: float) -> str:
    digest = hashlib.sha256(f"digits known {seed} {streams} {seconds}".encode())
    seen = Seen.of(bank)
    digest.update(seen.images.tobytes() + seen.recordings.tobytes())
    for encoder in teacher.encoders.values():
        for key, value in encoder.state_dict().items():
            # Only what makes the vectors: the rest learns.
            if key.startswith("front.encoder."):
                digest.update(value.numpy().tobytes())
    return digest.hexdigest()
