"""Auxiliary heads that ask one modality's tokens for the digit itself: thrown away after the training.

Same or different teaches a network about digits only through their agreement, and noise hides what a label means. So a linear
head on mid-level and deep tokens asks for the digit that this modality shows or says, of every variant alike. What it asks for
is known to one modality, so it says nothing of whether two agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.data.match import UNKNOWN
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.model.teacher.tcn import LevelTokens
from clcr_edge.packets import Modality

_CLASSES = UNKNOWN + 1  # no digit is a class as well


class WithHeads(nn.Module):
    """A network and its auxiliary heads."""

    def __init__(self, network: Teacher) -> None:
        super().__init__()
        self.network = network
        widths = [m.width for _, m in network.config.modalities]
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(w, _CLASSES) for _ in range(2)) for w in widths)

    def digit_loss(self, levels: list[list[LevelTokens]], seen: Tensor, said: Tensor) -> Tensor:
        """Cross-entropy of the digit known at the end of each token, mean over heads.

        levels: of each modality, in the network's order; seen, said: int64 `[B, T]`, `UNKNOWN` where there is none.
        """
        terms: list[Tensor] = []
        for name, heads, own in zip(self.network.config.names, self.heads, levels, strict=True):
            assert isinstance(heads, nn.ModuleList)
            terms += token_losses(heads, own, seen if name == Modality.VISION.key else said)
        return torch.stack(terms).mean() if terms else seen.new_zeros((), dtype=torch.float32)


def token_losses(heads: nn.ModuleList, levels: list[LevelTokens], known: Tensor) -> list[Tensor]:
    """Cross-entropy of the digit known at the end of each mid-level and deep token of one modality, for each level that has
    any. known: int64 `[B, T]`, a class for every tick."""
    terms = []
    for head, tokens in zip(heads, levels[1:], strict=True):
        due = (tokens.times[..., 1] * known.shape[1]).round().long().clamp(1, known.shape[1]) - 1
        if tokens.mask.any():
            terms.append(F.cross_entropy(head(tokens.values)[tokens.mask], known.gather(1, due)[tokens.mask]))
    return terms
