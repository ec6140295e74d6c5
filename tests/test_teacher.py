"""The teacher: shapes, masks, missing modalities, spans, forms of input, and that it learns what only both modalities tell."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from teachers import CHANNELS, stir, tiny_config, tiny_inputs, tiny_teacher, without  # noqa: E402

from clcr_edge.errors import DataError, UsageError  # noqa: E402
from clcr_edge.model.losses import IGNORED, task_loss  # noqa: E402
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig  # noqa: E402
from clcr_edge.model.teacher.inputs import Sequence, even_spans, overlap  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.objective import teacher_losses  # noqa: E402
from clcr_edge.model.teacher.tcn import Conv, LevelTokens, MaskedNorm, Tcn, coarser  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@torch.no_grad()
def same(a, b, atol: float = 1e-5) -> None:
    """Every number of two outputs agrees."""
    for x, y in zip((*a.aggregated, *a.exchanged), (*b.aggregated, *b.exchanged), strict=True):
        torch.testing.assert_close(x, y, atol=atol, rtol=1e-4)


def part(inputs, rows):
    return {k: Sequence(s.values[rows], s.mask[rows], s.times[rows]) for k, s in inputs.items()}


class TestOutput:
    @torch.no_grad()
    def test_shapes_and_what_each_number_means(self) -> None:
        out = tiny_teacher()(tiny_inputs(3))
        a, e = out.aggregated, out.exchanged
        assert [tuple(x.shape) for x in a] == [(3, 3), (3, 3), (3, 3), (3, 3), (3, 3, 3, 6), (3, 3, 3, 5)]
        assert [tuple(x.shape) for x in e] == [(3, 3, 3, 6), (3, 3, 3, 5), (3, 3, 3), (3, 3, 3)]
        torch.testing.assert_close(a.level_weights.sum(1), torch.ones(3))
        torch.testing.assert_close(a.modality_weights.sum(1), torch.ones(3))
        assert ((a.private_gates > 0) & (a.private_gates < 1)).all()
        # The budget binds: rho starts at the paper's best participation.
        assert (e.participation <= 0.68 + 1e-5).all()
        assert float(e.participation.mean()) > 0.4
        assert out.asked.tolist() == [[True]] * 3

    @pytest.mark.parametrize("names", [("audio",), ("vision", "audio"), ("language", "vision", "audio")])
    @torch.no_grad()
    def test_any_set_of_modalities(self, names) -> None:
        out = tiny_teacher(names=names)(tiny_inputs(2, names))
        assert out.aggregated.shared.shape == (2, 3, len(names), 6)
        assert torch.isfinite(out.aggregated.logits).all()

    @torch.no_grad()
    def test_four_modalities_of_which_two_are_one_kind(self) -> None:
        left = ModalityConfig("features", 4, width=8)
        config = TeacherConfig(
            (("a", left), ("b", left), ("c", left), ("d", left)), ("x", "y"), width=12, rank_shared=4, rank_private=4, hidden=8
        )
        inputs = {name: Sequence.of(torch.randn(2, 6, 4)) for name in "abcd"}
        assert Teacher(config).eval()(inputs).aggregated.modality_weights.shape == (2, 4)

    def test_wrong_inputs_are_named(self) -> None:
        teacher, inputs = tiny_teacher(), tiny_inputs(2)
        with pytest.raises(DataError, match=r"\['smell'\]: this teacher reads language, vision, audio"):
            teacher({"smell": inputs["audio"]})
        with pytest.raises(DataError, match="this teacher reads"):
            teacher({})
        with pytest.raises(DataError, match=r"audio: features of shape \[2, 9, 5\].*need \[B, T, 3\]"):
            teacher({"audio": inputs["language"]})
        with pytest.raises(DataError, match="different batch sizes"):
            teacher({"audio": inputs["audio"], "vision": tiny_inputs(3)["vision"]})
        inputs["vision"].values[0, 0, 0] = float("inf")
        with pytest.raises(DataError, match="vision: features hold NaN or infinite"):
            teacher(inputs)
        with pytest.raises(UsageError, match="even_spans"):
            tiny_teacher(task="segments")(tiny_inputs(2))
        with pytest.raises(DataError, match=r"spans \[2, 4\]: need \[3, S, 2\]"):
            teacher(tiny_inputs(3), torch.zeros(2, 4))

    def test_sequences_check_their_lengths(self) -> None:
        with pytest.raises(DataError, match=r"lengths \[9\]"):
            Sequence.of(torch.zeros(1, 4, 2), torch.tensor([9]))
        with pytest.raises(DataError, match="do not fit"):
            Sequence.of(torch.zeros(1, 4, 2), times=torch.zeros(1, 3, 2))
        with pytest.raises(DataError, match="number of segments"):
            even_spans(torch.tensor([0, 0]))


class TestMasks:
    @torch.no_grad()
    def test_a_samples_result_does_not_depend_on_its_batch_or_its_padding(self) -> None:
        teacher, inputs = tiny_teacher(), tiny_inputs(3)
        whole = teacher(inputs)
        for i in range(3):
            alone = {}
            for name, s in part(inputs, [i]).items():
                length = int(s.mask.sum())
                alone[name] = Sequence.of(s.values[:, :length])
            one = teacher(alone)
            for x, y in zip((*whole.aggregated, *whole.exchanged), (*one.aggregated, *one.exchanged), strict=True):
                torch.testing.assert_close(x[i : i + 1], y, atol=2e-5, rtol=1e-4)

    @torch.no_grad()
    def test_padding_stays_out_of_the_statistics_of_training(self) -> None:
        inputs = tiny_inputs(3)
        longer = {}
        for name, s in inputs.items():
            values = torch.cat([s.values, torch.full((3, 5, CHANNELS[name]), float("nan"))], dim=1)
            longer[name] = Sequence.of(values, s.mask.sum(dim=1))
        pair = [tiny_teacher(dropout=0.0).train() for _ in range(2)]
        same(pair[0](inputs), pair[1](longer))
        for a, b in zip(pair[0].buffers(), pair[1].buffers(), strict=True):
            torch.testing.assert_close(a, b)

    @torch.no_grad()
    def test_holes_are_never_read(self) -> None:
        teacher, inputs = tiny_teacher(), tiny_inputs(2)
        inputs["vision"].mask[:, 3] = False
        before = teacher(inputs)
        inputs["vision"].values[:, 3] = float("nan")
        same(before, teacher(inputs), atol=0.0)

    @torch.no_grad()
    def test_a_missing_modality_is_the_same_said_three_ways(self) -> None:
        """Masked for every sample, zero length, or not in the inputs: the same prediction, and no trace of it in the output."""
        teacher, inputs = tiny_teacher(), tiny_inputs(3)
        masked = inputs | {"audio": without(without(without(inputs["audio"], 0), 1), 2)}
        short = inputs | {"audio": Sequence.of(inputs["audio"].values, torch.zeros(3, dtype=torch.long))}
        absent = {k: v for k, v in inputs.items() if k != "audio"}
        out = teacher(absent)
        same(teacher(masked), out, atol=1e-6)
        same(teacher(short), out, atol=1e-6)
        assert (out.aggregated.modality_weights[:, 2] == 0).all()
        assert (out.aggregated.private_gates[:, 2] == 0).all()
        assert (out.aggregated.shared[:, :, 2] == 0).all()
        assert not out.exchanged.there[:, :, 2].any()

    @torch.no_grad()
    def test_one_samples_missing_modality_is_no_matter_to_the_others(self) -> None:
        teacher, inputs = tiny_teacher(), tiny_inputs(3)
        before, after = teacher(inputs), teacher(inputs | {"vision": without(inputs["vision"], 1)})
        for x, y in zip(before.aggregated, after.aggregated, strict=True):
            torch.testing.assert_close(x[[0, 2]], y[[0, 2]], atol=1e-6, rtol=1e-5)
        assert not torch.allclose(before.aggregated.logits[1], after.aggregated.logits[1], atol=1e-3)

    @pytest.mark.parametrize("batch", [1, 2])
    @pytest.mark.parametrize("task", ["classification", "regression", "segments"])
    def test_tiny_batches_with_missing_modalities_train(self, batch, task) -> None:
        """Every gradient is there and finite, also where one sample has nothing at all."""
        config = tiny_config(task=task, outputs=("a", "b"))
        torch.manual_seed(0)
        teacher = Teacher(config).train()
        inputs = tiny_inputs(batch)
        inputs = {k: without(v, 0) if k != "vision" or batch == 2 else v for k, v in inputs.items()}
        spans = even_spans(torch.tensor([2, 3][:batch])) if task == "segments" else None
        out = teacher(inputs, spans)
        labels = {
            "classification": torch.zeros(batch, dtype=torch.long),
            "regression": torch.full((batch, 2), 0.5),
            "segments": torch.zeros(batch, 3 if batch == 2 else 2, dtype=torch.long),
        }[task]
        losses = teacher_losses(out, labels, config)
        losses.total.backward()
        assert torch.isfinite(torch.stack(losses)).all()
        grads = [p.grad for p in teacher.parameters() if p.grad is not None]
        assert all(torch.isfinite(g).all() for g in grads)
        assert sum(float(g.abs().sum()) for g in grads) > 0
        assert all(torch.isfinite(b).all() for b in teacher.buffers())

    @torch.no_grad()
    def test_masked_norm_of_fewer_than_two_positions_uses_what_it_knows(self) -> None:
        norm: Any = MaskedNorm(3).train()
        x, mask = torch.randn(1, 4, 3), torch.tensor([[False, True, False, False]])
        torch.testing.assert_close(norm(x, mask)[0, 1], x[0, 1], atol=1e-4, rtol=1e-4)
        assert (norm(x, mask & False) == 0).all()
        assert (norm.norm.running_mean == 0).all()


def test_mixed_precision_is_finite_and_near_the_full_one() -> None:
    """bfloat16 in the encoders: the level weights, the participation and the losses stay what they were, nearly."""
    config, inputs, labels = tiny_config(dropout=0.0), tiny_inputs(4), torch.tensor([0, 1, 2, 0])
    teacher = tiny_teacher(dropout=0.0)
    plain = teacher(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = teacher.train()(inputs)
        losses = teacher_losses(mixed, labels, config)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in teacher.parameters() if p.grad is not None)
    fresh = tiny_teacher(dropout=0.0)  # training moved the other's statistics
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        mixed = fresh(inputs)
    for name in ("level_weights", "modality_weights", "logits"):
        a, b = (getattr(x.aggregated, name) for x in (plain, mixed))
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


class TestNoLeak:
    """Law 2 holds in the teacher too: it runs the student's exchange."""

    @torch.no_grad()
    def test_tokens_moved_along_a_private_basis_move_no_other_stream(self) -> None:
        teacher = tiny_teacher()
        arranged = teacher.arrange(teacher.encode(tiny_inputs(2)))
        for level in range(3):
            found = teacher.level(arranged, level)
            shared, private = teacher.intra_ced[level].bases()
            moved = found.h.clone()
            moved[:, 1] += 3.0 * (private[0, 1] @ torch.ones(5))
            before = teacher.exchange(teacher.tokens(found, level), found, level)[0]
            after = teacher.exchange(teacher.tokens(found._replace(h=moved), level), found, level)[0]
            torch.testing.assert_close(before, after, atol=2e-5, rtol=0)
            moved[:, 1] += 3.0 * (shared[0] @ torch.ones(6))
            through = teacher.exchange(teacher.tokens(found._replace(h=moved), level), found, level)[0]
            assert float((through - before)[:, [0, 2]].abs().max()) > 1e-3, "the shared part is what is exchanged"


