"""digits-match: the student's front ends in the teacher's network, a few real steps of CLCR and late fusion, their scores."""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
import wave
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from typer.testing import CliRunner, Result  # noqa: E402

from clcr_edge.cli import app  # noqa: E402
from clcr_edge.config import TickConfig  # noqa: E402
from clcr_edge.data.conditions import CLEAN  # noqa: E402
from clcr_edge.data.match import UNKNOWN, Match, make_match_stream, match_labels  # noqa: E402
from clcr_edge.data.seen import FILE, Seen  # noqa: E402
from clcr_edge.data.streams import Event  # noqa: E402
from clcr_edge.data.synthetic import synthetic_bank  # noqa: E402
from clcr_edge.errors import ClcrEdgeError  # noqa: E402
from clcr_edge.model.student import NEVER, Student, TickBatch  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.streams import stream_inputs, tick_spans  # noqa: E402
from clcr_edge.model.teacher.variants import VARIANTS  # noqa: E402
from clcr_edge.packets import Modality  # noqa: E402
from clcr_edge.train import match, match_scores  # noqa: E402
from clcr_edge.train.batches import collate  # noqa: E402
from clcr_edge.train.checkpoint import save_student  # noqa: E402
from clcr_edge.train.match import MatchRecipe, train_match  # noqa: E402
from clcr_edge.train.match_pool import PIECE, Pool, open_pool  # noqa: E402
from clcr_edge.train.match_scores import MatchScorer, predict_match, read_streams, verdict  # noqa: E402
from clcr_edge.train.match_start import encode_fronted, fronted, start_network  # noqa: E402
from clcr_edge.train.teacher_checkpoint import load_teacher  # noqa: E402

