"""The capped-simplex projection against a slow exact one, its gradient, and its edges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.model.simplex import project, threshold, threshold_by_sorting  # noqa: E402


def by_sorting(a: np.ndarray, budget: float) -> np.ndarray:  # type: ignore[type-arg]
    """The textbook way: sort all breakpoints, walk to the segment that holds the budget."""
    if np.clip(a, 0, 1).sum() <= budget:
        return np.clip(a, 0, 1)
    points = np.sort(np.concatenate([a, a - 1]))
    load = np.array([np.clip(a - p, 0, 1).sum() for p in points])
    i = int(np.flatnonzero(load >= budget)[-1])
    slope = (load[i] - load[i + 1]) / (points[i + 1] - points[i])
    tau = points[i] + (load[i] - budget) / slope
    return np.clip(a - tau, 0, 1)


def test_equals_the_textbook_projection() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        width = int(rng.integers(1, 33))
        a = rng.normal(rng.uniform(-1, 3), rng.uniform(0.05, 3), width)
        budget = float(rng.uniform(0.01, width))
        got = project(torch.from_numpy(a), torch.tensor(budget, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(got, by_sorting(a, budget), atol=1e-12)


def test_it_is_the_nearest_feasible_point() -> None:
    """No feasible point that a random search finds is nearer: the definition, not the formula."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, budget = rng.normal(1, 1, 6), float(rng.uniform(0.5, 4))
        best = project(torch.from_numpy(a), torch.tensor(budget, dtype=torch.float64)).numpy()
        assert best.sum() <= budget + 1e-9
        others = np.clip(best + rng.normal(0, 0.1, (2_000, 6)), 0, 1)
        others = others[others.sum(1) <= budget]
        assert (((others - a) ** 2).sum(1) >= ((best - a) ** 2).sum() - 1e-12).all()


def test_ties_zeros_and_a_budget_of_nothing() -> None:
    a = torch.tensor([2.0, 2.0, 2.0, 0.0], dtype=torch.float64)
    assert torch.allclose(project(a, torch.tensor(1.5, dtype=torch.float64)), torch.tensor([0.5, 0.5, 0.5, 0.0]).double())
    assert project(a, torch.tensor(0.0, dtype=torch.float64)).sum() < 1e-9
    assert threshold(torch.zeros(4), torch.tensor(0.0)) == 0.0


def test_gradient_matches_finite_differences() -> None:
    torch.manual_seed(0)
    a = (torch.randn(5, 9, dtype=torch.float64) * 2 + 1).requires_grad_()
    budget = torch.tensor([0.7, 2.0, 3.3, 5.0, 8.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, (a, budget), eps=1e-6, atol=1e-5)


def test_the_way_for_long_sequences_is_the_same_projection() -> None:
    torch.manual_seed(0)
    for width in (1, 5, 64):
        a = torch.randn(200, width, dtype=torch.float64) * 2 + 1
        a[:, width // 2 :] = 0.0  # tokens that are not there; ties
        budget = torch.rand(200, dtype=torch.float64) * width
        budget[0] = 0.0
        torch.testing.assert_close(threshold_by_sorting(a, budget), threshold(a, budget), atol=1e-10, rtol=0)
    rng = np.random.default_rng(2)
    a_long, limit = rng.normal(1, 1, 300), 120.0  # beyond the table: `project` itself takes this way
    got = project(torch.from_numpy(a_long), torch.tensor(limit, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(got, by_sorting(a_long, limit), atol=1e-12)
