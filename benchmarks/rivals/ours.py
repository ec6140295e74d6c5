"""Ours: the step graph as it ships, without its frame CNN, whose features then come in as `frame` `[1, d]`."""

from __future__ import annotations

from torch import Tensor

from clcr_edge.export.step import StepGraph


class StepWithoutCnn(StepGraph):
    """The step from the frame's features on."""

    def _frame(self, frame: Tensor) -> Tensor:
        return frame