TINY = MatchRecipe(pool=8, seconds=4.0, steps=3, streams=3, predict=20, watched=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped check part in the files that `--root` holds: two speakers."""
    folder: Path = tmp_path_factory.mktemp("root")
    bank = synthetic_bank("check")
    (folder / "mnist").mkdir()
    images = struct.pack(">iiii", 2_051, *bank.images.shape) + bank.images.tobytes()
    labels = struct.pack(">ii", 2_049, len(bank.images)) + bank.image_labels.astype(np.uint8).tobytes()
    (folder / "mnist" / "images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "mnist" / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    recordings = folder / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for k, place in enumerate(bank.recordings_of(digit)):
            with wave.open(str(recordings / f"{digit}_{('ann', 'bob')[k % 2]}_{k // 2 + 7}.wav"), "wb") as f:
                f.setnchannels(1)
                f.setsampwidth(2)
                f.setframerate(16_000)
                f.writeframes((bank.recordings[place] * 32_000).astype("<i2").tobytes())
    return folder


def clcr(*arguments: object) -> Result:
    """The command line."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


class TestStart:
    def test_the_levels_of_sight_and_sound_are_the_students_own(self, student: Student) -> None:
        """Bit for bit where both devices are there: the networks' encoders are one."""
        network = start_network(student, "full", 0, (0.02, 0.002)).eval()
        batch = collate([make_match_stream(synthetic_bank("check"), CLEAN, 2.4, seed) for seed in (1, 2)], TickConfig())
        with torch.no_grad():
            own = student.encode(batch)
            levels = network.encode(stream_inputs(batch))
            read = encode_fronted(network, fronted(network, batch))
        for modality in (Modality.VISION, Modality.AUDIO):
            for level in range(3):
                assert torch.equal(own.levels[modality][level], levels[modality][level].values)
                # Kept in half precision, and computed in bfloat16 where the CPU can.
                close = torch.nn.functional.cosine_similarity(
                    read[modality][level].values.flatten(), levels[modality][level].values.flatten(), dim=0
                )
                assert close > 0.99
        assert torch.equal(read[0][2].values, levels[0][2].values)

    def test_all_variants_begin_alike(self, student: Student) -> None:
        made = {name: start_network(student, name, 4, (0.02, 0.002)) for name in VARIANTS}
        full = made["full"].state_dict()
        for name, network in made.items():
            shared = {k: v for k, v in network.state_dict().items() if k.startswith(("encoders.", "to_level."))}
            assert len(shared) > 100
            assert all(torch.equal(v, full[k]) for k, v in shared.items()), name
            frozen = {k.split(".")[1] for k, p in network.named_parameters() if not p.requires_grad}
            assert frozen == {"vision", "audio"}

    def test_another_seed_begins_elsewhere(self, student: Student) -> None:
        first, second = (start_network(student, "full", seed, (0.02, 0.002)).state_dict() for seed in (0, 1))
        assert not torch.equal(first["to_level.0.0.linear.weight"], second["to_level.0.0.linear.weight"])
        adopted = "encoders.vision.tcn.stages.0.down.conv.weight"
        assert torch.equal(first[adopted], second[adopted])


class TestPool:
    def test_it_is_made_once_and_another_is_refused(self, student: Student, tmp_path: Path) -> None:
        bank = synthetic_bank("check")
        network = start_network(student, "full", 0, (0.02, 0.002))
        path = tmp_path / "pool.safetensors"
        first = open_pool(path, bank, network, 3, 9, 2.0)
        assert len(first) == 16  # whole batches of 8
        written = path.stat().st_mtime_ns
        again = open_pool(path, bank, start_network(student, "late-fusion", 5, (0.0, 0.0)), 3, 9, 2.0)
        assert path.stat().st_mtime_ns == written
        a, b = (next(p.batches(1, 4, 10, 7, 1)) for p in (first, again))
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.batch.frames, b.batch.frames)
        assert a.labels.shape == (4, 10)
        assert not torch.equal(a.labels, next(first.batches(1, 4, 10, 8, 1)).labels)
        with pytest.raises(ClcrEdgeError, match="streams of another seed"):
            open_pool(path, bank, network, 4, 9, 2.0)

    def test_half_of_the_ticks_drawn_are_the_ones_to_learn(self) -> None:
        seen, said = (torch.full((2, 60), UNKNOWN, dtype=torch.int64) for _ in range(2))
        seen[:, 10:40], said[0, 20:60], said[1, 38:60] = 3, 3, 4
        empty = TickBatch(*(torch.zeros(2, 60) for _ in range(8)))
        pool, found = Pool(empty, seen, said), set()
        for seed in range(20):
            drawn = pool.draw(np.random.default_rng(seed), 2, 20)
            for row, ticks in zip(drawn.labels, drawn.ticks.tolist(), strict=True):
                count = (row >= Match.SAME).sum().item()
                found.add(count if count == 2 else min(count, 10))
                assert len(set(ticks)) == 20
                assert ticks == sorted(ticks)
        assert found == {2, 10}  # all that there are, or at least half

    def test_what_is_seen_and_what_is_heard_may_come_of_two_streams(self) -> None:
        """Their labels follow from both; same and different are drawn alike, though only one pair in ten is the same."""
        rng = np.random.default_rng(0)
        digits = torch.from_numpy(rng.integers(0, 10, (2, 200)))
        seen, said = (d.unsqueeze(1).expand(-1, 30).clone() for d in digits)
        number = torch.arange(200.0).unsqueeze(1).expand(-1, 30)
        pool = Pool(TickBatch(*(number for _ in range(8))), seen, said)
        verdicts = []
        for seed in range(30):
            drawn = pool.draw(np.random.default_rng(seed), 8, 10)
            shows, says = drawn.batch.frames[:, 0].long(), drawn.batch.fbank[:, 0].long()
            assert torch.equal(drawn.batch.vision[:, 0].long(), shows)
            assert torch.equal(drawn.batch.ngrams[:, 0].long(), says)
            assert torch.equal(drawn.batch.word_tick[:, 0].long(), torch.where(says < 30, says, NEVER))
            same = digits[0][shows] == digits[1][says]
            assert torch.equal(drawn.labels[:, 0] == Match.SAME, same)
            verdicts += same.tolist()
        assert 0.3 < np.mean(verdicts) < 0.6

    def test_a_piece_is_cut_out_whole(self) -> None:
        """Pictures, sound, words and labels of the same ticks; words that arrive outside it are no words of it."""
        ticks = torch.arange(200).expand(4, -1)
        seen = torch.where((ticks >= 90) & (ticks < 120), 3, UNKNOWN)
        said = torch.where((ticks >= 100) & (ticks < 130), 3, UNKNOWN)
        words = torch.tensor([[5, 105, 150]]).expand(4, -1)
        some = words.float()
        pool = Pool(TickBatch(ticks, ticks > 20, ticks, ticks > 30, words, some, words, words), seen, said)
        for seed in range(20):
            drawn = pool.draw(np.random.default_rng(seed), 4, 12)
            first = drawn.batch.frames[:, :1]
            inside = first + torch.arange(PIECE)
            for field, expected in (("frames", inside), ("fbank", inside), ("vision", inside > 20), ("audio", inside > 30)):
                assert torch.equal(getattr(drawn.batch, field), expected)
            there = (words >= first) & (words < first + PIECE)
            assert torch.equal(drawn.batch.word_tick, torch.where(there, words - first, NEVER))
            asked = first + drawn.ticks
            expected = match_labels(seen[0].numpy()[asked.numpy()], said[0].numpy()[asked.numpy()])
            assert drawn.labels.tolist() == expected.tolist()
            assert (drawn.ticks >= PIECE // 4).all()

    def test_its_labels_are_the_streams(self, student: Student, tmp_path: Path) -> None:
        from clcr_edge.data.match import match_training_streams

        bank = synthetic_bank("check")
        pool = open_pool(tmp_path / "p", bank, start_network(student, "full", 0, (0.0, 0.0)), 3, 8, 2.0)
        for row, stream in enumerate(islice(match_training_streams(bank, 3, seconds=2.0), 3)):
            assert match_labels(pool.seen[row].numpy(), pool.said[row].numpy()).tolist() == stream.labels.tolist()
            assert pool.batch.vision[row].tolist() == stream.vision_present.tolist()


class TestScores:
    @pytest.mark.parametrize(
        ("predicted", "expected"),
        [([0, 1, 2], Match.NONE), ([3, 4, 4, 0], Match.DIFFERENT), ([4, 3], Match.DIFFERENT), ([3, 4], 3), ([1, 1, 3], 3)],
    )
    def test_verdict(self, predicted: list[int], expected: int) -> None:
        assert verdict(np.array(predicted)) == expected

    def test_by_hand(self) -> None:
        scorer = MatchScorer()
        labels = np.array([0, 1, 3, 3, 0, 2, 4, 4, 0, 3, 3, 0, 1, 1])
        events = (Event(3, 2, 3, 4), Event(4, 6, 7, 8), Event(3, 9, 10, 11), Event(1, 12, 13, 14))
        scorer.add(labels, np.array([0, 1, 3, 3, 0, 2, 3, 4, 0, 1, 1, 0, 1, 1]), events)
        scores = scorer.result()
        assert scores.n_matches == 3
        assert scores.match_accuracy == pytest.approx(1 / 3)
        assert scores.undecided == pytest.approx(1 / 3)
        assert scores.same_recall == pytest.approx(1 / 2)
        assert scores.different_recall == 0.0
        assert scores.plain.n_events == 4
        assert scores.plain.tick_accuracy == pytest.approx(11 / 14)

    def test_nothing_to_score_is_null_in_json(self) -> None:
        scorer = MatchScorer()
        scorer.add(np.zeros(5, np.int64), np.zeros(5, np.int64), ())
        found = scorer.result().to_json()
        assert found["match_accuracy"] is None
        assert found["n_matches"] == 0
        assert json.loads(json.dumps(found))["tick_accuracy"] == 1.0

    def test_what_is_taken_away_is_not_read(self, student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without vision the pictures may be anything; with it they matter."""
        network: Teacher = start_network(student, "full", 0, (0.0, 0.0)).eval()
        monkeypatch.setattr(match_scores, "STREAM_S", 8.0)
        stream = next(read_streams(network, synthetic_bank("check"), CLEAN, 0))
        head: Any = network.inter_cad.head
        with torch.no_grad():  # so that no class wins everywhere
            spans = tick_spans(torch.arange(200)[None], 200, 32)
            head[3].bias -= network.fuse(encode_fronted(network, stream.batch), spans).aggregated.logits.mean(dim=0)
        changed = replace(stream.batch, frames=stream.batch.frames.roll(1, dims=2) * 3)
        blind = frozenset({"vision"})
        assert (predict_match(network, stream.batch, without=blind) == predict_match(network, changed, without=blind)).all()
        assert (predict_match(network, stream.batch) != predict_match(network, changed)).any()


class TestTraining:
    def test_one_seed_one_result(self, root: Path, student: Student, tmp_path: Path) -> None:
        """Twice from one pool; the CNNs stay as they were; the voice left out is in nothing that was seen."""
        source = tmp_path / "student"
        save_student(source, student.state_dict(), student.config, {"seed": 1, "left_out": "bob"})
        pool = tmp_path / "pool"
        arguments: dict[str, Any] = {"seed": 2, "leave_out": "bob", "source": source, "pool": pool}
        train_match(root, tmp_path / "a", recipe=TINY, **arguments)
        first, table = load_teacher(tmp_path / "a")
        assert table["training"]["left_out"] == "bob"
        assert "bob" not in Seen.load(tmp_path / "a" / FILE).speakers
        front = first.encoders["vision"].front.encoder.state_dict()  # type: ignore[union-attr]
        assert all(torch.equal(v, front[k]) for k, v in student.frame_encoder.state_dict().items())
        train_match(root, tmp_path / "b", recipe=TINY, **arguments)
        again, _ = load_teacher(tmp_path / "b")
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
        assert not (tmp_path / "a" / "pool.safetensors").exists()

    def test_the_command_line_trains_and_scores(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        # The recipe's 2,400 streams would take minutes, and so would streams of one each.
        monkeypatch.setattr(match, "MatchRecipe", lambda steps: replace(TINY, steps=steps, watched=1))
        monkeypatch.setattr(match_scores, "STREAM_S", 20.0)
        done = clcr("train", "digits-match", "--root", root, "--out", out, "--variant", "late-fusion", "--steps", 2)
        assert done.exit_code == 0, done.output
        assert "late-fusion" in done.stderr
        assert "parameters learned in 2 steps" in done.stderr
        left = {"curves.svg", "last.safetensors", "metrics.jsonl", "seen.npz", "teacher.toml"}
        assert {p.name for p in out.iterdir()} == left
        asked = ("eval", out, "--data", "digits-match", "--events", 2, "--noise", "clean")
        found = json.loads(clcr(*asked, "--json").stdout)
        assert found["variant"] == "late-fusion"
        assert found["n"] == found["n_ticks"] >= 500
        assert found["n_matches"] >= 2
        assert 0.0 <= found["match_accuracy"] <= 1.0
        assert found["accuracy"] == found["tick_accuracy"]
        assert "events seen and said" in clcr(*asked).stdout
        wrong = clcr("eval", out, "--data", "digits", "--events", 2)
        assert wrong.exit_code != 0
        assert "give --data digits-match" in str(wrong.exception or wrong.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-match", "--variant", "early"], "--variant early: choose one of full, no-hierarchy"),
        (["digits-match", "--teacher"], "--teacher: digits-match has its own recipe"),
        (["digits-match", "--from", "/nowhere"], "/nowhere: no checkpoint there"),
        (["digits-match", "--leave-out", "bob"], "have heard bob; give --from"),
        (["digits-match", "--leave-out", "carl"], "--leave-out carl: choose one of ann, bob"),
        (["digits", "--variant", "full"], "--variant is for digits-match"),
        (["mosi", "--from", "x"], "--from is for digits-match"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(root: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = clcr("train", *arguments, "--root", root, "--out", tmp_path / "o")
    assert done.exit_code != 0
    assert message in str(done.exception or done.output)
    assert not (tmp_path / "o").exists()


def test_scores_refuse_what_they_cannot_read(root: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--words", "recognised"], "--words recognised: networks of digits-match"),
        (["--precision", "int8"], "--precision int8: networks of digits-match"),
        ([], "no teacher there"),
    ):
        done = clcr("eval", tmp_path, "--data", "digits-match", "--root", root, *arguments)
        assert done.exit_code != 0
        assert message in str(done.exception or done.output)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/digits_match.py, which is no package."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "digits_match.py"
    spec = importlib.util.spec_from_file_location("digits_match_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_pairs_by_seed(benchmark: ModuleType) -> None:
    def row(seed: int, variant: str, accuracy: float) -> dict[str, Any]:
        return dict.fromkeys(benchmark._KEYS, 0.5) | {
            "seed": seed, "variant": variant, "noise": "heavy", "match_accuracy": accuracy, "n_matches": 10
        }

    rows = [row(s, "full", 0.8 + 0.1 * s) for s in (0, 1)] + [row(s, "late-fusion", 0.7 + 0.1 * s) for s in (0, 1)]
    made = benchmark.table(rows, ["full", "late-fusion"], ["heavy"], "how")
    # Seeds differ by ten points, the pairs not at all.
    assert "| heavy | full | +10.0 | +10.0 to +10.0 | +10.0 to +10.0 | 2 of 2 seeds |" in made
    assert "| heavy | full | 20 | 85.0% | 80.0% to 90.0% |" in made
