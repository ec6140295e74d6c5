"""Every loss: its value by hand, its gradient against finite differences, and its edges."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.model.inter_cad import Aggregated  # noqa: E402
from clcr_edge.model.intra_ced import Exchanged  # noqa: E402
from clcr_edge.model.losses import (  # noqa: E402
    IGNORED,
    cross_correlation,
    inter_loss,
    intra_loss,
    leakage_loss,
    mixing_loss,
    redundancy_loss,
    regression_loss,
    segment_loss,
    task_loss,
)
from clcr_edge.model.student import StudentOutput  # noqa: E402

L, M, R, P = 3, 3, 4, 3


def fused(shared, private, there, omega=None) -> StudentOutput:
    """An output with these summaries; the rest is of no matter to the regularisers."""
    n = len(shared)
    omega = torch.full((n, shared.shape[1]), 1 / shared.shape[1], dtype=shared.dtype) if omega is None else omega
    nothing = shared.new_zeros(n, shared.shape[2])
    aggregated = Aggregated(shared.new_zeros(n, 2), omega, nothing, nothing, shared, private)
    return StudentOutput(aggregated, Exchanged(shared, private, shared.new_zeros(there.shape), there))


def summaries(n: int, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shared, private = (torch.randn(n, L, M, k, generator=generator, dtype=dtype) for k in (R, P))
    return shared, private, torch.ones(n, L, M, dtype=torch.bool)


class TestTask:
    def test_regression_is_the_mean_absolute_error_of_what_is_known(self) -> None:
        predicted = torch.tensor([[1.0, 5.0], [2.0, 0.0]], requires_grad=True)
        target = torch.tensor([[0.0, float("nan")], [4.0, 1.0]])
        loss = regression_loss(predicted, target)
        assert loss.item() == pytest.approx((1 + 2 + 1) / 3)
        loss.backward()
        torch.testing.assert_close(predicted.grad, torch.tensor([[1 / 3, 0.0], [-1 / 3, -1 / 3]]))
        assert regression_loss(predicted, target * float("nan")).item() == 0.0

    def test_segments_count_where_they_have_a_label_and_each_the_same(self) -> None:
        logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
        labels = torch.tensor([[0, 3, IGNORED], [1, IGNORED, IGNORED]])
        by_hand = -torch.log_softmax(logits, -1)[[0, 1, 3], [0, 3, 1]].mean()
        assert segment_loss(logits, labels, smoothing=0.0).item() == pytest.approx(by_hand.item())
        segment_loss(logits, labels).backward()
        assert (logits.grad[[2, 4, 5]] == 0).all()
        assert (logits.grad[[0, 1, 3]] != 0).all()
        assert segment_loss(logits, labels * 0 + IGNORED).item() == 0.0
        full = torch.tensor([0, 3, 1, 1, 2, 0])
        assert segment_loss(logits, full).item() == pytest.approx(task_loss(logits, full).item())

    def test_gradients(self) -> None:
        torch.manual_seed(0)
        logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
        labels = torch.tensor([0, 2, IGNORED, 1])
        target = torch.randn(4, 3, dtype=torch.float64)
        target[1, 1] = float("nan")
        assert torch.autograd.gradcheck(lambda x: segment_loss(x, labels), (logits,))
        assert torch.autograd.gradcheck(lambda x: regression_loss(x, target), (logits,))


class TestRegularisers:
    @pytest.mark.parametrize("loss", [intra_loss, redundancy_loss, leakage_loss, inter_loss])
    @pytest.mark.parametrize("missing", [False, True])
    def test_gradients_match_finite_differences(self, loss, missing) -> None:
        shared, private, there = summaries(5)
        if missing:
            there[1, :, 0] = False
            there[3, 2] = False
        omega = torch.softmax(torch.randn(5, L, dtype=torch.float64), -1)

        def of(s, p, w):
            return loss(fused(s, p, there, w))

        inputs = tuple(x.requires_grad_() for x in (shared, private, omega))
        assert torch.autograd.gradcheck(of, inputs, eps=1e-6, atol=1e-6, fast_mode=True)

    def test_gradient_of_the_mixing_loss(self) -> None:
        omega = torch.rand(4, L, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(mixing_loss, (omega,))

    def test_mixing_by_hand(self) -> None:
        omega = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
        # One level alone: 0. Neighbours: 2 x 1/2 x 1/4. The ends: 2 x 1 x 1/4.
        assert mixing_loss(omega).item() == pytest.approx((0 + 0.25 + 0.5) / 3)
        assert mixing_loss(torch.ones(2, 1)).item() == 0.0

    @staticmethod
    def losses(shared, private, there):
        out = fused(shared, private, there)
        return {f.__name__: f(out).item() for f in (intra_loss, redundancy_loss, leakage_loss)}

    def test_each_sees_its_own_kind_of_correlation_and_no_other(self) -> None:
        """Plant one correlation at a time among independent streams of 20,000 rows: only the loss that is for it rises."""
        shared, private, there = summaries(20_000)
        base = self.losses(shared, private, there)
        assert all(v < 1e-3 for v in base.values())
        planted = {}

        def plant(name, change) -> None:
            s, p = shared.clone(), private.clone()
            change(s, p)
            planted[name] = {k for k, v in self.losses(s, p, there).items() if v > 1e-2}

        def across_modalities(s, p) -> None:
            p[:, 1, 0] = p[:, 1, 2]

        def shared_private(s, p) -> None:
            p[:, 1, 0] = s[:, 1, 0, :P]

        def across_levels(s, p) -> None:
            p[:, 2, 1] = p[:, 0, 1]

        def leak_across_levels(s, p) -> None:
            p[:, 2, 1] = s[:, 0, 1, :P]

        def leak_the_other_way(s, p) -> None:
            p[:, 0, 1] = s[:, 2, 1, :P]

        def shared_across_modalities(s, p) -> None:
            s[:, 1, 0] = s[:, 1, 2]  # what the method wants: nobody may punish it

        plant("private-private", across_modalities)
        plant("private-shared", shared_private)
        plant("redundancy", across_levels)
        plant("leakage up", leak_across_levels)
        plant("leakage down", leak_the_other_way)
        plant("shared-shared", shared_across_modalities)
        assert planted == {
            "private-private": {"intra_loss"},
            "private-shared": {"intra_loss"},
            "redundancy": {"redundancy_loss"},
            "leakage up": {"leakage_loss"},
            "leakage down": {"leakage_loss"},
            "shared-shared": set(),
        }

    def test_whitening_forgets_scale_and_offset(self) -> None:
        torch.manual_seed(0)
        a, b = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
        rows = torch.ones(50, dtype=torch.bool)
        moved = cross_correlation(a * torch.tensor([10.0, 3.0, 50.0]) + 7.0, b, rows)
        assert moved.item() == pytest.approx(cross_correlation(a, b, rows).item(), rel=1e-3)

    def test_rows_that_are_not_there_do_not_count(self) -> None:
        shared, private, there = summaries(6)
        there[4:, :, 1] = False
        before = inter_loss(fused(shared, private, there)) + intra_loss(fused(shared, private, there))
        shared[4:, :, 1], private[4:, :, 1] = 1e3, -1e3
        after = inter_loss(fused(shared, private, there)) + intra_loss(fused(shared, private, there))
        assert after.item() == pytest.approx(before.item(), abs=1e-12)

    @pytest.mark.parametrize("n", [1, 2])
    def test_tiny_batches_and_constant_streams_are_finite(self, n) -> None:
        for make in (torch.zeros, torch.ones, torch.randn):
            shared, private = (make(n, L, M, k).requires_grad_() for k in (R, P))
            there = torch.ones(n, L, M, dtype=torch.bool)
            there[0, :, 2] = False
            total = intra_loss(fused(shared, private, there)) + inter_loss(fused(shared, private, there))
            total.backward()
            assert math.isfinite(total.item())
            assert torch.isfinite(shared.grad).all()
            assert torch.isfinite(private.grad).all()
        if n == 1:
            assert intra_loss(fused(shared, private, there)).item() == 0.0, "one row says nothing about correlation"

    def test_one_modality_alone_has_still_its_own_terms(self) -> None:
        shared, private, there = (x[:, :, :1] for x in summaries(40))
        out = fused(shared.clone(), private.clone(), there)
        assert math.isfinite(intra_loss(out).item())
        assert math.isfinite(inter_loss(out).item())
        assert intra_loss(fused(shared, shared[..., :P], there)) > 10 * intra_loss(out) / 4
