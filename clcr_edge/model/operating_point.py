"""How sure the network must be before it says anything: numbers added to the logits, by what is there (this project).

    logits' = logits + alone[m]      where m is the only modality that is there
    logits' = logits + together      elsewhere

Zero until `clcr_edge.train.operating_point` sets them in validation; nothing in training moves them. They are apart from the
head's bias because a modality that is alone errs in its own way: vision says too little, sound too much.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OperatingBias(nn.Module):
    """together: float `[classes]`; alone: float `[M, classes]`."""

    together: Tensor
    alone: Tensor

    def __init__(self, classes: int, modalities: int) -> None:
        super().__init__()
        self.register_buffer("together", torch.zeros(classes))
        self.register_buffer("alone", torch.zeros(modalities, classes))

    def forward(self, logits: Tensor, there: Tensor) -> Tensor:
        """logits float `[N, classes]`; there bool `[N, L, M]`, what each level holds -> float `[N, classes]`."""
        present = there.any(dim=1).to(logits.dtype)  # [N, M]
        only = present.sum(dim=1, keepdim=True) < 1.5
        return logits + torch.where(only, present @ self.alone, self.together)
