"""Ours: the step graph as it ships; without its frame CNN, whose features then come in as `frame` `[1, d]`; and as it would be
if IntraCED cost nothing, which bounds what any way of computing IntraCED can win."""

from __future__ import annotations

from torch import Tensor

from clcr_edge.export.step import StepGraph


class StepWithoutCnn(StepGraph):
    """The step from the frame's features on."""

    def _frame(self, frame: Tensor) -> Tensor:
        return frame


class StepWithFreeIntraCed(StepWithoutCnn):
    """The step but for IntraCED: the newest token's coordinates stand in for what it pools. Computes something else, on
    purpose: encoders, tokens, windows, InterCAD and head are all there, so no exact step can be cheaper while they stay."""

    def _intra_ced(
        self, tokens: Tensor, valid: Tensor, ages: Tensor, r: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        newest = tokens[:, :, -1]
        return newest[..., 3 * r : 4 * r], newest[..., 4 * r : -2], newest[..., -2], valid[..., -1]
