"""(e) Convolution tokens cached as ours, textbook IntraCED recomputed over its windows each tick; and the KV cache.

`TokenCache` keeps the normalised tokens H and makes shared and private coordinates, queries, keys and values anew for the whole
window, then the attention output `[W, r]` of every token, then its mean: what the paper's equations say, batched over levels
and modalities. `KvCache` keeps queries, keys and values too, and only the exchange is the textbook's.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.export.step import StepState, initial_state
from clcr_edge.model.intra_ced import LEVELS, MODALITIES, Tokens
from clcr_edge.model.student import LevelMap, Student
from rivals.ours import StepWithoutCnn

Pooled = tuple[Tensor, Tensor, Tensor, Tensor]


class Textbook(nn.Module):
    """IntraCED as `clcr_edge.model.intra_ced` has it; only the bases are baked, as no exporter takes a live parametrisation."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        shared, private = student.intra_ced.bases.exact()
        self.ced = copy.deepcopy(student.intra_ced)
        self.ced.bases = nn.Identity()  # type: ignore[assignment]
        self.register_buffer("shared", shared.float().unsqueeze(1))
        self.register_buffer("private", private.float())
        norms = [[m.norm for m in row if isinstance(m, LevelMap)] for row in student.to_level]  # type: ignore[union-attr]
        self.register_buffer("gain", torch.stack([torch.stack([n.weight.detach() for n in row]) for row in norms]).unsqueeze(2))
        self.register_buffer("shift", torch.stack([torch.stack([n.bias.detach() for n in row]) for row in norms]).unsqueeze(2))

    def split(self, h: Tensor) -> Tokens:
        """H `[L, M, W, d]` -> the exchange's tokens."""
        shared = h @ self.shared
        return Tokens(
            shared @ self.ced.query, shared @ self.ced.key, shared @ self.ced.value, shared, h @ self.private,
            (shared.square().sum(dim=-1) + 1e-12).sqrt(),
        )  # fmt: skip

    def forward(self, tokens: Tokens, valid: Tensor, ages: Tensor) -> Pooled:
        made = self.ced(Tokens(*(x.unsqueeze(0) for x in tokens)), valid.unsqueeze(0), ages.unsqueeze(0))
        return tuple(x.squeeze(0) for x in made)  # type: ignore[return-value]


class TokenCache(StepWithoutCnn):
    """State: H and its validity, `[L, M, W, d + 1]`."""

    def __init__(self, student: Student) -> None:
        super().__init__(student)
        self.textbook = Textbook(student)

    def first_state(self) -> StepState:
        m = self.config.model
        return initial_state(self.config)._replace(tokens=torch.zeros(LEVELS, MODALITIES, m.window, m.width + 1))

    def _pack(self, x: Tensor, valid: Tensor, kind: str) -> Tensor:
        which = slice(0, 1) if kind == "words" else slice(1, None)
        gain, shift = self.textbook.gain[:, which], self.textbook.shift[:, which]  # type: ignore[index]
        if kind == "words":
            gain, shift = gain.squeeze(1), shift.squeeze(1)
        h = x @ getattr(self, f"level_{kind}") + getattr(self, f"level_bias_{kind}")
        return torch.cat([F.layer_norm(h, h.shape[-1:], eps=self.norm_eps) * gain + shift, valid], dim=-1)

    def _intra_ced(self, tokens: Tensor, valid: Tensor, ages: Tensor, r: int) -> Pooled:
        return self.textbook(self.textbook.split(tokens[..., :-1]), valid, ages)


class KvCache(StepWithoutCnn):
    """State: as ours, `[L, M, W, 4r + p + 2]`."""

    def __init__(self, student: Student) -> None:
        super().__init__(student)
        self.textbook = Textbook(student)

    def first_state(self) -> StepState:
        return initial_state(self.config)

    def _intra_ced(self, tokens: Tensor, valid: Tensor, ages: Tensor, r: int) -> Pooled:
        query, key, value, shared, private, rest = torch.split(tokens, [r, r, r, r, tokens.shape[-1] - 4 * r - 2, 2], dim=-1)
        scaled = query * r**0.5  # the packed query holds 1/sqrt(r) already
        return self.textbook(Tokens(scaled, key, value, shared, private, rest[..., 0]), valid, ages)
