"""Student weights -> the few constant matrices of the step graph. Folding is done in float64 and rounded once.

Batch norms go into the convolutions before them; the level maps' LayerNorm gains, the orthonormal bases and the query, key and
value maps become one matrix per level and modality, so that a new token costs two small products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.model.hierarchy import Tcn
from clcr_edge.model.intra_ced import LEVELS, MODALITIES
from clcr_edge.model.student import LevelMap, Student


def gain_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Batch norm (eval) as `x * gain + shift`, float64; differentiable."""
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = 1.0 / (norm.running_var.double() + norm.eps).sqrt()
    shift = -norm.running_mean.double() * gain
    if norm.affine:
        gain, shift = gain * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return gain, shift


@torch.no_grad()
def fold_conv(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """Bias-free convolution and the batch norm after it -> one convolution."""
    assert isinstance(conv, nn.Conv2d)
    gain, shift = gain_shift(norm)
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
    )
    folded.weight.copy_(conv.weight.double() * gain[:, None, None, None])
    assert folded.bias is not None
    folded.bias.copy_(shift)
    return folded


def fold_body(body: nn.Sequential) -> nn.Sequential:
    """Conv-BN-ReLU chain (eval) -> Conv-ReLU chain with the same output."""
    layers: list[nn.Module] = []
    for module in body:
        if isinstance(module, nn.BatchNorm2d):
            layers[-1] = fold_conv(layers[-1], module)
        else:
            layers.append(module)
    return nn.Sequential(*layers)


@torch.no_grad()
def fold_linear(linear: nn.Module, norm: nn.Module) -> nn.Linear:
    """Bias-free linear map and the batch norm after it -> one linear map."""
    assert isinstance(linear, nn.Linear)
    gain, shift = gain_shift(norm)
    folded = nn.Linear(linear.in_features, linear.out_features)
    folded.weight.copy_(linear.weight.double() * gain.unsqueeze(1))
    folded.bias.copy_(shift)
    return folded


@dataclass(frozen=True)
class FoldedConv:
    """One causal convolution of both media TCNs: weight `[2, 3 * d, d]` (oldest tap first), bias `[2, 1, d]`."""

    weight: Tensor
    bias: Tensor
    dilation: int


@torch.no_grad()
def fold_tcns(vision: Tcn, audio: Tcn) -> list[list[FoldedConv]]:
    """Per stage: the strided convolution, then the residual ones; vision and audio stacked in the first dimension."""
    stages = []
    for v, a in zip(vision.stages, audio.stages, strict=True):
        pairs = [(v.down, a.down), *zip(v.blocks, a.blocks, strict=True)]  # type: ignore[arg-type]
        convs = []
        for pair in pairs:
            weights, biases = [], []
            for conv in pair:
                gain, shift = gain_shift(conv.norm)
                weights.append((conv.conv.weight.double() * gain[:, None, None]).permute(2, 1, 0).flatten(0, 1))
                biases.append(shift.unsqueeze(0))
            convs.append(FoldedConv(torch.stack(weights).float(), torch.stack(biases).float(), pair[0].dilation))
        stages.append(convs)
    return stages


@dataclass(frozen=True)
class FoldedTokens:
    """Level features -> packed tokens: `n = norm(x @ level + level_bias)`, then `n @ split + split_bias`.

    level `[L, M, d, d]`, level_bias `[L, M, 1, d]`, split `[L, M, d, 4r + p]`, split_bias `[L, M, 1, 4r + p]`.
    The packed columns are query (scaled by 1/sqrt(r)), key, value, shared, private.
    """

    level: Tensor
    level_bias: Tensor
    split: Tensor
    split_bias: Tensor


@torch.no_grad()
def fold_tokens(student: Student) -> FoldedTokens:
    """Fold level maps, LayerNorm gains, bases (exact, float64) and exchange maps."""
    ced = student.intra_ced
    shared, private = ced.bases.exact()
    scale = 1.0 / math.sqrt(shared.shape[-1])
    levels, level_biases, splits, split_biases = [], [], [], []
    for level in range(LEVELS):
        for modality in range(MODALITIES):
            into = student.to_level[level][modality]  # type: ignore[index]
            assert isinstance(into, LevelMap)
            norm = into.norm
            gain, shift = gain_shift(into.standardise)
            weight = into.linear.weight.double()
            u = shared[level]
            columns = [
                u @ ced.query[level, modality].double() * scale,
                u @ ced.key[level, modality].double(),
                u @ ced.value[level, modality].double(),
                u,
                private[level, modality],
            ]
            matrix = torch.cat(columns, dim=1)
            levels.append((weight * gain).T)
            level_biases.append((into.linear.bias.double() + weight @ shift).unsqueeze(0))
            splits.append(norm.weight.double().unsqueeze(1) * matrix)
            split_biases.append((norm.bias.double() @ matrix).unsqueeze(0))

    def stack(parts: list[Tensor]) -> Tensor:
        joined = torch.stack(parts)
        return joined.reshape(LEVELS, MODALITIES, *joined.shape[1:]).float().clone()

    return FoldedTokens(stack(levels), stack(level_biases), stack(splits), stack(split_biases))


@torch.no_grad()
def fold_time_bias(student: Student) -> tuple[Tensor, Tensor]:
    """(-slope, lag) of the score bias, in ticks, spread over the windows: each `[L, M*W, M*W]`."""
    ced, width = student.intra_ced, student.config.model.window
    slope = -F.softplus(ced.slope.double()) * ced.tick_s
    lag = ced.lag.double() / ced.tick_s

    def spread(x: Tensor) -> Tensor:
        return x.repeat_interleave(width, 1).repeat_interleave(width, 2).float().clone()

    return spread(slope), spread(lag)
