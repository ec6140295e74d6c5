"""Distillation: each term by hand, what a variant cannot teach, whole small trainings, and answers tick by tick."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from safetensors.torch import load_file  # noqa: E402
from teachers import stir, tiny_config, tiny_inputs, tiny_teacher  # noqa: E402
from tiny_sets import write_config, write_utterances  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from clcr_edge.cli import app  # noqa: E402
from clcr_edge.config import TickConfig  # noqa: E402
from clcr_edge.data.synthetic import synthetic_bank  # noqa: E402
from clcr_edge.errors import UsageError  # noqa: E402
from clcr_edge.model.student import TickBatch  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.streams import stream_inputs, tick_spans  # noqa: E402
from clcr_edge.train.batches import StreamBatches  # noqa: E402
from clcr_edge.train.digits import Recipe, train_digits  # noqa: E402
from clcr_edge.train.digits_teacher import cut, digits_network, pieces, predict_ticks, train_digits_teacher  # noqa: E402
from clcr_edge.train.distil import (  # noqa: E402
    Guide,
    level_weight_loss,
    logit_loss,
    participation_loss,
    summary_loss,
    value_loss,
)
from clcr_edge.train.set_training import open_lesson, smaller, train_set  # noqa: E402
from clcr_edge.train.settings import DistilConfig, read_settings  # noqa: E402
from clcr_edge.train.stream_lesson import StreamLesson, open_stream_lesson  # noqa: E402

SMALL = {
    "width": 16,
    "rank_shared": 6,
    "rank_private": 5,
    "hidden": 12,
    "modalities": {
        "language": {"width": 12, "channels": 4096},
        "vision": {"width": 12, "vision_channels": [[4, 6, 4], [6, 3, 2]]},
        "audio": {"width": 12, "audio_channels": 4},
    },
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("taught")
    write_utterances(base / "data")
    config = write_config(base / "c.toml", "epochs = 12")
    config.write_text(config.read_text() + '[data]\nmodalities = ["language", "audio"]\n'.replace("audio", "vision"))
    text = config.read_text().replace("[teacher.modalities.audio]\nwidth = 8\n", "")
    config.write_text(text.replace("width = 8", "width = 16"))
    train_set("mosi-utterance", base / "data", base / "teacher", 0, read_settings(config))
    return base


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(5)
    return stir(Teacher(digits_network(SMALL)))


@pytest.fixture(scope="module")
def batch():  # type: ignore[no-untyped-def]
    return StreamBatches(synthetic_bank("check"), TickConfig(), 3, streams=2, seconds=3.0, predict=5)[0]


class TestTerms:
    def test_logits_by_hand(self) -> None:
        told, said, t = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]), 2.0
        p = 1.0 / (1.0 + math.exp(-1.0))
        wanted = t * t * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))
        assert float(logit_loss(said, told, t)) == pytest.approx(wanted, rel=1e-5)
        assert float(logit_loss(told, told, t)) == pytest.approx(0.0, abs=1e-7)

    def test_values_by_hand(self) -> None:
        assert float(value_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]]))) == 1.5

    def test_summaries_read_only_what_both_have_through_their_own_map(self) -> None:
        student, teacher = torch.ones(2, 3, 2, 2), torch.full((2, 3, 2, 3), 3.0)
        maps = torch.zeros(3, 2, 2, 3)
        maps[1, 0] = 1.5  # level 1, modality 0: exactly the teacher's
        both = torch.zeros(2, 3, 2, dtype=torch.bool)
        both[0, 1, 0] = True
        assert float(summary_loss(student, teacher, both, maps)) == 0.0
        both[1, 2, 1] = True  # its map is zero: the error is 3 squared
        assert float(summary_loss(student, teacher, both, maps)) == pytest.approx(4.5)
        student[0, 0, 0] = float("nan")  # nobody asked
        assert float(summary_loss(student, teacher, both, maps)) == pytest.approx(4.5)
        assert float(summary_loss(student, teacher, torch.zeros_like(both), maps)) == 0.0

    def test_level_weights_by_hand(self) -> None:
        told, said = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]), torch.full((2, 3), 1 / 3)
        wanted = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
        assert float(level_weight_loss(said, told, torch.tensor([True, False]))) == pytest.approx(wanted, rel=1e-4)
        assert float(level_weight_loss(said, said, torch.tensor([True, True]))) == pytest.approx(0.0, abs=1e-6)

    def test_participation_by_hand(self) -> None:
        both = torch.zeros(1, 3, 2, dtype=torch.bool)
        both[0, 0] = True
        student, teacher = torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)
        teacher[0, 0, 0], teacher[0, 2, 1] = 0.5, 9.0
        assert float(participation_loss(student, teacher, both)) == pytest.approx(0.125)

    def test_a_student_that_follows_its_guide_comes_nearer_in_every_term(self) -> None:
        teacher, inputs = tiny_teacher(1), tiny_inputs(6)
        torch.manual_seed(2)
        student = stir(Teacher(tiny_config(width=12, rank_shared=4, rank_private=4)))
        guide = Guide(teacher.config, student.config.names, (4, 4), DistilConfig())
        with torch.no_grad():
            told = teacher(inputs)
        rows = told.asked.flatten()
        optimiser = torch.optim.Adam([*student.parameters(), *guide.maps.parameters()], lr=0.01)
        first: dict[str, float] = {}
        for _ in range(60):
            terms = guide.terms(student(inputs), told, rows)
            first = first or {k: v.item() for k, v in terms.items()}
            optimiser.zero_grad()
            guide.total(terms).backward()
            optimiser.step()
        assert set(first) == {"logits", "shared", "private", "level_weights", "participation"}
        for name, value in guide.terms(student(inputs), told, rows).items():
            assert value.item() < 0.7 * first[name], name
        assert all(p.grad is None for p in teacher.parameters())

    @pytest.mark.parametrize(
        ("variant", "terms"),
        [
            ("late-fusion", {"logits"}),
            ("no-intercad", {"logits", "shared", "private", "participation"}),
            ("no-intraced", {"logits", "shared", "private", "level_weights"}),
            ("dense-exchange", {"logits", "shared", "private", "level_weights"}),
        ],
    )
    @torch.no_grad()
    def test_a_variant_teaches_only_what_it_decides(self, variant: str, terms: set[str]) -> None:
        inputs, student = tiny_inputs(2), tiny_teacher(3)
        teacher = tiny_teacher(1, variant=variant)
        guide = Guide(teacher.config, student.config.names, (6, 5), DistilConfig())
        found = guide.terms(student(inputs), teacher(inputs), torch.ones(2, dtype=torch.bool))
        assert set(found) == terms
        assert torch.isfinite(guide.total(found))

    def test_plain_is_the_logits_only_and_other_modalities_are_refused(self) -> None:
        guide = Guide(tiny_config(), tiny_config().names, (6, 5), DistilConfig().plain())
        assert [name for name, weight in guide.weights.items() if weight] == ["logits"]
        with pytest.raises(UsageError, match="the teacher reads language, vision, audio, the student audio"):
            Guide(tiny_config(), ("audio",), (6, 5), DistilConfig())


class TestOnADataSet:
    def test_the_student_is_a_quarter_as_wide_and_uses_its_teachers_data(self, taught: Path) -> None:
        (taught / "d.toml").write_text('[train]\noptimiser = "adamw"\nlr = 0.02\nbatch = 8\nepochs = 3\n')
        lesson = open_lesson(taught / "teacher", "mosi-utterance")
        before = {k: v.clone() for k, v in lesson.teacher.state_dict().items()}
        train_set("mosi-utterance", taught / "data", taught / "s", 0, read_settings(taught / "d.toml"), lesson=lesson)
        assert all(torch.equal(before[k], v) for k, v in lesson.teacher.state_dict().items())
        table = (taught / "s" / "teacher.toml").read_text()
        assert 'modalities = ["language", "vision"]' in table
        assert "temperature = 2.0" in table
        assert smaller(lesson.teacher.config).modalities[0][1].width == 4
        assert not any("maps" in k for k in load_file(taught / "s" / "last.safetensors"))
        records = [json.loads(line) for line in (taught / "s" / "metrics.jsonl").read_text().splitlines()]
        assert records[-1]["distil_shared"] < records[0]["distil_shared"]
        assert (taught / "s" / "seen-groups.json").read_text() == (taught / "teacher" / "seen-groups.json").read_text()

    def test_the_command_line(self, taught: Path, tmp_path: Path) -> None:
        config = tmp_path / "c.toml"
        config.write_text('[train]\nepochs = 1\n[teacher]\nvariant = "no-hierarchy"\n')
        words = ["distill", str(taught / "teacher"), "--data", "mosi-utterance", "--root", str(taught / "data")]
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "s"), "--config", str(config), "--plain"])
        assert done.exit_code == 0, (done.output, done.exception)
        record = json.loads((tmp_path / "s" / "metrics.jsonl").read_text().splitlines()[-1])
        assert {k for k in record if k.startswith("distil")} == {"distil_logits"}
        assert 'variant = "no-hierarchy"' in (tmp_path / "s" / "teacher.toml").read_text()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--data", "mosi"], "was trained on mosi-utterance; give --data mosi-utterance"),
            (["--data", "digits"], "train one with clcr-edge train digits --teacher"),
            (["--data", "birds"], "no data set called 'birds'"),
            (["--data", "mosi-utterance", "--steps", "3"], "--steps is for digits"),
            (["--data", "mosi-utterance", "--config", "DATA"], r"\[data\] is the teacher's"),
        ],
    )
    def test_what_cannot_be_is_a_wrong_call(self, taught: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
        (tmp_path / "data.toml").write_text("[data]\nfolds = 3\n")
        arguments = [a.replace("DATA", str(tmp_path / "data.toml")) for a in arguments]
        words = ["distill", str(taught / "teacher"), "--root", str(taught / "data"), "--out", str(tmp_path / "s"), *arguments]
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, UsageError), done.output
        with pytest.raises(UsageError, match=message):
            raise done.exception


class TestOnStreams:
    @torch.no_grad()
    def test_the_teacher_answers_for_the_ticks_that_the_student_is_asked_about(self, teacher: Teacher, batch) -> None:  # type: ignore[no-untyped-def]
        told = StreamLesson(teacher, 8, DistilConfig()).answers(batch)
        assert told.aggregated.logits.shape == (10, 11)
        for row, stream in ((2, 0), (9, 1)):
            one = TickBatch(**{k: v[stream : stream + 1] for k, v in vars(batch.batch).items()})
            tick = batch.ticks[stream : stream + 1, row % 5 : row % 5 + 1]
            alone = teacher(stream_inputs(one), tick_spans(tick, 75, 8)).aggregated.logits[0]
            torch.testing.assert_close(told.aggregated.logits[row], alone, atol=1e-4, rtol=1e-3)

    def test_every_tick_is_answered_for_once_from_the_middle_of_a_piece(self) -> None:
        for total in (1, 30, 200, 201, 399, 1_500):
            found = list(pieces(total, 200))
            assert [t for _, _, start, stop in found for t in range(start, stop)] == list(range(total))
            for first, last, start, stop in found:
                assert first <= start < stop <= last <= total
                assert last - first == min(200, total)
                assert first == 0 or start - first >= 50
                assert last == total or last - stop >= 50

    @torch.no_grad()
    def test_pieces_are_what_the_teacher_says_of_them(self, teacher: Teacher, batch) -> None:  # type: ignore[no-untyped-def]
        said = predict_ticks(teacher, batch.batch, 8, 25, piece_s=1.6)
        assert said.shape == (2, 75)
        part = cut(batch.batch, 20, 60)
        ticks = torch.arange(10, 30).expand(2, -1)
        middle = teacher(stream_inputs(part), tick_spans(ticks, 40, 8)).aggregated.logits.argmax(-1).view(2, 20)
        assert torch.equal(said[:, 30:50], middle)
        words = (batch.batch.word_tick >= 20) & (batch.batch.word_tick < 60)
        assert torch.equal(part.word_tick[words], batch.batch.word_tick[words] - 20)
        assert (part.word_tick[~words] > 60).all()

    @pytest.mark.slow
    def test_a_teacher_is_trained_and_teaches_the_student(self, shared_data: Path, tmp_path: Path) -> None:
        recipe = Recipe(
            frame_steps=2, frames=8, easy=1, speech_steps=0, word_steps=2, words=3, steps=3, streams=2, seconds=3.0, predict=6,
            heard_steps=1, quiet_minutes=1,
        )  # fmt: skip
        train_digits_teacher(shared_data, tmp_path / "t", 0, "1", recipe, SMALL)
        with pytest.raises(UsageError, match=r"--data mosi: .* was trained on"):
            open_lesson(tmp_path / "t", "mosi")
        lesson = open_stream_lesson(tmp_path / "t", DistilConfig())
        assert lesson.left_out == "jackson"
        train_digits(shared_data, tmp_path / "s", 0, lesson.left_out, recipe, lesson)
        records = [json.loads(line) for line in (tmp_path / "s" / "metrics.jsonl").read_text().splitlines()]
        record = next(r for r in records if r["phase"] == "streams")
        assert {k for k in record if k.startswith("distil")} == {f"distil_{k}" for k in lesson.guide.weights}
        assert not any("maps" in k for k in load_file(tmp_path / "s" / "student.safetensors"))
        about = (tmp_path / "s" / "student.toml").read_text()
        assert 'left_out = "jackson"' in about
        assert "[training.distilled]" in about
        done = CliRunner().invoke(app, ["eval", str(tmp_path / "t"), "--events", "2", "--noise", "heavy", "--json"])
        scores = json.loads(done.stdout)
        assert scores["accuracy"] == scores["tick_accuracy"]
        assert scores["n"] == scores["n_ticks"] == 1_500
        blind = CliRunner().invoke(app, ["eval", str(tmp_path / "t"), "--events", "2", "--without", "vision", "--json"])
        assert json.loads(blind.stdout)["without"] == ["vision"]


def test_digits_refuses_what_is_for_data_sets(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nepochs = 3\n")
    for arguments, message in (
        (["train", "digits", "--config", str(tmp_path / "c.toml")], "--config is for --teacher and for data sets"),
        (["train", "digits", "--teacher", "--config", str(tmp_path / "c.toml")], "only the .teacher. table counts"),
        (["train", "mosi", "--teacher"], "--teacher is for digits"),
        (["train", "mosi", "--steps", "3"], "--steps is for digits"),
    ):
        done = CliRunner().invoke(app, [*arguments, "--root", str(tmp_path), "--out", str(tmp_path / "o")])
        assert isinstance(done.exception, UsageError), (arguments, done.output)
        with pytest.raises(UsageError, match=message):
            raise done.exception
