"""Bases, losses, weight decay, the student's size: what training relies on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.model.bases import JointBases  # noqa: E402
from clcr_edge.model.losses import cross_correlation, inter_loss, intra_loss  # noqa: E402
from clcr_edge.model.student import parameter_count  # noqa: E402
from clcr_edge.train.loop import decay_groups  # noqa: E402


def _joint_error(shared, private) -> float:  # type: ignore[no-untyped-def]
    levels, modalities = private.shape[:2]
    joint = torch.cat([shared.unsqueeze(1).expand(-1, modalities, -1, -1), private], -1)
    eye = torch.eye(joint.shape[-1], dtype=joint.dtype).expand(levels, modalities, -1, -1)
    return float((joint.mT @ joint - eye).abs().max().detach())


def test_bases_stay_jointly_orthonormal_through_training_steps() -> None:
    """Also under AdamW with weight decay: that once turned the whole basis to zero, without an error."""
    torch.manual_seed(0)
    bases = JointBases(3, 3, 64, 24, 24)
    optimiser = torch.optim.AdamW(decay_groups(bases, 0.1), lr=0.01)
    for _ in range(5):
        shared, private = bases()
        optimiser.zero_grad()
        ((shared * torch.randn_like(shared)).sum() + (private * torch.randn_like(private)).sum()).backward()
        optimiser.step()
    assert _joint_error(*bases()) < 5e-6
    assert _joint_error(*bases.exact()) < 1e-14
    for exact, live in zip(bases.exact(), bases(), strict=True):
        assert float((exact - live).abs().max().detach()) < 5e-6, "the exact bases must be the trained ones"


def test_parameters_are_between_0_3_and_1_million(student) -> None:  # type: ignore[no-untyped-def]
    assert 300_000 <= parameter_count(student) <= 1_000_000


def test_cross_correlation_of_equal_and_of_independent_streams() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4_000, 6, generator=generator), torch.randn(4_000, 6, generator=generator)
    rows = torch.ones(4_000, dtype=torch.bool)
    assert cross_correlation(a, a, rows) == pytest.approx(1 / 6, abs=0.01)  # the identity's mean square
    assert cross_correlation(a, b, rows) < 1e-3
    assert cross_correlation(a, b, rows & False) == 0.0


def test_regularisers_are_finite_and_have_gradients_in_a_batch_of_two(student) -> None:  # type: ignore[no-untyped-def]
    from clcr_edge.model.intra_ced import Exchanged
    from clcr_edge.model.student import StudentOutput

    there = torch.ones(2, 3, 3, dtype=torch.bool)
    there[1, :, 0] = False  # a missing modality
    shared, private = torch.randn(2, 3, 3, 24, requires_grad=True), torch.randn(2, 3, 3, 24, requires_grad=True)
    exchanged = Exchanged(shared, private, torch.ones(2, 3, 3), there)
    out = StudentOutput(student.inter_cad(exchanged), exchanged)
    total = intra_loss(out) + inter_loss(out)
    total.backward()
    assert torch.isfinite(total)
    for leaf in (shared, private):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().sum() > 0
