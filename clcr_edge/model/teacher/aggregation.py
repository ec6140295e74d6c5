"""What stands in InterCAD's place in two ablations (this project): even weights, and late fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clcr_edge.model.inter_cad import Aggregated, HeadShape, InterCAD
from clcr_edge.model.intra_ced import LEVELS, Exchanged
from clcr_edge.model.teacher.config import TeacherConfig


class PlainAggregation(InterCAD):
    """`no-intercad`: InterCAD's sums and head, but all that is there weighs the same, and gates are open."""

    def __init__(self, config: HeadShape, classes: int, modalities: int) -> None:
        super().__init__(config, classes, modalities)
        # What decides nothing should not count as a parameter.
        del self.anchors, self.level_score, self.context, self.modality_key, self.norm_gate, self.gate, self.gate_bias

    def weigh_levels(self, shared: Tensor, there: Tensor) -> Tensor:
        """Even weights `[N, L]`."""
        return _even(there.any(dim=2), shared)

    def weigh_modalities(self, s_bar: Tensor, there: Tensor) -> Tensor:
        """Even weights `[N, M]`."""
        return _even(there, s_bar)

    def gates(self, mapped: Tensor, there: Tensor) -> Tensor:
        """1 where the modality is there: `[N, M]`."""
        return there.to(mapped.dtype)


class LateFusion(nn.Module):
    """`late-fusion`: each modality predicts from the mean of its own level tokens; the prediction is the mean of theirs.

        y = mean over the m that are there of head_m([h_1^m, h_2^m, h_3^m])

    No token, level weight or gate passes between modalities, so those fields say only what was there.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.ranks = (config.rank_shared, config.rank_private)
        self.heads = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(LEVELS * config.width, config.hidden),
                    nn.ReLU(),
                    nn.Dropout(config.dropout),
                    nn.Linear(config.hidden, len(config.outputs)),
                )
                for _ in config.modalities
            ]
        )

    def forward(self, pooled: Tensor, there: Tensor) -> tuple[Aggregated, Exchanged]:
        """pooled: float `[N, L, M, d]`, the means of the level tokens, 0 where nothing is; there: bool `[N, L, M]`."""
        own = torch.stack([head(pooled[:, :, m].flatten(1)) for m, head in enumerate(self.heads)], dim=1)  # [N, M, classes]
        weight = _even(there.any(dim=1), pooled)
        logits = (weight.unsqueeze(-1) * own).sum(dim=1)
        shared, private = (pooled.new_zeros(*there.shape, rank) for rank in self.ranks)
        omega = _even(there.any(dim=2), pooled)
        aggregated = Aggregated(logits, omega, weight, torch.zeros_like(weight), shared, private)
        return aggregated, Exchanged(shared, private, pooled.new_zeros(there.shape), there)


def _even(there: Tensor, like: Tensor) -> Tensor:
    """Equal weights over what is there, summing to 1: bool `[N, K]` -> `[N, K]`; all 0 where nothing is."""
    return there.to(like.dtype) / there.sum(dim=1, keepdim=True).clamp_min(1)
