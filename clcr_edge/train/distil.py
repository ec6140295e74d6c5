"""What a student learns from its teacher, term by term (this project: the paper does not distil).

    L = task_w L_task + regularisers + logits_w L_logits + shared_w L_shared + private_w L_private
        + level_weights_w L_omega + participation_w L_alpha

Both look at the same samples, or at the same ticks of the same streams; each term reads only what both have.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.errors import UsageError
from clcr_edge.model.losses import Fused
from clcr_edge.model.teacher.config import TeacherConfig
from clcr_edge.model.teacher.variants import Aggregation, Exchange
from clcr_edge.train.settings import DistilConfig


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """L_logits = T^2 mean KL(softmax(t / T) || softmax(s / T)), logits `[N, classes]` (Hinton et al., arXiv 1503.02531).

    T^2 keeps the gradient's size independent of T.
    """
    told = F.log_softmax(teacher / temperature, dim=-1)
    said = F.log_softmax(student / temperature, dim=-1)
    return F.kl_div(said, told, reduction="batchmean", log_target=True) * temperature**2


def value_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_logits of a regression: mean |s - t|, `[N, K]` each, as its task loss."""
    return (student - teacher).abs().mean()


def summary_loss(student: Tensor, teacher: Tensor, both: Tensor, maps: Tensor) -> Tensor:
    """L_shared and L_private: mean over rows, levels and modalities that both have of mean_k (s_l^m A_l^m - t_l^m)_k^2.

    student `[N, L, M, r]`, teacher `[N, L, M, q]`, both bool `[N, L, M]`, maps A `[L, M, r, q]`, learned and thrown away
    afterwards (FitNets, Romero et al., arXiv 1412.6550). There is one for each level and modality, also where r = q: the
    coordinates of two networks' bases have nothing to do with each other. The summaries are layer-normed: no scale is needed.
    """
    error = (torch.einsum("nlmr,lmrq->nlmq", student, maps) - teacher).square().mean(dim=-1)
    return torch.where(both, error, 0.0).sum() / both.sum().clamp_min(1)


def level_weight_loss(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
    """L_omega = mean over rows of KL(omega_t || omega_s), `[N, L]` each; rows: bool `[N]`, where both have all levels."""
    told, said = teacher[rows].clamp_min(1e-6), student[rows].clamp_min(1e-6)
    return (told * (told.log() - said.log())).sum() / rows.sum().clamp_min(1)


def participation_loss(student: Tensor, teacher: Tensor, both: Tensor) -> Tensor:
    """L_alpha = mean over rows, levels and modalities that both have of (a_s - a_t)^2: shares of tokens, `[N, L, M]` each.

    The shares, not each token: teacher and student have other tokens, and every one of theirs has its own weight.
    """
    return torch.where(both, (student - teacher).square(), 0.0).sum() / both.sum().clamp_min(1)


class Maps(nn.Module):
    """The linear maps from the student's summaries to the teacher's, `[L, M, r, q]` for shared and private."""

    def __init__(self, levels: int, modalities: int, student: tuple[int, int], teacher: tuple[int, int]) -> None:
        super().__init__()

        def made(r: int, q: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(levels, modalities, r, q) / math.sqrt(r))

        self.shared, self.private = made(student[0], teacher[0]), made(student[1], teacher[1])


class Guide:
    """A teacher's part in the loss. modalities: the student's, in its order; ranks: its (shared, private).

    What a variant of the teacher does not decide cannot be learned from it: late fusion gives its logits only, `no-intercad` no
    level weights, and only a budgeted exchange a participation. Raises `UsageError` where the two have other modalities.
    """

    def __init__(
        self, teacher: TeacherConfig, modalities: tuple[str, ...], ranks: tuple[int, int], config: DistilConfig, levels: int = 3
    ) -> None:
        if teacher.names != modalities:
            raise UsageError(
                f"the teacher reads {', '.join(teacher.names)}, the student {', '.join(modalities)}; train a teacher of those"
            )
        switches = teacher.switches
        late = switches.aggregation is Aggregation.LATE
        self.regression = teacher.task == "regression"
        self.config = config
        self.weights = {
            "logits": config.logits,
            "shared": 0.0 if late else config.shared,
            "private": 0.0 if late else config.private,
            "level_weights": config.level_weights if switches.aggregation is Aggregation.INTER_CAD else 0.0,
            "participation": 0.0 if late or switches.exchange is not Exchange.BUDGETED else config.participation,
        }
        self.maps = Maps(levels, len(modalities), ranks, (teacher.rank_shared, teacher.rank_private))

    def terms(self, student: Fused, teacher: Fused, rows: Tensor) -> dict[str, Tensor]:
        """The terms that count, before their weights; scalars. rows: bool `[N]`, the rows that were asked about."""
        s, t = student.aggregated, teacher.aggregated
        both = student.exchanged.there & teacher.exchanged.there & rows[:, None, None]
        found: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            if not weight:
                continue
            if name == "logits":
                pair = s.logits[rows], t.logits[rows]
                found[name] = value_loss(*pair) if self.regression else logit_loss(*pair, self.config.temperature)
            elif name == "shared":
                found[name] = summary_loss(s.shared, t.shared, both, self.maps.shared)
            elif name == "private":
                found[name] = summary_loss(s.private, t.private, both, self.maps.private)
            elif name == "level_weights":
                whole = student.exchanged.there.any(dim=2).all(dim=1) & teacher.exchanged.there.any(dim=2).all(dim=1)
                found[name] = level_weight_loss(s.level_weights, t.level_weights, whole & rows)
            else:
                found[name] = participation_loss(student.exchanged.participation, teacher.exchanged.participation, both)
        return found

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
