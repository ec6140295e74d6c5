"""The acoustic network: a small time-delay network over log-mel frames, trained frame by frame. The only torch here.

    log-mel, 10 ms -> [7 frames, stride 3] -> 30 ms grid -> 4 x [3 taps] -> one score per unit state
                       BN first                  each: affine, ReLU, BN

The taps lean to the past: 15 frames of look-ahead (150 ms), 27 frames back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.errors import DataError
from clcr_edge.stt.arrays import FloatArray, IntArray
from clcr_edge.stt.mel import BANDS
from clcr_edge.stt.vary import STEADY, Noises, hush, vary

TAPS = ((-3, -2, -1, 0, 1, 2, 3), (-3, 0, 3), (-3, 0, 3), (-6, 0, 6), (-12, -6, 0))  # in 10 ms frames
LEFT = -sum(taps[0] for taps in TAPS)
RIGHT = sum(taps[-1] for taps in TAPS)
STRIDE = 3
IGNORED = -1
_SILENCE = 0  # the first output, of every inventory


class Tdnn(nn.Module):
    """Log-mel `[B, T, 40]` -> log-posteriors `[B, (T - LEFT - RIGHT + 2) // 3, n_pdfs]`; no padding inside."""

    def __init__(self, n_pdfs: int, width: int = 256) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(BANDS, affine=False)
        convs, inner = [], BANDS
        for i, taps in enumerate(TAPS):
            dilation = 1 if i == 0 else (taps[1] - taps[0]) // STRIDE
            convs.append(nn.Conv1d(inner, width, len(taps), stride=STRIDE if i == 0 else 1, dilation=dilation))
            inner = width
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for _ in TAPS)
        self.head = nn.Linear(width, n_pdfs)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.norm(mel.transpose(1, 2))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(torch.relu(conv(x)))
        return F.log_softmax(self.head(x.transpose(1, 2)), dim=-1)


@dataclass(frozen=True)
class Affine:
    """One affine layer as Kaldi wants it: `weight` `[out, taps * in]` in tap order, `bias` `[out]`."""

    weight: FloatArray
    bias: FloatArray


def affines(net: Tdnn, front: FloatArray) -> list[Affine]:
    """The network's layers with every batch norm folded into the affine that follows it (exact: nothing is padded inside).

    `front` `[40, 40]` is a matrix with log-mel = front @ input, for a network that gets something else (MFCC).
    """
    layers = [*net.convs, net.head]
    norms = [net.norm, *net.norms]
    result = []
    for i, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = norm.running_mean.double().numpy()
        scale = 1.0 / np.sqrt(norm.running_var.double().numpy() + norm.eps)
        weight = layer.weight.detach().double().numpy()
        if weight.ndim == 2:
            weight = weight[:, :, None]
        weight = weight * scale[None, :, None]
        bias = layer.bias.detach().double().numpy() - np.einsum("oik,i->o", weight, mean)
        if i == 0:
            weight = np.einsum("oik,ij->ojk", weight, front)
        result.append(Affine(weight.transpose(0, 2, 1).reshape(len(weight), -1), bias))
    return result


@dataclass(frozen=True)
class Frames:
    """A corpus as one array: log-mel float16 `[sum T, 40]`, labels int16 `[sum T]`, first frame of each utterance `[U + 1]`."""

    mel: FloatArray
    labels: IntArray
    starts: IntArray

    @staticmethod
    def of(utterances: list[tuple[FloatArray, IntArray]]) -> Frames:
        lengths = [len(mel) for mel, _ in utterances]
        return Frames(
            np.concatenate([mel for mel, _ in utterances]),
            np.concatenate([labels for _, labels in utterances]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )

    def joined(self, other: Frames) -> Frames:
        """Both corpora, one after the other."""
        return Frames(
            np.concatenate([self.mel, other.mel]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.starts, other.starts[1:] + self.starts[-1]]),
        )


CHUNK = 120  # frames (1.2 s)


def _chunks(frames: Frames, rng: np.random.Generator) -> IntArray:
    """Starts of chunks `[n]`, shuffled, at a random phase. They run across utterances, which begin and end in silence."""
    starts = np.arange(LEFT + rng.integers(0, CHUNK), len(frames.mel) - CHUNK - RIGHT, CHUNK)
    if not len(starts):
        raise DataError(f"{len(frames.mel)} frames are too few to train on: render more utterances")
    return rng.permutation(starts)


def _batch(frames: Frames, starts: IntArray, noises: Noises, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    index = starts[:, None] + np.arange(-LEFT, CHUNK - STRIDE + 1 + RIGHT)
    mel = frames.mel[index].astype(np.float32)
    labels = frames.labels[starts[:, None] + np.arange(0, CHUNK, STRIDE)].astype(np.int64)
    silent = (frames.labels[index] == _SILENCE).all(axis=1) | hush(mel, labels, _SILENCE, noises.hushed, rng)
    mel = vary(mel, silent, noises, rng)
    return torch.from_numpy(np.ascontiguousarray(mel)), torch.from_numpy(labels)


@dataclass(frozen=True)
class Schedule:
    """One training: passes over the data, chunks per step, peak rate, seed, share of steps spent warming up, noises."""

    epochs: int
    batch: int = 64
    rate: float = 4e-3
    seed: int = 0
    warm: float = 0.25
    noises: Noises = STEADY


def train(net: Tdnn, frames: Frames, schedule: Schedule, report: Callable[[str], None] = lambda line: None) -> None:
    """Frame cross-entropy with AdamW and a one-cycle rate, in place. `report` gets one line per epoch."""
    rng = np.random.default_rng(schedule.seed)
    steps = max(1, schedule.epochs * len(_chunks(frames, np.random.default_rng(0))) // schedule.batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.rate, weight_decay=0.01)
    # Phases differ by epoch, so the number of chunks does too: a few steps in reserve.
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, schedule.rate, total_steps=max(40, int(steps * 1.1) + schedule.epochs + 8), pct_start=schedule.warm
    )
    net.train()
    for epoch in range(schedule.epochs):
        total = right = seen = 0.0
        chunks = _chunks(frames, rng)
        for first in range(0, len(chunks) - min(schedule.batch, len(chunks)) + 1, schedule.batch):
            mel, labels = _batch(frames, chunks[first : first + schedule.batch], schedule.noises, rng)
            with torch.autocast("cpu", torch.bfloat16):  # half the time
                scores = net(mel)
            loss = F.nll_loss(scores.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            cycle.step()
            valid = labels != IGNORED
            total += loss.item() * int(valid.sum())
            right += int(((scores.argmax(-1) == labels) & valid).sum())
            seen += int(valid.sum())
        report(f"epoch {epoch + 1}/{schedule.epochs}: loss {total / max(seen, 1):.3f}, frames right {right / max(seen, 1):.3f}")
    net.eval()


def log_posteriors(net: Tdnn, mel: FloatArray) -> FloatArray:
    """One utterance `[T, 40]` -> log-posteriors float32 `[ceil(T / 3), n_pdfs]`; frame k is 10 ms frame 3 k."""
    n = (len(mel) + STRIDE - 1) // STRIDE
    index = np.clip(np.arange(-LEFT, (n - 1) * STRIDE + RIGHT + 1), 0, len(mel) - 1)
    net.eval()
    with torch.no_grad():
        result: FloatArray = net(torch.from_numpy(mel[index].astype(np.float32))[None])[0].numpy()
    assert len(result) == n
    return result


def priors(net: Tdnn, frames: Frames, n_pdfs: int, noises: Noises = STEADY, seed: int = 0) -> FloatArray:
    """Mean posterior of each output over a sample of the corpus and noises, float64 `[n_pdfs]`, sums to 1."""
    rng = np.random.default_rng(seed)
    net.eval()
    total = np.zeros(n_pdfs)
    chunks = _chunks(frames, rng)[:2048]
    with torch.no_grad():
        for first in range(0, len(chunks), 64):
            mel, labels = _batch(frames, chunks[first : first + 64], noises, rng)
            total += net(mel).exp()[labels != IGNORED].double().sum(0).numpy()
    return np.asarray(np.maximum(total / total.sum(), 1e-6))
