"""Fake quantisation: the encoders compute in training what `export --int8` will make of them.

The tensors and parameters are those that `calibration.qdq` quantises, and the arithmetic is QuantizeLinear's and
DequantizeLinear's, bit for bit: division, round half to even, saturate. Gradients pass through the rounding as if it were not
there (straight-through estimator, Bengio et al., arXiv 1308.3432), and stop where a value saturates. Batch norms are folded
with their running statistics, as the exporter folds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.calibration.ranges import Range
from clcr_edge.calibration.units import ConvSite
from clcr_edge.export.fold import gain_shift
from clcr_edge.model.student import Student
from clcr_edge.packets import Modality


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        codes = torch.round(x / scale) + zero
        ctx.save_for_backward((codes >= low) & (codes <= high))
        return (codes.clamp(low, high) - zero) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None


def fake_activation(x: Tensor, found: Range) -> Tensor:
    """u8 with a zero point, one scale for the tensor: float `x` as its codes stand for it."""
    scale = torch.tensor(found.scale, dtype=torch.float32)
    made: Tensor = _Rounded.apply(x, scale, found.zero_point, 0, 255)  # type: ignore[no-untyped-call]
    return made


def weight_scale(weight: Tensor) -> Tensor:
    """The scale of each output channel of `[K, C, h, w]`, float32 `[K]`."""
    return weight.detach().abs().amax(dim=(1, 2, 3)).clamp_min(1e-8) / 127.0


def fake_weight(weight: Tensor) -> Tensor:
    """s8 per output channel, -127..127; float32 `[K, C, h, w]`."""
    made: Tensor = _Rounded.apply(weight, weight_scale(weight)[:, None, None, None], 0, -127, 127)  # type: ignore[no-untyped-call]
    return made


class FakeConvs(nn.Module):
    """A chain of convolution, batch norm and perhaps ReLU as the INT8 graph will compute it.

    layers: the chain's own modules, which go on being trained. source: what the first convolution reads; results: what each
    convolution gives, after its ReLU where one follows.
    """

    def __init__(self, layers: Sequence[nn.Module], source: Range, results: Sequence[Range]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._source, self._results = source, tuple(results)
        if sum(isinstance(m, nn.Conv2d) for m in layers) != len(self._results):
            raise ValueError("one range for each convolution's result is needed")

    def forward(self, x: Tensor) -> Tensor:
        """Float in, float out, both on the 8-bit grids of the graph."""
        reads = self._source
        x = fake_activation(x, reads)
        results = iter(self._results)
        for place, conv in enumerate(self.layers):
            if not isinstance(conv, nn.Conv2d):
                continue
            weight, bias = _folded(conv, self.layers[place + 1])
            # int32 codes: rounded in float64, as the exporter does.
            grid = (weight_scale(weight) * torch.tensor(reads.scale, dtype=torch.float32)).double()
            bias = _Rounded.apply(bias.double(), grid, 0, -(2**31), 2**31 - 1).float()  # type: ignore[no-untyped-call]
            x = F.conv2d(x, fake_weight(weight), bias, conv.stride, conv.padding)
            if place + 2 < len(self.layers) and isinstance(self.layers[place + 2], nn.ReLU):
                x = F.relu(x)
            reads = next(results)
            x = fake_activation(x, reads)
        return x


def _folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias with the batch norm in them, by its running statistics; differentiable."""
    gain, shift = gain_shift(norm)
    return (conv.weight.double() * gain[:, None, None, None]).float(), shift.float()


class Int8Student(nn.Module):
    """A student whose encoders compute in fake INT8; everything else as it is. Its batch norms keep their statistics.

    The given student is changed; `plain` gives it back. sites and ranges: of the step graph made of it.
    """

    def __init__(self, student: Student, sites: Sequence[ConvSite], ranges: Mapping[str, Range]) -> None:
        super().__init__()
        self.student = student
        student.half_precision = False
        chains = {m: [s for s in sites if s.modality is m] for m in (Modality.VISION, Modality.AUDIO)}
        first, results = {}, {}
        for modality, chain in chains.items():
            first[modality] = ranges[chain[0].source]
            results[modality] = [ranges[s.result] for s in chain]
        frames, sounds = student.frame_encoder, student.sound_encoder
        self._was = (frames.body, sounds.body, sounds.project, sounds.norm)
        frames.body = FakeConvs(list(frames.body), first[Modality.VISION], results[Modality.VISION])  # type: ignore[assignment]
        # One chain, body and projection: what the projection reads is on the grid already.
        whole = [*sounds.body, sounds.project, sounds.norm]
        sounds.body = FakeConvs(whole, first[Modality.AUDIO], results[Modality.AUDIO])  # type: ignore[assignment]
        sounds.project = sounds.norm = nn.Identity()  # type: ignore[assignment]

    def train(self, mode: bool = True) -> Int8Student:
        """As usual, but for the batch norms: the exporter folds what they are now."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.eval()
        return self

    def plain(self) -> Student:
        """The student with its own encoders again, and what they have learned."""
        frames, sounds = self.student.frame_encoder, self.student.sound_encoder
        frames.body, sounds.body, sounds.project, sounds.norm = self._was
        return self.student
