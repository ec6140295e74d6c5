"""IntraCED, the intra-level co-exchange domain (arXiv 2602.19605, section "IntraCED").

At each level every token is split into shared and private coordinates; evidence decides which tokens may take part; those
query the shared tokens of the other modalities. Here all levels and modalities run as one batch:

    tokens H [N, L, M, W, d]  --bases-->  shared [.., r], private [.., p]
    evidence ||shared||  --budget-->  alpha [.., W]
    shared + alpha * Attn(Q^m, K^-m, V^-m)  --mean over valid tokens-->  [N, L, M, r]

Deviations from the paper (this project): jointly orthonormal bases; a residual around the exchange, or a lone modality would
have nothing; the budget is a share of the *valid* tokens; time enters as a bias on age differences, never as a position.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.model.bases import JointBases
from clcr_edge.model.simplex import project

LEVELS, MODALITIES = 3, 3  # the student's; a teacher may have any number of modalities
MASKED = -3.0e4  # a score no real one reaches, inside fp16's range; exp() of it is exactly 0


class Tokens(NamedTuple):
    """What IntraCED needs of each token, made once when it enters a window: floats `[..., W, r or p]`, evidence `[..., W]`."""

    query: Tensor
    key: Tensor
    value: Tensor
    shared: Tensor
    private: Tensor
    evidence: Tensor


class Exchanged(NamedTuple):
    """IntraCED's pooled streams. shared `[N, L, M, r]`, private `[N, L, M, p]`, participation `[N, L, M]` 0..1, there bool."""

    shared: Tensor
    private: Tensor
    participation: Tensor
    there: Tensor


class TokenShape(Protocol):
    """What IntraCED must know of a configuration: the common width d and the two ranks."""

    @property
    def width(self) -> int: ...
    @property
    def rank_shared(self) -> int: ...
    @property
    def rank_private(self) -> int: ...


class IntraCED(nn.Module):
    """Split, budget, exchange, pool; all levels and modalities at once.

    tick_s: seconds per unit of age. gain, theta: where the evidence's scale and threshold start; they fit d = 64, r = 24.
    """

    def __init__(
        self,
        config: TokenShape,
        tick_s: float,
        levels: int = LEVELS,
        modalities: int = MODALITIES,
        gain: float = 1.8,
        theta: float = 7.0,
    ) -> None:
        super().__init__()
        d, r, p = config.width, config.rank_shared, config.rank_private
        self.tick_s = tick_s
        self.bases = JointBases(levels, modalities, d, r, p)
        # Inside the shared subspace only: [L, M, r, r].
        self.query, self.key, self.value = (
            nn.Parameter(torch.randn(levels, modalities, r, r) / math.sqrt(r)) for _ in range(3)
        )
        # a~ = g * evidence - theta. Evidence is concentrated at the start (spread 0.56), so g begins near 1 / spread.
        self.gain = nn.Parameter(torch.full((levels, modalities), _inverse_softplus(gain)))
        self.theta = nn.Parameter(torch.full((levels, 1), theta))
        # rho = sigmoid(b), started at the paper's best participation rate.
        self.budget = nn.Parameter(torch.full((levels, modalities), math.log(0.68 / 0.32)))
        # Score bias -slope * |age_q - age_k - lag|, ages in seconds; [L, query's modality, key's modality].
        self.slope = nn.Parameter(torch.full((levels, modalities, modalities), _inverse_softplus(0.5)))
        self.lag = nn.Parameter(torch.zeros(levels, modalities, modalities))

    def split(self, h: Tensor, level: int, modality: int, bases: tuple[Tensor, Tensor]) -> Tokens:
        """Normalised level tokens `[..., d]` -> everything the exchange needs of them. bases: of `self.bases()`."""
        shared = h @ bases[0][level]
        return Tokens(
            query=shared @ self.query[level, modality],
            key=shared @ self.key[level, modality],
            value=shared @ self.value[level, modality],
            shared=shared,
            private=h @ bases[1][level, modality],
            # The small constant keeps the gradient finite at zero.
            evidence=(shared.square().sum(dim=-1) + 1e-12).sqrt(),
        )

    def alpha(self, evidence: Tensor, valid: Tensor) -> Tensor:
        """How much each token may take part: evidence `[N, L, M, W]`, valid bool -> `[N, L, M, W]`, 0..1."""
        a = F.softplus(self.gain).unsqueeze(-1) * evidence - self.theta.unsqueeze(-1)
        budget = torch.sigmoid(self.budget) * valid.sum(dim=-1)
        return torch.where(valid, project(torch.where(valid, a, 0.0), budget), 0.0)

    def score_bias(self, age_s: Tensor) -> Tensor:
        """Time's part of the scores: ages `[N, L, M, W]` in seconds -> `[N, L, M*W, M*W]`."""
        n, levels, m, w = age_s.shape
        flat = age_s.reshape(n, levels, m * w)
        delta = flat.unsqueeze(-1) - flat.unsqueeze(-2)
        slope = F.softplus(self.slope).repeat_interleave(w, 1).repeat_interleave(w, 2)
        lag = self.lag.repeat_interleave(w, 1).repeat_interleave(w, 2)
        return -slope * (delta - lag).abs()

    def exchange(self, tokens: Tokens, valid: Tensor, age_ticks: Tensor, alpha: Tensor) -> Tensor:
        """shared + alpha * Attn(Q^m, K^-m, V^-m): the tokens of `forward`, alpha `[N, L, M, W]` -> `[N, L, M, W, r]`."""
        n, levels, m, w = valid.shape
        r = tokens.query.shape[-1]
        query, key, value = (x.reshape(n, levels, m * w, r) for x in tokens[:3])
        scores = query @ key.mT / math.sqrt(r) + self.score_bias(age_ticks * self.tick_s)
        own = torch.arange(m, device=valid.device).repeat_interleave(w)
        allowed = (own.unsqueeze(1) != own.unsqueeze(0)) & valid.reshape(n, levels, 1, m * w)
        weights = torch.softmax(scores.masked_fill(~allowed, MASKED), dim=-1) * allowed  # an empty pool gives zero
        taken = (weights @ value).reshape(n, levels, m, w, r)
        return tokens.shared + alpha.unsqueeze(-1) * taken

    def forward(self, tokens: Tokens, valid: Tensor, age_ticks: Tensor) -> Exchanged:
        """tokens: fields `[N, L, M, W, ...]`; valid: bool `[N, L, M, W]`; age_ticks: float, same shape, ticks before now."""
        alpha = self.alpha(tokens.evidence, valid)
        stream = self.exchange(tokens, valid, age_ticks, alpha)
        count = valid.sum(dim=-1).clamp_min(1)

        def pool(x: Tensor) -> Tensor:
            return torch.where(valid.unsqueeze(-1), x, 0.0).sum(dim=-2) / count.unsqueeze(-1)

        return Exchanged(pool(stream), pool(tokens.private), alpha.sum(dim=-1) / count, valid.any(dim=-1))


def _inverse_softplus(x: float) -> float:
    return math.log(math.expm1(x))
