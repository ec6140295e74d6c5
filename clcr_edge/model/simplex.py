"""Euclidean projection on the capped simplex: IntraCED's token budget (arXiv 2602.19605; the sort-free form: this project).

    alpha = argmin ||alpha - a||   subject to   0 <= alpha <= 1,  sum(alpha) <= B

The solution is `clip(a - tau, 0, 1)`. `F(tau) = sum(clip(a - tau, 0, 1))` falls piecewise linearly with breakpoints
`{a_i} u {a_i - 1}`, so evaluating it at all 2W of them brackets tau exactly: no sort, no loop, about two dozen graph nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FAR = 1.0e4  # beyond every breakpoint


def threshold(a: Tensor, budget: Tensor) -> Tensor:
    """The tau of the projection. a: float `[..., W]`; budget: float `[...]`, >= 0. Returns float `[...]`, >= 0.

    Entries that do not exist must be 0 in `a`: with tau >= 0 they take nothing.
    """
    points = torch.cat([a, a - 1.0], dim=-1)  # [..., 2W]
    load = (a.unsqueeze(-1) - points.unsqueeze(-2)).clamp(0.0, 1.0).sum(dim=-2)  # F at every breakpoint
    limit = budget.unsqueeze(-1)
    above = load >= limit
    low = torch.where(above, points, -_FAR).amax(dim=-1)
    high = torch.where(above, _FAR, points).amin(dim=-1)
    load_low = torch.where(above, load, _FAR).amin(dim=-1)
    load_high = torch.where(above, -_FAR, load).amax(dim=-1)
    slope = (load_low - load_high).clamp_min(1e-12)
    tau = low + (high - low) * (load_low - budget) / slope
    fits = a.clamp(0.0, 1.0).sum(dim=-1) <= budget
    return torch.where(fits, 0.0, tau).clamp_min(0.0)


def project(a: Tensor, budget: Tensor) -> Tensor:
    """Project `a` on the capped simplex. a: float `[..., W]`, 0 where no token is; budget: float `[...]`, >= 0.

    Returns alpha: float `[..., W]`, 0..1, summing to at most the budget. Differentiable almost everywhere in both:
    tau is found without gradient, then written in closed form over the tokens that are neither 0 nor 1.
    """
    with torch.no_grad():
        tau = threshold(a, budget)
        shifted = a - tau.unsqueeze(-1)
        free = (shifted > 0.0) & (shifted < 1.0)
        full = (shifted >= 1.0).sum(dim=-1)
        count = free.sum(dim=-1)
        binds = (tau > 0.0) & (count > 0)
    closed = ((a * free).sum(dim=-1) + full - budget) / count.clamp_min(1)
    return (a - torch.where(binds, closed, tau).unsqueeze(-1)).clamp(0.0, 1.0)
