"""CLCR's training losses (arXiv 2602.19605, section "loss"), each with its formula.

    L = L_task + lambda_inter (L_pr + L_sp + L_mix) + lambda_intra L_Intra

"Whitened" is done per dimension (zero mean, unit variance over the batch's rows): full whitening of 24 dimensions has no
inverse in small batches (this project's choice).
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clcr_edge.model.intra_ced import LEVELS, MODALITIES
from clcr_edge.model.student import StudentOutput


class Losses(NamedTuple):
    """Scalars: the task loss, the within-level and the across-level regularisers."""

    task: Tensor
    intra: Tensor
    inter: Tensor


def task_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.05) -> Tensor:
    """Cross-entropy over `[N, classes]`, labels int `[N]`."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def cross_correlation(a: Tensor, b: Tensor, rows: Tensor) -> Tensor:
    """Mean squared entry of the correlation matrix of a `[N, p]` and b `[N, q]` over the rows (bool `[N]`) where both are.

    0 with fewer than two rows: nothing can be said about them.
    """
    weight = rows.to(a.dtype).unsqueeze(-1)
    count = weight.sum()

    def whiten(x: Tensor) -> Tensor:
        x = (x - (x * weight).sum(0) / count.clamp_min(1.0)) * weight
        return x / ((x * x).sum(0) / count.clamp_min(1.0) + 1e-4).sqrt()

    correlation = whiten(a).mT @ whiten(b) / count.clamp_min(1.0)
    return torch.where(count > 1.5, correlation.square().mean(), 0.0)


def intra_loss(out: StudentOutput) -> Tensor:
    """L_Intra: at each level, private streams of different modalities, and private against shared of one modality."""
    shared, private, there = out.aggregated.shared, out.aggregated.private, out.exchanged.there
    terms = []
    for level in range(LEVELS):
        for m, other in combinations(range(MODALITIES), 2):
            rows = there[:, level, m] & there[:, level, other]
            terms.append(cross_correlation(private[:, level, m], private[:, level, other], rows))
        terms += [
            cross_correlation(private[:, level, m], shared[:, level, m], there[:, level, m]) for m in range(MODALITIES)
        ]
    return torch.stack(terms).mean()


def inter_loss(out: StudentOutput) -> Tensor:
    """L_Inter = L_pr (private redundancy across levels) + L_sp (shared-private leakage across levels) + L_mix.

    L_mix = sum over l != l' of c_ll' omega_l omega_l', c = |l - l'| / 2: distant levels should not fire together.
    """
    shared, private, there = out.aggregated.shared, out.aggregated.private, out.exchanged.there
    redundancy, leakage = [], []
    for low, high in combinations(range(LEVELS), 2):
        for m in range(MODALITIES):
            rows = there[:, low, m] & there[:, high, m]
            redundancy.append(cross_correlation(private[:, low, m], private[:, high, m], rows))
            leakage.append(cross_correlation(shared[:, low, m], private[:, high, m], rows))
            leakage.append(cross_correlation(private[:, low, m], shared[:, high, m], rows))
    omega = out.aggregated.level_weights
    index = torch.arange(LEVELS, device=omega.device)
    cost = (index.unsqueeze(0) - index.unsqueeze(1)).abs().to(omega.dtype) / (LEVELS - 1)
    mixing = torch.einsum("nl,lk,nk->n", omega, cost, omega).mean()
    return torch.stack(redundancy).mean() + torch.stack(leakage).mean() + mixing


def student_losses(out: StudentOutput, labels: Tensor) -> Losses:
    """All three, from one forward pass."""
    return Losses(task_loss(out.aggregated.logits, labels), intra_loss(out), inter_loss(out))
