"""MOSI and MOSEI from MMSA's pickles, and MOSI by utterances: lengths, masks, order, and every fault named."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clcr_edge.data.sets import DataSet, Options, Task, collate, folds, load
from clcr_edge.errors import DataError
from clcr_edge.packets import Modality

LENGTHS = {"audio": 13, "vision": 11}


def _part(videos: list[str], widths: tuple[int, int, int], seed: int, aligned: bool = False) -> dict[str, Any]:
    """One split as MMSA writes it; two clips a video. Text is padded at the end, the others beyond their lengths."""
    rng = np.random.default_rng(seed)
    count, words = 2 * len(videos), 5
    mask = (np.arange(words) < rng.integers(2, words + 1, count)[:, None]).astype(np.float32)
    steps = dict.fromkeys(LENGTHS, words) if aligned else LENGTHS
    part: dict[str, Any] = {
        "raw_text": np.array([f"WORDS OF {v} {c}" for v in videos for c in (1, 2)]),
        "id": [f"{v}$_${c}" for v in videos for c in (1, 2)],
        "text": rng.normal(size=(count, words, widths[0])).astype(np.float32),
        "text_bert": np.stack([rng.integers(1, 99, (count, words)).astype(np.float32), mask, 0 * mask], axis=1),
        "audio": rng.normal(size=(count, steps["audio"], widths[1])),
        "vision": rng.normal(size=(count, steps["vision"], widths[2])),
        "annotations": np.array(["Positive"] * count),
        "classification_labels": np.full(count, 2.0),
        "regression_labels": np.round(rng.uniform(-3, 3, count), 1),
    }
    if not aligned:
        for key, longest in LENGTHS.items():
            part[f"{key}_lengths"] = rng.integers(1, longest + 1, count).tolist()
    return part


def _content(widths: tuple[int, int, int] = (768, 5, 20), aligned: bool = False) -> dict[str, Any]:
    videos = {"train": ["03bSnISJMiM", "-a_b"], "valid": ["BXuRRbG0Ugk"], "test": ["tmZoasNr4rU", "c$d"]}
    return {p: _part(v, widths, i, aligned) for i, (p, v) in enumerate(videos.items())}


def _write(root: Path, content: Any, name: str = "unaligned_50.pkl", protocol: int = 4) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return root


def test_mosi(tmp_path: Path) -> None:
    content = _content()
    data = load("mosi", _write(tmp_path, content, "MOSI/Processed/unaligned_50.pkl"))
    assert (data.task, data.classes, len(data)) == (Task.REGRESSION, (), 10)
    assert {p: r.tolist() for p, r in data.splits.items()} == {"train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7, 8, 9]}
    assert data.groups[0] == "03bSnISJMiM"
    assert data.targets.dtype == np.float32  # type: ignore[union-attr]
    for index, (part, row) in enumerate((p, r) for p in ("train", "valid", "test") for r in range(len(content[p]["id"]))):
        sample, source = data[index], content[part]
        assert (sample.name, sample.target) == (source["id"][row], source["regression_labels"][row])
        assert sample.text == source["raw_text"][row]
        for key, modality in (("audio", Modality.AUDIO), ("vision", Modality.VISION)):
            length = source[f"{key}_lengths"][row]
            assert sample.features[modality].mask.tolist() == [True] * length
            expected = source[key][row, :length].astype(np.float32)
            assert np.array_equal(sample.features[modality].values, expected)
        words = int(source["text_bert"][row, 1].sum())
        assert np.array_equal(sample.features[Modality.LANGUAGE].values, source["text"][row, :words])
    assert [str(n) for n in data.report.notes] == ["mosi: 4 samples in train, the published set has 1284"]
    batch = collate([data[i] for i in range(10)])
    assert batch.lengths(Modality.AUDIO).tolist() == [n for p in content.values() for n in p["audio_lengths"]]


def test_mosei_has_its_own_widths_and_aligned_files_have_one_mask(tmp_path: Path) -> None:
    _write(tmp_path, _content((768, 74, 35), aligned=True), "Processed/aligned_50.pkl")
    data = load("mosei", tmp_path, Options(variant="aligned"))
    assert not any("wide" in n.reason for n in data.report.notes)
    for sample in data:
        masks = [f.mask.tolist() for f in sample.features.values()]
        assert masks[0] == masks[1] == masks[2]
        assert len({len(m) for m in masks}) == 1
    other = load("mosi", tmp_path, Options(variant="aligned"))
    assert "audio is 74 wide, the published features 5" in str(other.report)
    with pytest.raises(DataError, match=r"holds no unaligned_50\.pkl or Processed/unaligned_50\.pkl or MOSEI/"):
        load("mosei", tmp_path)


def test_infinite_audio_becomes_zero_and_other_such_numbers_refuse_their_sample(tmp_path: Path) -> None:
    content = _content()
    part = content["train"]
    part["audio_lengths"] = [13, 13, 5, 13]
    part["vision_lengths"] = [11] * 4
    part["audio"][0, 3, 1] = -np.inf
    part["vision"][1, 2, 2] = np.nan
    part["audio"][2, 9, 0] = np.nan  # beyond its length: never read
    part["audio"][3, 0, 0] = np.inf
    data = load("mosi", _write(tmp_path, content))
    assert {r.name: r.reason for r in data.report.refused} == {
        "03bSnISJMiM$_$2": "vision holds a number that is not finite",
        "-a_b$_$2": "audio holds a number that is not finite",
    }
    assert "03bSnISJMiM$_$1: audio holds -inf, read as 0" in [str(n) for n in data.report.notes]
    values = data[0].features[Modality.AUDIO].values
    assert values[3, 1] == 0
    assert np.isfinite(values).all()
    assert np.isfinite(collate([data[0], data[1]]).features[Modality.AUDIO][0]).all()


def test_samples_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    content = _content()
    content["train"]["id"] = ["a$_$1", "a$_$1", "tmZoasNr4rU$_$9", "no clip"]
    content["test"]["regression_labels"][:2] = [3.5, np.nan]
    root = _write(tmp_path, content)
    refused = {(r.name, r.reason) for r in load("mosi", root).report.refused}
    assert refused == {
        ("a$_$1", "listed twice; the first is used"),
        ("tmZoasNr4rU$_$9", "'tmZoasNr4rU' is in a later split too; protocol \"published\" keeps it in train"),
        ("no clip", "not an id like video$_$clip: 'no clip'"),
        ("tmZoasNr4rU$_$1", "sentiment 3.5, expected -3 to 3"),
        ("tmZoasNr4rU$_$2", "sentiment nan, expected -3 to 3"),
    }
    content["test"]["regression_labels"][:2] = 0.0
    published = load("mosi", _write(tmp_path, content), Options(protocol="published"))
    assert published.crossing == ("tmZoasNr4rU",)
    assert len(published) == 8


def test_a_length_of_nothing_is_a_missing_modality(tmp_path: Path) -> None:
    content = _content()
    content["train"]["vision_lengths"][0] = 0
    data = load("mosi", _write(tmp_path, content))
    assert set(data[0].features) == {Modality.LANGUAGE, Modality.AUDIO}
    assert collate([data[0], data[1]]).lengths(Modality.VISION)[0] == 0


def test_without_lengths_and_masks_trailing_zeros_are_padding(tmp_path: Path) -> None:
    content = _content()
    for part in content.values():
        for key in ("text_bert", "audio_lengths", "vision_lengths"):
            del part[key]
    content["train"]["audio"][0, 7:] = 0
    content["train"]["audio"][0, 2] = 0  # a hole is not the end
    data = load("mosi", _write(tmp_path, content))
    assert len(data[0].features[Modality.AUDIO].mask) == 7
    assert len(data[1].features[Modality.AUDIO].mask) == 13


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("valid"), "valid: missing"),
        (lambda c: c["test"].pop("vision"), "test: lacks vision"),
        (lambda c: c["train"].update(audio=c["train"]["audio"][:3]), r"train.audio: shape \(3, 13, 5\), id has 4"),
        (lambda c: c["train"].update(audio=[1, 2]), r"train.audio: expected an array \[samples, steps, width\]"),
        (lambda c: c["train"].update(id=[1, 2, 3, 4]), "train.id: expected a list of strings"),
        (lambda c: c["train"].update(raw_text=["x"]), "train.raw_text: 1 entries, id has 4"),
        (lambda c: c["train"].update(regression_labels=np.zeros(3)), "train.regression_labels: 3 entries"),
        (lambda c: c["train"].update(audio_lengths=[1, 2, 3, 14]), "train.audio_lengths: 1 to 14, expected 0 to 13"),
        (lambda c: c["train"].update(text_bert=np.zeros((4, 3, 6))), "train.text_bert: shape"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, spoil: Any, message: str) -> None:
    content = _content()
    spoil(content)
    with pytest.raises(DataError, match=message) as caught:
        load("mosi", _write(tmp_path, content))
    assert "unaligned_50.pkl" in str(caught.value)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._marker),)


def test_a_malicious_file_is_refused_and_nothing_of_it_ran(tmp_path: Path) -> None:
    content = _content()
    content["train"]["annotations"] = _Evil(tmp_path / "ran")
    with pytest.raises(DataError, match=r"unaligned_50\.pkl: asks for \w+\.mkdir, .* nothing of it was executed"):
        load("mosi", _write(tmp_path, content))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(DataError, match="holds a list, expected a dict"):
        load("mosi", _write(tmp_path, [1]))


# --- utterances

VIDEOS = {"1DmNV9C1hbY": [2, 10, 3, 1], "a_b": [7, 100, 20], "zhpQhgha_KU": [5, 9]}


def _utterances(root: Path, order: np.ndarray[Any, Any] | None = None) -> Path:
    """The four files, sorted by label as the published ones are, or in another order."""
    rng = np.random.default_rng(3)
    rows = [(f"{v}_{n}", int(rng.integers(2))) for v, numbers in VIDEOS.items() for n in numbers]
    rows = [(name, 1 if name in ("1DmNV9C1hbY_2", "a_b_7") else label) for name, label in rows]
    rows.sort(key=lambda row: -row[1])
    numbers = {kind: rng.normal(size=(len(rows), width)) for kind, width in (("text", 100), ("audio", 73), ("video", 100))}
    order = np.arange(len(rows)) if order is None else order
    with (root / "transcripts_train.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["id", "text", "label"])
        writer.writerows([[rows[i][0], f"SAYS {rows[i][0]}, AND", rows[i][1]] for i in order])
    for kind, values in numbers.items():
        with (root / f"{kind}_train0.csv").open("w", newline="") as f:
            writer = csv.writer(f, quoting=csv.QUOTE_ALL)
            writer.writerows([[*map(repr, values[i].tolist()), rows[i][1]] for i in order])
    return root


def _same(a: DataSet, b: DataSet) -> None:
    assert a.names == b.names
    assert {p: r.tolist() for p, r in a.splits.items()} == {p: r.tolist() for p, r in b.splits.items()}
    for x, y in zip(a, b, strict=True):
        assert (x.name, x.step_names, x.texts) == (y.name, y.step_names, y.texts)
        assert np.array_equal(np.asarray(x.target), np.asarray(y.target))
        for modality in Modality:
            assert np.array_equal(x.features[modality].values, y.features[modality].values)
            assert np.array_equal(x.features[modality].mask, y.features[modality].mask)


def test_utterances_in_the_order_they_were_spoken(tmp_path: Path) -> None:
    data = load("mosi-utterance", _utterances(tmp_path))
    assert data.names == tuple(sorted(VIDEOS))
    assert data[0].step_names == tuple(f"1DmNV9C1hbY_{n}" for n in (1, 2, 3, 10))  # not 1, 10, 2, 3
    assert data[1].step_names == ("a_b_7", "a_b_20", "a_b_100")
    assert data[1].texts[0] == "SAYS a_b_7, AND"
    assert isinstance(data[1].target, np.ndarray)
    assert data[1].target[0] == 1
    assert {m.key: f.values.shape for m, f in data[0].features.items()} == {
        "language": (4, 100),
        "vision": (4, 100),
        "audio": (4, 73),
    }
    # Row n of a file is the utterance of row n of the transcripts.
    with (tmp_path / "audio_train0.csv").open() as f, (tmp_path / "transcripts_train.csv").open() as g:
        at = [row["id"] for row in csv.DictReader(g)].index("a_b_20")
        expected = np.asarray(list(csv.reader(f))[at][:-1], np.float64).astype(np.float32)
    assert np.array_equal(data[1].features[Modality.AUDIO].values[1], expected)


def test_the_order_of_the_rows_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shuffled = np.random.default_rng(0).permutation(9)
    assert shuffled.tolist() != list(range(9))
    _same(load("mosi-utterance", _utterances(tmp_path / "a")), load("mosi-utterance", _utterances(tmp_path / "b", shuffled)))


def test_real_utterances_shuffled_give_identical_arrays(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "mosi_utterance"
    data = load("mosi-utterance", source)
    assert not data.report.notes
    assert (len(data), sum(len(np.atleast_1d(t)) for t in data.targets)) == (62, 1_447)
    assert data[0].features[Modality.AUDIO].values.shape[1] == 73
    pairs = folds(data, 5)
    steps = [sum(len(data[i].features[Modality.AUDIO].mask) for i in test.tolist()) for _, test in pairs]
    assert sum(steps) == 1_447
    assert max(steps) - min(steps) < 20
    order = np.random.default_rng(1).permutation(1_447)
    for path in source.glob("*.csv"):
        lines = path.read_text("utf-8").splitlines()
        head, rows = (lines[:1], lines[1:]) if path.name.startswith("transcripts") else ([], lines)
        (tmp_path / path.name).write_text("\n".join([*head, *(rows[i] for i in order)]) + "\n", "utf-8")
    _same(data, load("mosi-utterance", tmp_path))


def _change(root: Path, name: str, change: Any) -> None:
    path = root / name
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("audio_train0.csv", lambda x: x.pop(), r"audio_train0\.csv: 8 rows, transcripts_train\.csv has 9"),
        ("audio_train0.csv", lambda x: x.__setitem__(4, '"1.0","0"'), r"line 5 has 2 cells, the first has 74"),
        ("video_train0.csv", lambda x: x.__setitem__(2, ",".join(['"x"'] * 100 + ['"1"'])), "line 3: a cell is no number"),
        ("video_train0.csv", lambda x: x.__setitem__(2, ",".join(['"nan"'] * 100 + ['"1"'])), "line 3: a number is not finite"),
        ("video_train0.csv", lambda x: x.__setitem__(2, ",".join(['"1e99"'] * 100 + ['"1"'])), "a number is not finite"),
        ("text_train0.csv", lambda x: x.reverse(), "the rows do not match"),
        ("text_train0.csv", lambda x: x.__setitem__(0, x[0].rpartition(",")[0] + ',"2"'), "label '2', expected 0 or 1"),
        ("transcripts_train.csv", lambda x: x.pop(0), "the first line is not id,text,label"),
        ("transcripts_train.csv", lambda x: x.__setitem__(3, x[2]), r"line 4: \S+ is on line 3 too"),
        ("transcripts_train.csv", lambda x: x.__setitem__(3, "video,hello,1"), "id 'video', expected video_number"),
        ("transcripts_train.csv", lambda x: x.__setitem__(3, "v_1,hello"), "line 4 has 2 cells"),
        ("transcripts_train.csv", lambda x: x.__delitem__(slice(1, None)), "no utterance after the header"),
    ],
)
def test_faults_in_the_utterances_are_named(tmp_path: Path, name: str, change: Any, message: str) -> None:
    _change(_utterances(tmp_path), name, change)
    with pytest.raises(DataError, match=message) as caught:
        load("mosi-utterance", tmp_path)
    assert ".csv" in str(caught.value)


def test_one_file_of_each_kind(tmp_path: Path) -> None:
    _utterances(tmp_path)
    (tmp_path / "audio_test0.csv").write_text("1,0\n")
    with pytest.raises(DataError, match=r"2 files match audio_\*\.csv, expected one"):
        load("mosi-utterance", tmp_path)
    with pytest.raises(DataError, match="no published split covers these videos"):
        load("mosi-utterance", tmp_path, Options(protocol="published"))
