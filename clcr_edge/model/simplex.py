"""Euclidean projection on the capped simplex: IntraCED's token budget (arXiv 2602.19605; the sort-free form: this project).

    alpha = argmin ||alpha - a||   subject to   0 <= alpha <= 1,  sum(alpha) <= B

The solution is `clip(a - tau, 0, 1)`. `F(tau) = sum(clip(a - tau, 0, 1))` falls piecewise linearly with breakpoints
`{a_i} u {a_i - 1}`, so evaluating it at all 2W of them brackets tau exactly: no sort, no loop, about two dozen graph nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FAR = 1.0e4  # beyond every breakpoint
_TABLE = 64  # up to this many tokens the W x 2W table is the cheaper way; a student's window is never longer


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


def threshold_by_sorting(a: Tensor, budget: Tensor) -> Tensor:
    """The same tau for long sequences, in W log W: a teacher reads 500 audio tokens, and 500 x 1,000 tables are gigabytes."""
    points, order = torch.cat([a, a - 1.0], dim=-1).sort(dim=-1, descending=True)
    # Below a breakpoint a_i the sum starts to grow with that token; below a_i - 1 the token is full.
    slope = torch.where(order < a.shape[-1], 1.0, -1.0).to(a.dtype).cumsum(dim=-1)
    steps = (points[..., :-1] - points[..., 1:]) * slope[..., :-1]
    load = torch.cat([torch.zeros_like(points[..., :1]), steps.cumsum(dim=-1)], dim=-1)  # F, rising
    at = torch.searchsorted(load.contiguous(), budget.unsqueeze(-1).contiguous()).clamp(max=points.shape[-1] - 1)
    before = (at - 1).clamp_min(0)
    low, high, load_low, load_high = (x.gather(-1, i).squeeze(-1) for x in (points, load) for i in (at, before))
    tau = low + (high - low) * (load_low - budget) / (load_low - load_high).clamp_min(1e-12)
    fits = a.clamp(0.0, 1.0).sum(dim=-1) <= budget
    return torch.where(fits, 0.0, tau).clamp_min(0.0)


def project(a: Tensor, budget: Tensor) -> Tensor:
    """Project `a` on the capped simplex. a: float `[..., W]`, 0 where no token is; budget: float `[...]`, >= 0.

    Returns alpha: float `[..., W]`, 0..1, summing to at most the budget. Differentiable almost everywhere in both:
    tau is found without gradient, then written in closed form over the tokens that are neither 0 nor 1.
    """
    with torch.no_grad():
        tau = (threshold if a.shape[-1] <= _TABLE else threshold_by_sorting)(a, budget)
        shifted = a - tau.unsqueeze(-1)
        free = (shifted > 0.0) & (shifted < 1.0)
        full = (shifted >= 1.0).sum(dim=-1)
        count = free.sum(dim=-1)
        binds = (tau > 0.0) & (count > 0)
    closed = ((a * free).sum(dim=-1) + full - budget) / count.clamp_min(1)
    return (a - torch.where(binds, closed, tau).unsqueeze(-1)).clamp(0.0, 1.0)
