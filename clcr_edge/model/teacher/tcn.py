"""Three-stage TCN over a padded sequence with holes (paper: section "hierarchy"; norms, strides, masks: this project).

    [B, T, d] --stage 1--> shallow [B, T/s1, d] --stage 2--> mid --stage 3--> deep       the receptive field grows on the way

Unlike the student's it may look ahead, keeps the last incomplete token of a sequence, and never reads a position that is not
there: neither as a neighbour nor in a batch statistic. So no sample's result depends on the padding of its batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LevelTokens(NamedTuple):
    """One modality at one level. values: float `[B, W, d]`; mask: bool `[B, W]`; times: float `[B, W, 2]`, shares."""

    values: Tensor
    mask: Tensor
    times: Tensor


class MaskedNorm(nn.Module):
    """Batch norm over the positions that are there: float `[B, T, d]`, bool `[B, T]` -> float `[B, T, d]`, 0 elsewhere.

    A batch with fewer than two such positions has no variance: the running statistics serve it.
    """

    def __init__(self, width: int, affine: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=affine)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = x[mask]
        n = self.norm
        if len(rows) < 2:
            seen = F.batch_norm(rows, n.running_mean, n.running_var, n.weight, n.bias, training=False, eps=n.eps)
        else:
            seen = n(rows)
        made = torch.zeros(x.shape, dtype=seen.dtype, device=x.device)
        made[mask] = seen
        return made


class Conv(nn.Module):
    """A convolution over time and its norm: `[B, T, d]` -> `[B, ceil(T / stride), d]`.

    Token j stands for positions `j * stride` to `(j + 1) * stride - 1`. causal: it reads nothing after them.
    """

    def __init__(self, width: int, stride: int = 1, dilation: int = 1, causal: bool = False) -> None:
        super().__init__()
        kernel = max(3, stride)
        reach = (kernel - 1) * dilation + 1
        self.reach, self.stride = reach, stride
        self.left = reach - stride if causal else (reach - stride + 1) // 2
        self.conv = nn.Conv1d(width, width, kernel, stride, dilation=dilation, bias=False)
        self.norm = MaskedNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: zero where nothing is. mask: bool `[B, ceil(T / stride)]`, of the tokens made."""
        right = (mask.shape[1] - 1) * self.stride + self.reach - x.shape[1] - self.left
        made: Tensor = self.norm(self.conv(F.pad(x.transpose(1, 2), (self.left, right))).transpose(1, 2), mask)
        return made


class Stage(nn.Module):
    """One level: a strided convolution, then residual ones with growing dilation."""

    def __init__(self, width: int, stride: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.stride = stride
        self.down = Conv(width, stride, causal=causal)
        self.blocks = nn.ModuleList([Conv(width, dilation=dilation, causal=causal) for dilation in (1, 2)])
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: LevelTokens) -> LevelTokens:
        mask, times = coarser(tokens.mask, tokens.times, self.stride)
        x = F.relu(self.down(tokens.values, mask))
        for block in self.blocks:
            x = x + self.drop(F.relu(block(x, mask)))
        return LevelTokens(x, mask, times)


class Tcn(nn.Module):
    """Three stages. ratios: positions of the level below per token."""

    def __init__(self, width: int, ratios: tuple[int, int, int], dropout: float, causal: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Stage(width, ratio, dropout, causal) for ratio in ratios])

    def forward(self, tokens: LevelTokens) -> list[LevelTokens]:
        levels = []
        for stage in self.stages:
            tokens = stage(tokens)
            levels.append(tokens)
        return levels


def coarser(mask: Tensor, times: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Mask and times of the tokens that each stand for `stride` positions: there if any position is, as long as those are."""
    batch, total = mask.shape
    short = -total % stride
    mask = F.pad(mask, (0, short)).reshape(batch, -1, stride)
    times = F.pad(times, (0, 0, 0, short)).reshape(batch, -1, stride, 2)
    begin = torch.where(mask, times[..., 0], 2.0).amin(dim=-1)
    end = torch.where(mask, times[..., 1], 0.0).amax(dim=-1)
    there = mask.any(dim=-1)
    return there, torch.where(there.unsqueeze(-1), torch.stack([begin, end], dim=-1), 0.0)
