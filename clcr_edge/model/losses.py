"""CLCR's training losses (arXiv 2602.19605, section "loss"), each with its formula.

    L = L_task + lambda_inter (L_pr + L_sp + L_mix) + lambda_intra L_Intra

"Whitened" is done per dimension (zero mean, unit variance over the batch's rows): full whitening of 24 dimensions has no
inverse in small batches (this project's choice). All of them read only rows where both sides are there, so a missing modality
takes part in nothing; with fewer than two such rows a term is 0. Teacher and student share every function.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from clcr_edge.model.inter_cad import Aggregated
from clcr_edge.model.intra_ced import Exchanged

IGNORED = -100  # the label of a segment that nobody asks about


class Fused(Protocol):
    """What a network gives for its losses: InterCAD's output and IntraCED's pooled streams (student's or teacher's)."""

    @property
    def aggregated(self) -> Aggregated: ...
    @property
    def exchanged(self) -> Exchanged: ...


class Losses(NamedTuple):
    """Scalars: the task loss, the within-level and the across-level regularisers."""

    task: Tensor
    intra: Tensor
    inter: Tensor


def task_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.05) -> Tensor:
    """Cross-entropy over `[N, classes]`, labels int `[N]`."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L_task of a regression: `mean |y - t|` over `[N, K]`, targets float `[N, K]` (paper: reports MAE; its loss is not said).

    A target that is NaN is not known and does not count; with none known the loss is 0.
    """
    known = ~torch.isnan(target)
    # Replaced before the difference: the gradient of a masked NaN is still NaN.
    error = (predicted - torch.where(known, target, predicted.detach())).abs()
    return (error * known).sum() / known.sum().clamp_min(1)


def segment_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.05) -> Tensor:
    """L_task of per-segment localisation: cross-entropy over all segments of the batch that have a label.

    logits float `[B * S, classes]`, background among them; labels int `[B, S]` or `[B * S]`, `IGNORED` where a sample has no
    such segment. Every labelled segment weighs the same, so longer samples weigh more (this project). 0 if none has a label.
    """
    flat = labels.reshape(-1)
    total = F.cross_entropy(logits, flat, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (flat != IGNORED).sum().clamp_min(1)


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


def intra_loss(out: Fused) -> Tensor:
    """L_Intra: at each level, private streams of different modalities, and private against shared of one modality.

    mean over l of { xcorr(p_l^m, p_l^m') for m < m', xcorr(p_l^m, s_l^m) for m }, xcorr = `cross_correlation`.
    """
    shared, private, there = out.aggregated.shared, out.aggregated.private, out.exchanged.there
    levels, modalities = there.shape[1:]
    terms = []
    for level in range(levels):
        for m, other in combinations(range(modalities), 2):
            rows = there[:, level, m] & there[:, level, other]
            terms.append(cross_correlation(private[:, level, m], private[:, level, other], rows))
        terms += [
            cross_correlation(private[:, level, m], shared[:, level, m], there[:, level, m]) for m in range(modalities)
        ]
    return torch.stack(terms).mean()


def redundancy_loss(out: Fused) -> Tensor:
    """L_pr, private redundancy across levels: mean over l < l' and m of xcorr(p_l^m, p_l'^m)."""
    return _across_levels(out)[0]


def leakage_loss(out: Fused) -> Tensor:
    """L_sp, shared-private leakage across levels: mean over l < l' and m of xcorr(s_l^m, p_l'^m) and xcorr(p_l^m, s_l'^m)."""
    return _across_levels(out)[1]


def _across_levels(out: Fused) -> tuple[Tensor, Tensor]:
    """L_pr and L_sp in one walk. Its order is the order in which gradients add up, to the last bit: a run can be repeated."""
    shared, private, there = out.aggregated.shared, out.aggregated.private, out.exchanged.there
    redundancy, leakage = [], []
    for low, high in combinations(range(there.shape[1]), 2):
        for m in range(there.shape[2]):
            rows = there[:, low, m] & there[:, high, m]
            redundancy.append(cross_correlation(private[:, low, m], private[:, high, m], rows))
            leakage.append(cross_correlation(shared[:, low, m], private[:, high, m], rows))
            leakage.append(cross_correlation(private[:, low, m], shared[:, high, m], rows))
    return torch.stack(redundancy).mean(), torch.stack(leakage).mean()


def mixing_loss(level_weights: Tensor) -> Tensor:
    """L_mix = mean over the batch of sum over l != l' of c_ll' omega_l omega_l', c = |l - l'| / (L - 1).

    level_weights: omega, float `[N, L]`. The paper says "incompatible level pairs"; that distant ones are those is ours.
    """
    levels = level_weights.shape[1]
    index = torch.arange(levels, device=level_weights.device)
    cost = (index.unsqueeze(0) - index.unsqueeze(1)).abs().to(level_weights.dtype) / max(levels - 1, 1)
    return torch.einsum("nl,lk,nk->n", level_weights, cost, level_weights).mean()


def inter_loss(out: Fused) -> Tensor:
    """L_Inter = L_pr + L_sp + L_mix."""
    redundancy, leakage = _across_levels(out)
    return redundancy + leakage + mixing_loss(out.aggregated.level_weights)


def student_losses(out: Fused, labels: Tensor) -> Losses:
    """All three, from one forward pass."""
    return Losses(task_loss(out.aggregated.logits, labels), intra_loss(out), inter_loss(out))
