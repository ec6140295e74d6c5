"""Ours: the step graph as it ships; without its frame CNN, whose features then come in as `frame` `[1, d]`; and as it would be
if IntraCED's exchange cost nothing, which bounds what a better way of exchanging can win."""

from __future__ import annotations

from torch import Tensor

from clcr_edge.export.step import StepGraph


class StepWithoutCnn(StepGraph):
    """The step from the frame's features on."""

    def _frame(self, frame: Tensor) -> Tensor:
        return frame


class StepWithFreeExchange(StepWithoutCnn):
    """The step but for IntraCED's budget, attention and pooling: the newest token's coordinates stand in for what they give.
    Computes something else, on purpose: encoders, tokens and windows, InterCAD and head are all there as now, so no exact
    way of exchanging can make the step cheaper than this."""

    def _intra_ced(
        self, tokens: Tensor, valid: Tensor, ages: Tensor, r: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        newest = tokens[:, :, -1]
        return newest[..., 3 * r : 4 * r], newest[..., 4 * r : -2], newest[..., -2], valid[..., -1]
