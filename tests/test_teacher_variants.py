"""Each ablation changes exactly what its name says, and nothing else."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from teachers import CHANNELS, stir, tiny_config, tiny_inputs, tiny_teacher, without  # noqa: E402

from clcr_edge.model.teacher.inputs import Sequence  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.objective import teacher_losses  # noqa: E402
from clcr_edge.model.teacher.variants import VARIANTS, Exchange, Variant  # noqa: E402

NAMES = ("no-hierarchy", "no-intraced", "no-intercad", "shuffled-levels", "no-regularisers", "dense-exchange", "late-fusion")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def full() -> Teacher:
    return tiny_teacher()


def like(full: Teacher, variant: str) -> Teacher:
    """The variant with the full teacher's own weights, wherever it has such."""
    teacher = Teacher(tiny_config(variant=variant)).eval()
    theirs = full.state_dict()
    teacher.load_state_dict({name: theirs[name] for name in teacher.state_dict()})
    return teacher


def streams(teacher: Teacher, inputs):
    with torch.no_grad():
        return teacher(inputs)


def louder(inputs, name: str):
    s = inputs[name]
    return inputs | {name: Sequence(s.values * 1.7 + 0.5, s.mask, s.times)}


def moved(teacher: Teacher, name: str, other: int) -> float:
    """How far another modality's pooled streams move when one modality's input changes."""
    inputs = tiny_inputs(2)
    a, b = (streams(teacher, x).exchanged for x in (inputs, louder(inputs, name)))
    return max(float((x - y)[:, :, other].abs().max()) for x, y in ((a.shared, b.shared), (a.private, b.private)))


def test_the_registry_has_the_seven_and_each_differs_from_full_in_one_switch() -> None:
    assert tuple(VARIANTS) == ("full", *NAMES)
    full = VARIANTS["full"]
    for name in NAMES:
        variant = VARIANTS[name]
        fields = ("levels", "exchange", "aggregation", "regularisers")
        changed = [f for f in fields if getattr(variant, f) != getattr(full, f)]
        # Late fusion has no shared and private streams that a regulariser could read.
        assert len(changed) == (2 if name == "late-fusion" else 1), name
    assert Variant("x").exchange is Exchange.BUDGETED


@pytest.mark.parametrize("name", NAMES[:6])
def test_all_but_late_fusion_are_the_full_network_with_the_same_weights(full, name) -> None:
    """So a variant may begin from the same weights; only no-intercad lacks some (those that decide the weights)."""
    lacks = set(full.state_dict()) - set(like(full, name).state_dict())
    deciding = ("anchors", "level_score", "context", "modality_key", "norm_gate", "gate")
    assert bool(lacks) == (name == "no-intercad")
    assert all(key.startswith("inter_cad.") and key.split(".")[1].startswith(deciding) for key in lacks)


class TestHierarchy:
    @torch.no_grad()
    def test_no_hierarchy_every_level_reads_the_deep_features(self, full) -> None:
        inputs = tiny_inputs(2)
        levels = full.encode(inputs)
        plain, flat = full.arrange(levels), like(full, "no-hierarchy").arrange(levels)
        for own, deep in zip(plain, flat, strict=True):
            assert all(given is own[-1] for given in deep)
            assert own[0].values.shape[1] > own[2].values.shape[1], "the full network has three grids"

    @torch.no_grad()
    def test_shuffled_levels_permutes_which_features_meet(self, full) -> None:
        levels = full.encode(tiny_inputs(2))
        mixed = like(full, "shuffled-levels").arrange(levels)
        met = [[next(i for i in range(3) if mixed[m][level] is levels[m][i]) for m in range(3)] for level in range(3)]
        assert met == [[0, 1, 2], [1, 2, 0], [2, 0, 1]], "at no level do two modalities meet on the same level"
        assert all(sorted(column) == [0, 1, 2] for column in zip(*met, strict=True)), "each level of each is used once"

    def test_the_exchange_sees_it(self, full) -> None:
        inputs = tiny_inputs(2)
        base = streams(full, inputs).exchanged.private
        flat, mixed = (streams(like(full, n), inputs).exchanged.private for n in ("no-hierarchy", "shuffled-levels"))
        assert torch.allclose(flat[:, 2], base[:, 2], atol=1e-5), "the deep level had the deep features before"
        assert not torch.allclose(flat[:, 0], base[:, 0], atol=1e-2)
        assert torch.allclose(mixed[:, :, 0], base[:, :, 0], atol=1e-5), "the first modality stays where it was"
        assert not torch.allclose(mixed[:, :, 1], base[:, :, 1], atol=1e-2)