class TestSpans:
    def test_even_spans_and_overlap_by_hand(self) -> None:
        spans = even_spans(torch.tensor([2, 1]))
        assert spans.tolist() == [[[0.0, 0.5], [0.5, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]
        times = torch.tensor([[[0.0, 0.25], [0.25, 0.75], [0.75, 1.0]]]).expand(2, -1, -1)
        expected = [[[0.25, 0.0], [0.25, 0.25], [0.0, 0.25]], [[0.25, 0.0], [0.5, 0.0], [0.25, 0.0]]]
        torch.testing.assert_close(overlap(times, spans), torch.tensor(expected))
        word = torch.tensor([[[0.6, 0.6]]])  # no length: still a word
        assert (overlap(word, spans[:1]) > 0).tolist() == [[[False, True]]]

    def test_neighbours_that_touch_do_not_overlap(self) -> None:
        """Times added up from durations are off in the last digit: that must not put a token into the next segment."""
        for count in (3, 7, 10, 28, 63):
            for each in (1, 3, 25):
                edges = torch.cat([torch.zeros(1), torch.full((count * each,), 1.0 / (count * each)).cumsum(0)])
                times = torch.stack([edges[:-1], edges[1:]], dim=-1).unsqueeze(0)
                share = overlap(times, even_spans(torch.tensor([count])))[0]
                assert torch.equal(share > 0, torch.eye(count, dtype=torch.bool).repeat_interleave(each, 0)), (count, each)

    @torch.no_grad()
    def test_one_span_over_all_is_the_whole_sample(self) -> None:
        """Exactly so where no token is incomplete: an incomplete one is shorter, and counts less."""
        teacher = tiny_teacher()
        inputs = {name: Sequence.of(torch.randn(2, 8, c)) for name, c in CHANNELS.items()}
        same(teacher(inputs), teacher(inputs, torch.tensor([[[0.0, 1.0]]] * 2)))

    @torch.no_grad()
    def test_segments_of_each_sample_and_nothing_for_those_it_has_not(self) -> None:
        teacher = tiny_teacher(task="segments")
        inputs, counts = tiny_inputs(2), torch.tensor([4, 2])
        out = teacher(inputs, even_spans(counts))
        assert out.aggregated.logits.shape == (8, 3)
        assert out.asked.tolist() == [[True] * 4, [True, True, False, False]]
        assert not out.exchanged.there[6:].any()
        assert (out.aggregated.level_weights[6:] == 0).all()
        # Sample 1 alone, with its own two spans: the same rows.
        alone = teacher(part(inputs, [1]), even_spans(counts[1:]))
        torch.testing.assert_close(out.aggregated.logits[4:6], alone.aggregated.logits, atol=2e-5, rtol=1e-4)
        assert not torch.allclose(out.aggregated.logits[0], out.aggregated.logits[3], atol=1e-3)

    @torch.no_grad()
    def test_a_segments_pooled_stream_is_of_its_own_tokens(self) -> None:
        """One utterance per position: its private stream is that position's token, whatever the other positions hold."""
        config = tiny_config(task="segments")
        flat = tuple((n, ModalityConfig("features", m.channels, 8, (1, 1, 1))) for n, m in config.modalities)
        torch.manual_seed(0)
        teacher = stir(Teacher(TeacherConfig(flat, ("a", "b"), "segments", 16, 6, 5, 12)))
        inputs = {name: Sequence.of(torch.randn(1, 5, c)) for name, c in CHANNELS.items()}
        out = teacher(inputs, even_spans(torch.tensor([5])))
        arranged = teacher.arrange(teacher.encode(inputs))
        for level in range(3):
            found = teacher.level(arranged, level)
            private = teacher.tokens(found, level).private[0, 0]  # [M, W, p]
            torch.testing.assert_close(out.exchanged.private[:, level], private.transpose(0, 1), atol=1e-5, rtol=1e-4)

    @torch.no_grad()
    def test_a_token_counts_by_how_much_of_the_span_it_covers(self) -> None:
        """Three tokens, two halves: the middle one stands in both, for half as much as a whole one."""
        config = tiny_config(task="segments")
        flat = tuple((n, ModalityConfig("features", m.channels, 8, (1, 1, 1))) for n, m in config.modalities)
        torch.manual_seed(0)
        teacher = stir(Teacher(TeacherConfig(flat, ("a", "b"), "segments", 16, 6, 5, 12)))
        inputs = {name: Sequence.of(torch.randn(1, 3, c)) for name, c in CHANNELS.items()}
        out = teacher(inputs, even_spans(torch.tensor([2])))
        found = teacher.level(teacher.arrange(teacher.encode(inputs)), 0)
        first, middle, last = teacher.tokens(found, 0).private[0, 0].unbind(dim=1)
        torch.testing.assert_close(out.exchanged.private[0, 0], (2 * first + middle) / 3, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(out.exchanged.private[1, 0], (middle + 2 * last) / 3, atol=1e-5, rtol=1e-4)

    @torch.no_grad()
    def test_each_segments_loss_is_with_its_own_label(self) -> None:
        config = tiny_config(task="segments", lambda_intra=0.0, lambda_inter=0.0)
        out = tiny_teacher(task="segments")(tiny_inputs(3), even_spans(torch.tensor([1, 3, 2])))
        labels = torch.tensor([[2, IGNORED, IGNORED], [0, 1, 2], [1, IGNORED, 0]])
        labels[2, 2] = 0  # a label for a span that the sample has not: nobody asked
        rows, wanted = [0, 3, 4, 5, 6], [2, 0, 1, 2, 1]
        by_hand = task_loss(out.aggregated.logits[rows], torch.tensor(wanted))
        assert teacher_losses(out, labels, config).total.item() == pytest.approx(by_hand.item(), rel=1e-5)
        with pytest.raises(DataError, match="no sample of this batch"):
            teacher_losses(out._replace(asked=out.asked & False), labels, config)


class TestTcn:
    @pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)])
    @pytest.mark.parametrize("causal", [False, True])
    @torch.no_grad()
    def test_what_a_token_reads(self, stride, dilation, causal) -> None:
        """Token j reads its own positions; with causal, nothing after them; without, something after (at stride 1)."""
        torch.manual_seed(0)
        conv = Conv(2, stride, dilation, causal).eval()
        total, tokens = 13, -(-13 // stride)
        mask = torch.ones(1, tokens, dtype=torch.bool)
        x = torch.randn(1, total, 2)
        base = conv(x, mask)
        assert base.shape == (1, tokens, 2)
        for at in range(total):
            moved = x.clone()
            moved[:, at] += 1.0
            changed = ((conv(moved, mask) - base).abs().amax(-1)[0] > 1e-6).nonzero().flatten().tolist()
            assert at // stride in changed or dilation > 1, "a token reads the positions it stands for"
            if causal:
                assert min(changed) >= at // stride
            elif stride == 1 and 2 <= at < total - 2:
                assert changed == [at - dilation, at, at + dilation]

    @torch.no_grad()
    def test_receptive_field_grows_with_the_level(self) -> None:
        torch.manual_seed(0)
        tcn = Tcn(4, (1, 2, 2), 0.0, causal=False).eval()
        x = torch.randn(1, 64, 4)
        base = tcn(LevelTokens(x, torch.ones(1, 64, dtype=torch.bool), Sequence.of(x).times))
        assert [t.values.shape[1] for t in base] == [64, 32, 16]
        moved = x.clone()
        moved[:, 32] += 5.0
        reached = []
        after = tcn(LevelTokens(moved, torch.ones(1, 64, dtype=torch.bool), Sequence.of(x).times))
        for a, b, stride in zip(base, after, (1, 2, 4), strict=True):
            reached.append(int(((a.values - b.values).abs().amax(-1) > 0).sum()) * stride)
        assert reached[0] < reached[1] < reached[2]

    def test_coarser_keeps_the_last_incomplete_token_and_the_times_of_what_is_there(self) -> None:
        mask = torch.tensor([[True, True, False, True, True], [False, False, True, False, False]])
        times = Sequence.of(torch.zeros(2, 5, 1)).times
        there, when = coarser(mask, times, 2)
        assert there.tolist() == [[True, True, True], [False, True, False]]
        torch.testing.assert_close(when[0], torch.tensor([[0.0, 0.4], [0.6, 0.8], [0.8, 1.0]]))
        torch.testing.assert_close(when[1, 1], torch.tensor([0.4, 0.6]))


class TestForms:
    def test_raw_frames_sound_and_words_train_end_to_end(self) -> None:
        """The gradient of the loss reaches the first layer of every front end."""
        small = ((4, 6, 4), (8, 3, 2))
        config = TeacherConfig(
            (
                ("language", ModalityConfig("ngrams", 50, width=8, embedding_width=6, strides=(1, 1, 1))),
                ("vision", ModalityConfig("frames", 3, width=8, vision_channels=small)),
                ("audio", ModalityConfig("fbank", 40, width=8, audio_channels=4)),
            ),
            ("a", "b"),
            width=12,
            rank_shared=4,
            rank_private=4,
            hidden=8,
        )
        torch.manual_seed(0)
        teacher: Any = Teacher(config).train()
        lengths = torch.tensor([6, 0, 4])
        inputs = {
            "language": Sequence.of(torch.randint(0, 50, (3, 5, 7)), torch.tensor([5, 2, 0])),
            "vision": Sequence.of(torch.randint(0, 256, (3, 6, 3, 16, 16), dtype=torch.uint8), lengths),
            "audio": Sequence.of(torch.randn(3, 6, 4, 40), lengths),
        }
        out = teacher(inputs)
        assert out.exchanged.there[:, 0].tolist() == [[True, True, True], [True, False, False], [False, True, True]]
        teacher_losses(out, torch.tensor([0, 1, 1]), config).total.backward()
        for first in (
            teacher.encoders["language"].front.embedding.weight,
            teacher.encoders["vision"].front.encoder.body[0].weight,
            teacher.encoders["audio"].front.encoder.body[0].weight,
        ):
            assert torch.isfinite(first.grad).all()
            assert float(first.grad.abs().sum()) > 0
        assert (teacher.encoders["language"].front.embedding.weight.grad[0] == 0).all(), "bucket 0 is padding"

    def test_a_single_frame_and_a_single_tick_of_sound_train(self) -> None:
        small = ((4, 6, 4), (8, 3, 2))
        config = TeacherConfig(
            (
                ("vision", ModalityConfig("frames", 1, width=8, vision_channels=small)),
                ("audio", ModalityConfig("fbank", 40, width=8, audio_channels=4)),
            ),
            ("a", "b"),
            width=12,
            rank_shared=4,
            rank_private=4,
        )
        teacher: Any = Teacher(config).train()
        inputs = {
            "vision": Sequence.of(torch.randint(0, 256, (1, 1, 1, 16, 16), dtype=torch.uint8)),
            "audio": Sequence.of(torch.randn(1, 1, 4, 40)),
        }
        teacher_losses(teacher(inputs), torch.tensor([1]), config).total.backward()
        assert all(torch.isfinite(p.grad).all() for p in teacher.parameters() if p.grad is not None)
        assert teacher.encoders["vision"].front.encoder.training


class TestStreams:
    @torch.no_grad()
    def test_the_students_ticks_are_a_teachers_input(self) -> None:
        from clcr_edge.model.student import NEVER, TickBatch
        from clcr_edge.model.teacher.streams import stream_inputs, tick_spans

        ticks = 8
        batch = TickBatch(
            torch.randint(0, 256, (2, ticks, 16, 16), dtype=torch.uint8),
            torch.ones(2, ticks, dtype=torch.bool),
            torch.randn(2, ticks, 4, 40),
            torch.ones(2, ticks, dtype=torch.bool),
            torch.randint(1, 50, (2, 3, 5)),
            torch.ones(2, 3),
            torch.tensor([[2, 6, NEVER], [NEVER, NEVER, NEVER]]),
            torch.tensor([[1, 3, 0], [0, 0, 0]]),
        )
        inputs = stream_inputs(batch)
        assert inputs["language"].mask.tolist() == [[True, True, False], [False] * 3]
        # Ended in ticks 1 and 3, of 8.
        torch.testing.assert_close(inputs["language"].times[0, :2], torch.tensor([[1 / 8, 2 / 8], [3 / 8, 4 / 8]]))
        wanted = torch.tensor([[0, 7], [3, 5]])
        spans = tick_spans(wanted, ticks, 5)
        assert spans.tolist() == [[[0, 1 / 8], [3 / 8, 1]], [[0, 0.5], [1 / 8, 0.75]]]
        with pytest.raises(DataError, match="ticks from 0 to 7"):
            tick_spans(wanted + 1, ticks, 4)
        config = TeacherConfig(
            (
                ("language", ModalityConfig("ngrams", 50, width=8)),
                ("vision", ModalityConfig("frames", 1, width=8, vision_channels=((4, 6, 4),))),
                ("audio", ModalityConfig("fbank", 40, width=8, audio_channels=4)),
            ),
            ("a", "b"),
            "segments",
            width=12,
            rank_shared=4,
            rank_private=4,
        )
        out = Teacher(config).eval()(inputs, spans)
        assert out.aggregated.logits.shape == (4, 2)
        assert out.exchanged.there[:, 0].tolist() == [[False, True, True], [True] * 3, [False, True, True], [False, True, True]]


def test_it_learns_what_only_both_modalities_together_tell() -> None:
    """Agree or differ: each modality shows one of two patterns at a random place. Neither alone says more than chance."""
    generator = torch.Generator().manual_seed(0)

    def batch(count: int):
        sign = torch.randint(0, 2, (2, count), generator=generator) * 2.0 - 1.0
        inputs = {}
        for name, s in zip(("vision", "audio"), sign, strict=True):
            values = 0.3 * torch.randn(count, 4, CHANNELS[name], generator=generator)
            place = torch.randint(0, 4, (count,), generator=generator)
            values[torch.arange(count), place, 0] += 2.0 * s
            inputs[name] = Sequence.of(values)
        return inputs, (sign[0] == sign[1]).long()

    config = tiny_config(("vision", "audio"), outputs=("differ", "agree"), dropout=0.0)
    torch.manual_seed(0)
    teacher = Teacher(config)
    from clcr_edge.train.loop import decay_groups

    optimiser = torch.optim.AdamW(decay_groups(teacher, 0.01), lr=1e-2)
    for _ in range(110):
        inputs, labels = batch(48)
        losses = teacher_losses(teacher.train()(inputs), labels, config)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    inputs, labels = batch(400)
    with torch.no_grad():
        right = teacher.eval()(inputs).aggregated.logits.argmax(-1) == labels
    assert float(right.float().mean()) > 0.9
