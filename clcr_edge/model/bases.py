"""Jointly orthonormal shared and private bases (IntraCED's Stiefel parametrisation; jointly: this project).

The private basis of every modality lives in the orthogonal complement of the level's shared basis, so a change in a private
component cannot move any other modality's stream: law 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class JointBases(nn.Module):
    """Bases of all levels: `U_l^sh` (one for all modalities) and `U_{l,m}^pr`.

    `forward()` gives shared `[L, d, r]` and private `[L, M, d, p]`, float32, with `[U_l^sh | U_{l,m}^pr]` orthonormal.
    """

    def __init__(self, levels: int, modalities: int, width: int, shared: int, private: int) -> None:
        super().__init__()
        self.shared_rank = shared
        # One rotation per level, cut into the shared basis and its complement ...
        self.frame = nn.Linear(width, width, bias=False)
        self.frame.weight = nn.Parameter(torch.randn(levels, width, width))
        # ... and, inside the complement, one private basis per modality.
        rest = width - shared
        self.inner = nn.Linear(rest, private, bias=False)
        self.inner.weight = nn.Parameter(torch.randn(levels, modalities, rest, private))
        # Householder, not the matrix exponential: a fifth of the time here, and exact at every step.
        parametrizations.orthogonal(self.frame, orthogonal_map="householder")
        parametrizations.orthogonal(self.inner, orthogonal_map="householder")

    def forward(self) -> tuple[Tensor, Tensor]:
        frame = self.frame.weight
        shared, rest = frame[..., : self.shared_rank], frame[..., self.shared_rank :]
        return shared, rest.unsqueeze(1) @ self.inner.weight

    @torch.no_grad()
    def exact(self) -> tuple[Tensor, Tensor]:
        """The same bases in float64, made orthonormal again by QR: fp32 leaves 5e-7, which export must not bake in."""
        shared, private = (basis.double() for basis in self.forward())
        # All modalities must keep ONE shared basis: orthonormalise it first, then each private part against it.
        shared = _qr(shared)
        for _ in range(2):  # once is not enough in floating point
            private = _qr(private - shared.unsqueeze(1) @ (shared.mT.unsqueeze(1) @ private))
        return shared, private


def _qr(basis: Tensor) -> Tensor:
    q, r = torch.linalg.qr(basis)
    signed: Tensor = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1)).unsqueeze(-2)
    return signed
