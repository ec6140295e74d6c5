"""Semantic hierarchy encoders: raw ticks and words -> tokens on three levels (paper: section "hierarchy"; causal form: ours).

Vision and audio pass a front end that makes one vector per tick, then three causal TCN stages whose token rates fall
(25, 12.5 and 6.25 per second by default) while their receptive fields grow. Language passes three causal stages over words.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.config import ModelConfig, TickConfig


class FrontShape(Protocol):
    """What the raw front ends must know of a configuration; see `ModelConfig` for each."""

    @property
    def width(self) -> int: ...
    @property
    def vision_channels(self) -> tuple[tuple[int, int, int], ...]: ...
    @property
    def audio_channels(self) -> int: ...
    @property
    def audio_context(self) -> int: ...


class FrameEncoder(nn.Module):
    """A small dense-convolution CNN for one luma frame: float `[N, 1, S, S]` in 0..1 -> float `[N, d]` (or more channels).

    Dense convolutions, not depthwise ones: INT8 pays on them. The first goes to a quarter of the size at once: at half size,
    activations of few channels cost memory traffic.
    Each frame is standardised, so that light and camera gain are not features.
    """

    def __init__(self, config: FrontShape, channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, kernel, stride in config.vision_channels:
            layers += [
                nn.Conv2d(channels, width, kernel, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(*layers)
        self.project = nn.Linear(2 * channels, config.width, bias=False)
        self.norm = nn.BatchNorm1d(config.width)

    @staticmethod
    def standardise(frame: Tensor) -> Tensor:
        """Zero mean and unit variance per frame; the floor keeps a black frame from becoming amplified noise."""
        centred = frame - frame.mean(dim=(2, 3), keepdim=True)
        return centred / ((centred * centred).mean(dim=(2, 3), keepdim=True) + 1e-3).sqrt()

    def forward(self, frame: Tensor) -> Tensor:
        features = self.body(self.standardise(frame))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=-1)
        return F.relu(self.norm(self.project(pooled)))


class SoundEncoder(nn.Module):
    """A small CNN over every tick's fbank frames and their recent past: float `[B, context + T * F, n_mels]` -> `[B, T, d]`.

    Its strides in time multiply to F, the frames of a tick, so that one pass over a whole recording computes exactly what a
    pass over each tick's own window does, at a fifth of the cost.
    """

    def __init__(self, config: FrontShape, tick: TickConfig) -> None:
        super().__init__()
        c = config.audio_channels
        frames = config.audio_context + tick.fbank_frames
        self.body = nn.Sequential(
            nn.Conv2d(1, c, (3, 5), (1, 2), padding=(0, 2), bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, 2, padding=(0, 1), bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, 2 * c, 3, 2, padding=(0, 1), bias=False),
            nn.BatchNorm2d(2 * c),
            nn.ReLU(),
        )
        with torch.no_grad():
            time, mel = self.body.eval()(torch.zeros(1, 1, frames, tick.n_mels)).shape[2:]
        self.body.train()
        self.project = nn.Conv2d(2 * c, config.width, (time, mel), bias=False)
        self.norm = nn.BatchNorm2d(config.width)

    def forward(self, frames: Tensor) -> Tensor:
        seen = frames.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        made: Tensor = F.relu(self.norm(self.project(self.body(seen))))  # [B, d, T, 1]
        return made.squeeze(3).transpose(1, 2)


class CausalConv(nn.Module):
    """A convolution over time that looks back only, batch norm after it: float `[B, d, T]` -> float `[B, d, T // stride]`.

    Output j is complete when input `(j + 1) * stride - 1` is there. kernel 3 always; the past before the start is zero.
    """

    kernel = 3

    def __init__(self, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.context = (self.kernel - 1) * dilation  # inputs of the past that a stream must keep
        self.conv = nn.Conv1d(width, width, self.kernel, stride, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.norm(self.conv(F.pad(x, (self.context - (self.stride - 1), 0))))
        return made


class Stage(nn.Module):
    """One level of a TCN: a strided causal convolution, then residual ones with growing dilation."""

    def __init__(self, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.down = CausalConv(width, stride)
        self.blocks = nn.ModuleList([CausalConv(width, dilation=1), CausalConv(width, dilation=2)])
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(x))
        for block in self.blocks:
            x = x + self.drop(F.relu(block(x)))
        return x


class Tcn(nn.Module):
    """Three stages: float `[B, T, d]` -> level features `[B, T // stride_l, d]` for the strides of the configuration."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(config.width, ratio, config.dropout) for ratio in config.level_ratio])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x.transpose(1, 2)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x.transpose(1, 2))
        return levels


class WordEncoder(nn.Module):
    """Words -> three level features each, through causal stages over words (never over time: words come when they come).

    ngrams: int `[B, N, G]`, 0 is padding; confidence: float `[B, N]`, 0..1. Returns three floats `[B, N, d]`.
    """

    def __init__(self, config: ModelConfig, tick: TickConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tick.ngram_buckets, config.embedding_width, padding_idx=0)
        nn.init.normal_(self.embedding.weight)  # a word is a mean of some ten of them
        with torch.no_grad():
            self.embedding.weight[0].zero_()
        self.project = nn.Linear(config.embedding_width + 1, config.width)
        self.stages = nn.ModuleList([nn.Conv1d(config.width, config.width, 2) for _ in range(3)])
        self.drop = nn.Dropout(config.dropout)

    def embed(self, ngrams: Tensor, confidence: Tensor) -> Tensor:
        """Mean of the word's n-gram vectors, and the confidence: float `[B, N, d]`."""
        count = (ngrams > 0).sum(dim=-1, keepdim=True).clamp_min(1)
        mean = self.embedding(ngrams).sum(dim=-2) / count
        return F.relu(self.project(torch.cat([mean, confidence.unsqueeze(-1)], dim=-1)))

    def forward(self, ngrams: Tensor, confidence: Tensor) -> list[Tensor]:
        x = self.embed(ngrams, confidence)
        levels = []
        for stage in self.stages:
            past = stage(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)
            x = x + self.drop(F.relu(past))
            levels.append(x)
        return levels
