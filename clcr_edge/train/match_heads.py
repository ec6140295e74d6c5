"""Auxiliary heads for `digits-match`: which digit is known to be shown, or said, read from each modality's tokens alone.

Same or different teaches a network about digits only through their agreement, as hard a way to learn them as there is. So, as
in the training for digits, a linear head on each modality's mid-level and deep tokens asks for the digit itself, of every
variant alike; the heads are thrown away afterwards. What they ask for is known to one modality, so they say nothing of
whether two agree.
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

        levels: of each modality, in the network's order; seen, said: int64 `[B, T]`, as `known_digits` gives them.
        """
        terms = []
        for name, heads, own in zip(self.network.config.names, self.heads, levels, strict=True):
            known = seen if name == Modality.VISION.key else said
            assert isinstance(heads, nn.ModuleList)
            for head, tokens in zip(heads, own[1:], strict=True):
                due = (tokens.times[..., 1] * known.shape[1]).round().long().clamp(1, known.shape[1]) - 1
                if tokens.mask.any():
                    terms.append(F.cross_entropy(head(tokens.values)[tokens.mask], known.gather(1, due)[tokens.mask]))
        return torch.stack(terms).mean() if terms else seen.new_zeros((), dtype=torch.float32)
