"""InterCAD, the inter-level co-aggregation domain (arXiv 2602.19605, section "InterCAD").

    s_l^m, p_l^m = LN(pooled)                         summaries per level and modality
    omega = softmax(MLP([mean_m s_l^m, anchor_l]))    level weights: shared summaries only, or private cues would leak
    s_bar^m = sum_l omega_l s_l^m                     (p_bar^m alike)
    z_sh = sum_m w_m s_bar^m,  w = softmax(<g_bar, s_bar^m>)     modality weights
    u_pr = [eta_m W_p p_bar^m]_m,  eta_m = sigmoid(w_p^T LN(W_p p_bar^m))   private gates
    y = head([z_sh, u_pr])
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from clcr_edge.model.intra_ced import LEVELS, MASKED, MODALITIES, Exchanged


class Aggregated(NamedTuple):
    """logits `[N, classes]`; level_weights `[N, L]`; modality_weights `[N, M]`; private_gates `[N, M]`; shared and private
    summaries `[N, L, M, r or p]`, zero where nothing is there (the losses and distillation read them)."""

    logits: Tensor
    level_weights: Tensor
    modality_weights: Tensor
    private_gates: Tensor
    shared: Tensor
    private: Tensor


class HeadShape(Protocol):
    """What InterCAD must know of a configuration: the two ranks, the head's width, its dropout."""

    @property
    def rank_shared(self) -> int: ...
    @property
    def rank_private(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def dropout(self) -> float: ...


class InterCAD(nn.Module):
    """Weigh the levels, pick among the modalities, gate private cues in, predict."""

    def __init__(self, config: HeadShape, classes: int, modalities: int = MODALITIES) -> None:
        super().__init__()
        r, p = config.rank_shared, config.rank_private
        self.norm_shared = nn.LayerNorm(r)
        self.norm_private = nn.LayerNorm(p)
        self.anchors = nn.Parameter(torch.randn(LEVELS, r) * 0.5)
        self.level_score = nn.Sequential(nn.Linear(2 * r, r), nn.ReLU(), nn.Linear(r, 1))
        self.context = nn.Linear(r, r)
        self.modality_key = nn.Linear(r, r)
        self.private_map = nn.Parameter(torch.randn(modalities, p, p) / math.sqrt(p))
        self.norm_gate = nn.LayerNorm(p)
        self.gate = nn.Parameter(torch.zeros(modalities, p))
        self.gate_bias = nn.Parameter(torch.zeros(modalities))
        self.head = nn.Sequential(
            nn.Linear(r + modalities * p, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, classes),
        )

    def forward(self, exchanged: Exchanged) -> Aggregated:
        there = exchanged.there  # [N, L, M]
        mask = there.unsqueeze(-1)
        # LN of an empty pool is not zero (its bias is not): mask after it.
        shared = torch.where(mask, self.norm_shared(exchanged.shared), 0.0)
        private = torch.where(mask, self.norm_private(exchanged.private), 0.0)

        omega = self.weigh_levels(shared, there)
        s_bar = (omega[:, :, None, None] * shared).sum(dim=1)  # [N, M, r]
        p_bar = (omega[:, :, None, None] * private).sum(dim=1)
        modality_there = there.any(dim=1)  # [N, M]
        weight = self.weigh_modalities(s_bar, modality_there)
        z_shared = (weight.unsqueeze(-1) * s_bar).sum(dim=1)

        mapped = (p_bar.transpose(0, 1) @ self.private_map).transpose(0, 1)
        eta = self.gates(mapped, modality_there)
        u_private = (eta.unsqueeze(-1) * mapped).flatten(1)

        logits = self.head(torch.cat([z_shared, u_private], dim=-1))
        return Aggregated(logits, omega, weight, eta, shared, private)

    def weigh_levels(self, shared: Tensor, there: Tensor) -> Tensor:
        """omega: shared summaries `[N, L, M, r]`, there `[N, L, M]` -> `[N, L]`, summing to 1 over what is there."""
        summary = shared.sum(dim=2) / there.sum(dim=2).clamp_min(1).unsqueeze(-1)  # [N, L, r]
        anchors = self.anchors.expand_as(summary)
        score = self.level_score(torch.cat([summary, anchors], dim=-1)).squeeze(-1)
        level_there = there.any(dim=2)
        return torch.softmax(score.masked_fill(~level_there, MASKED), dim=-1) * level_there

    def weigh_modalities(self, s_bar: Tensor, there: Tensor) -> Tensor:
        """w: s_bar `[N, M, r]`, there `[N, M]` -> `[N, M]`, summing to 1 over the modalities that are there."""
        g_bar = s_bar.sum(dim=1) / there.sum(dim=1).clamp_min(1).unsqueeze(-1)
        query = self.context(g_bar).unsqueeze(1)
        affinity = (query * self.modality_key(s_bar)).sum(dim=-1) / math.sqrt(s_bar.shape[-1])
        return torch.softmax(affinity.masked_fill(~there, MASKED), dim=-1) * there

    def gates(self, mapped: Tensor, there: Tensor) -> Tensor:
        """eta: W_p p_bar `[N, M, p]`, there `[N, M]` -> `[N, M]`, 0..1."""
        confidence = (self.norm_gate(mapped) * self.gate).sum(dim=-1) + self.gate_bias
        return torch.where(there, torch.sigmoid(confidence), 0.0)