class TestExchange:
    def test_without_intraced_no_modality_moves_anothers_streams_exactly(self, full) -> None:
        """By perturbation; and the same perturbation does move them in the full network."""
        alone = like(full, "no-intraced")
        for i, name in enumerate(CHANNELS):
            for other in {0, 1, 2} - {i}:
                assert moved(alone, name, other) == 0.0
                assert moved(full, name, other) > 1e-4
            assert moved(alone, name, i) > 1e-2

    def test_without_intraced_nothing_takes_part_and_private_streams_stay(self, full) -> None:
        inputs = tiny_inputs(2)
        base, alone = streams(full, inputs).exchanged, streams(like(full, "no-intraced"), inputs).exchanged
        assert (alone.participation == 0).all()
        assert torch.equal(alone.private, base.private)
        assert not torch.allclose(alone.shared, base.shared, atol=1e-3)

    def test_in_dense_exchange_every_token_takes_part_fully(self, full) -> None:
        inputs = tiny_inputs(3) | {"audio": without(tiny_inputs(3)["audio"], 1)}
        base, dense = streams(full, inputs).exchanged, streams(like(full, "dense-exchange"), inputs).exchanged
        torch.testing.assert_close(dense.participation, dense.there.float())
        assert float(base.participation[base.there].max()) < 0.69
        assert torch.equal(dense.private, base.private)

    @torch.no_grad()
    def test_dense_exchange_is_full_with_a_budget_for_all_and_no_threshold(self, full) -> None:
        """The switch turns the budget off and nothing else."""
        open_handed = like(full, "no-regularisers")  # a full network of its own
        for ced in open_handed.intra_ced:
            ced.budget.fill_(50.0)
            ced.theta.fill_(-50.0)
        inputs = tiny_inputs(2)
        a, b = streams(open_handed, inputs).exchanged, streams(like(full, "dense-exchange"), inputs).exchanged
        torch.testing.assert_close(a.shared, b.shared, atol=1e-5, rtol=1e-4)


class TestAggregation:
    def test_no_intercad_weighs_evenly_what_is_there_and_opens_every_gate(self, full) -> None:
        inputs = tiny_inputs(3) | {"audio": without(tiny_inputs(3)["audio"], 1)}
        base, plain = streams(full, inputs), streams(like(full, "no-intercad"), inputs)
        torch.testing.assert_close(plain.aggregated.level_weights, torch.full((3, 3), 1 / 3))
        torch.testing.assert_close(plain.aggregated.modality_weights, torch.tensor([[1 / 3] * 3, [0.5, 0.5, 0.0], [1 / 3] * 3]))
        assert plain.aggregated.private_gates.tolist() == [[1.0] * 3, [1.0, 1.0, 0.0], [1.0] * 3]
        assert not torch.allclose(base.aggregated.level_weights, plain.aggregated.level_weights, atol=1e-2)
        for x, y in zip(base.exchanged, plain.exchanged, strict=True):
            assert torch.equal(x, y), "what comes before InterCAD is untouched"

    def test_late_fusion_is_the_mean_of_predictions_that_read_one_modality_each(self) -> None:
        torch.manual_seed(0)
        teacher = stir(Teacher(tiny_config(variant="late-fusion")))
        inputs = tiny_inputs(2)
        together = streams(teacher, inputs).aggregated.logits
        alone = [streams(teacher, {name: inputs[name]}).aggregated.logits for name in CHANNELS]
        torch.testing.assert_close(together, torch.stack(alone).mean(0), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(alone[0], alone[1], atol=1e-2)
        out = streams(teacher, inputs | {"audio": without(inputs["audio"], 0)}).aggregated
        torch.testing.assert_close(out.logits[0], (alone[0][0] + alone[1][0]) / 2, atol=1e-5, rtol=1e-4)
        assert out.modality_weights[0].tolist() == [0.5, 0.5, 0.0]
        assert not hasattr(teacher, "intra_ced")
        assert not hasattr(teacher, "inter_cad")

    def test_full_is_no_such_mean(self, full) -> None:
        inputs = tiny_inputs(2)
        together = streams(full, inputs).aggregated.logits
        alone = [streams(full, {name: inputs[name]}).aggregated.logits for name in CHANNELS]
        assert not torch.allclose(together, torch.stack(alone).mean(0), atol=1e-2)

    @torch.no_grad()
    def test_late_fusion_answers_per_segment_too(self) -> None:
        teacher = stir(Teacher(tiny_config(variant="late-fusion", task="segments")))
        spans = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]] * 2)
        out = teacher(tiny_inputs(2), spans)
        assert out.aggregated.logits.shape == (4, 3)
        assert not torch.allclose(out.aggregated.logits[0], out.aggregated.logits[1], atol=1e-3)


class TestRegularisers:
    def test_without_them_the_total_is_the_task_loss_and_so_is_its_gradient(self) -> None:
        labels, inputs = torch.tensor([0, 1, 2]), tiny_inputs(3)

        def gradients(config, only_task: bool):
            torch.manual_seed(0)
            teacher = Teacher(config).eval()
            losses = teacher_losses(teacher(inputs), labels, config)
            (losses.task if only_task else losses.total).backward()
            return losses, [p.grad for p in teacher.parameters()]

        bare, got = gradients(tiny_config(variant="no-regularisers", lambda_intra=5.0, lambda_inter=5.0), only_task=False)
        full, wanted = gradients(tiny_config(lambda_intra=5.0, lambda_inter=5.0), only_task=True)
        assert torch.equal(bare.total, bare.task)
        assert torch.equal(bare.task, full.task)
        for a, b in zip(got, wanted, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        # They are still measured, and in the full network they count.
        assert torch.equal(bare.intra, full.intra)
        assert full.total.item() == pytest.approx((full.task + 5.0 * full.intra + 5.0 * full.inter).item(), rel=1e-5)
        assert full.total > full.task + 0.1

    def test_without_them_the_network_is_the_same(self, full) -> None:
        inputs = tiny_inputs(2)
        a, b = streams(full, inputs), streams(like(full, "no-regularisers"), inputs)
        assert torch.equal(a.aggregated.logits, b.aggregated.logits)


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_trains_with_missing_modalities(name) -> None:
    config = tiny_config(variant=name)
    torch.manual_seed(0)
    teacher = Teacher(config).train()
    inputs = tiny_inputs(2)
    inputs["vision"] = without(inputs["vision"], 0)
    losses = teacher_losses(teacher(inputs), torch.tensor([0, 2]), config)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in teacher.parameters() if p.grad is not None)
