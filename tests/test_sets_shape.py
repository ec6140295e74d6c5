"""The common shape of data sets: splits that never cross, folds, reports that add up, batches whose masks tell the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.data.sets import Clip, DataSet, Features, Options, Remark, Report, Sample, Task, collate, folds, load
from clcr_edge.data.sets.dataset import split_by_group
from clcr_edge.data.sets.paths import inside, media_index, read_rows, read_text
from clcr_edge.errors import ConfigError, DataError
from clcr_edge.packets import Modality, Word


def _features(steps: int, width: int, value: float = 1.0) -> Features:
    return Features(np.full((steps, width), value, np.float32), np.ones(steps, bool))


def _data_set(
    groups: list[str], splits: dict[str, list[int]], protocol: str = "strict", lengths: list[int] | None = None
) -> DataSet:
    names = tuple(f"s{i}" for i in range(len(groups)))
    targets = tuple(np.zeros(n, np.int64) for n in lengths) if lengths else np.zeros(len(groups), np.int64)
    return DataSet(
        name="toy",
        task=Task.SEGMENTS if lengths else Task.CLASSIFICATION,
        classes=("a", "b"),
        names=names,
        groups=tuple(groups),
        targets=targets,
        splits={k: np.asarray(v, np.int64) for k, v in splits.items()},
        modalities=frozenset({Modality.AUDIO}),
        report=Report("toy", len(groups), len(groups)),
        fetch=lambda i: Sample(names[i], groups[i], i),
        protocol=protocol,  # type: ignore[arg-type]
    )


def test_a_group_may_not_cross_a_split() -> None:
    with pytest.raises(DataError, match="'ann' is in two splits"):
        _data_set(["ann", "bob", "ann"], {"train": [0, 1], "test": [2]})
    crossing = _data_set(["ann", "bob", "ann"], {"train": [0, 1], "test": [2]}, protocol="published").crossing
    assert crossing == ("ann",)
    assert _data_set(["ann", "bob", "ann"], {"train": [0, 2], "test": [1]}).crossing == ()


def test_a_split_is_a_subset_without_repetition() -> None:
    for splits in ({"train": [0, 0]}, {"train": [0], "val": [0]}, {"train": [0, 5]}, {"train": [-1]}):
        with pytest.raises(DataError, match="split"):
            _data_set(["ann", "bob"], splits)


def test_indexing() -> None:
    data = _data_set(["ann", "bob"], {"train": [0, 1]})
    assert [s.name for s in data] == ["s0", "s1"]
    assert data[-1].name == "s1"
    with pytest.raises(IndexError):
        data[2]
    with pytest.raises(DataError, match="no split 'val'; choose train"):
        data.split("val")


def test_splitting_by_group_depends_on_names_only_and_gives_every_part_something() -> None:
    groups = [f"g{i // 3}" for i in range(60)]
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    parts = split_by_group(groups, shares)
    assert {p: len(r) for p, r in parts.items()} == {"train": 42, "val": 6, "test": 12}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(60))
    owners = {p: {groups[i] for i in r.tolist()} for p, r in parts.items()}
    assert not owners["train"] & owners["val"] | owners["train"] & owners["test"] | owners["val"] & owners["test"]
    order = np.random.default_rng(0).permutation(60)
    again = split_by_group([groups[i] for i in order], shares)
    assert {groups[order[i]] for i in again["test"]} == owners["test"]
    assert all(len(r) for r in split_by_group(["a", "b", "c"], shares).values())


def test_folds_test_everything_once_and_keep_groups_whole() -> None:
    lengths = [9, 1, 1, 1, 4, 4, 2, 2]
    groups = ["a", "b", "c", "d", "e", "e", "f", "g"]
    data = _data_set(groups, {"train": list(range(8))}, lengths=lengths)
    pairs = folds(data, 3)
    assert sorted(np.concatenate([test for _, test in pairs]).tolist()) == list(range(8))
    for train, test in pairs:
        assert not set(train.tolist()) & set(test.tolist())
        assert len(train) + len(test) == 8
        assert not {groups[i] for i in train} & {groups[i] for i in test}
    # 24 steps in three folds, the largest group has 9: greedy dealing keeps all between 7 and 9.
    assert sorted(sum(lengths[i] for i in test) for _, test in pairs) == [7, 8, 9]
    with pytest.raises(DataError, match="9 folds of 7 speakers or videos; choose 2 to 7"):
        folds(data, 9)


def test_a_report_adds_up_and_names_everything() -> None:
    report = Report("toy", 3, 2, (Remark("x.mp4", "empty"),), (Remark("y.mp4", "no sound"),))
    assert str(report).splitlines() == [
        "toy: 2 of 3 samples read, 1 refused, 1 notes",
        "  refused x.mp4: empty",
        "  note y.mp4: no sound",
    ]
    assert report.to_json()["refused"] == [["x.mp4", "empty"]]
    with pytest.raises(AssertionError):
        Report("toy", 3, 2)
    with pytest.raises(DataError, match=r"none of 1 samples can be read; the first: x\.mp4: empty"):
        Report("toy", 1, 0, (Remark("x.mp4", "empty"),))


def test_collate_features_with_a_missing_modality() -> None:
    hidden = Features(np.full((3, 2), 7, np.float32), np.array([True, False, True]))
    samples = [
        Sample("a", "g", 1.5, features={Modality.AUDIO: _features(2, 4), Modality.VISION: hidden}, text="yes"),
        Sample("b", "h", -1.0, features={Modality.AUDIO: _features(5, 4)}),
    ]
    batch = collate(samples)
    values, mask = batch.features[Modality.AUDIO]
    assert values.shape == (2, 5, 4)
    assert mask.tolist() == [[True, True, False, False, False], [True] * 5]
    assert not values[0, 2:].any()
    values, mask = batch.features[Modality.VISION]
    assert mask.tolist() == [[True, False, True], [False, False, False]]
    assert values[0].tolist() == [[7, 7], [0, 0], [7, 7]]  # what the mask hides is gone
    assert batch.lengths(Modality.VISION).tolist() == [2, 0]
    assert batch.lengths(Modality.LANGUAGE).tolist() == [0, 0]
    assert Modality.LANGUAGE not in batch.features
    assert batch.targets.dtype == np.float32
    assert batch.texts == ("yes", "")
    assert batch.frames is None


def test_collate_clips_and_segments() -> None:
    def clip(frames: int, samples: int) -> Clip:
        words = (Word("hi", 0.0, 0.2),)
        return Clip(np.full((frames, 8, 8, 3), 9, np.uint8), 5.0, np.ones(samples, np.float32), 16_000, words)

    samples = [
        Sample("a", "g", np.array([1, 2], np.int64), clip(2, 300)),
        Sample("b", "h", np.array([3], np.int64), clip(0, 100)),
    ]
    batch = collate(samples)
    assert batch.frames is not None
    assert batch.frame_mask is not None
    assert batch.audio_mask is not None
    assert batch.frames.shape == (2, 2, 8, 8, 3)
    assert batch.frames.dtype == np.uint8
    assert batch.frame_mask.tolist() == [[True, True], [False, False]]
    assert batch.audio_mask.sum(1).tolist() == [300, 100]
    assert batch.targets.tolist() == [[1, 2], [3, 0]]
    assert batch.target_mask.tolist() == [[True, True], [True, False]]
    assert batch.words[1][0].text == "hi"
    assert (batch.frames_per_s, batch.rate_hz) == (5.0, 16_000)


def test_collate_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(DataError, match="an empty batch"):
        collate([])
    with pytest.raises(DataError, match="targets of several kinds"):
        collate([Sample("a", "g", 1), Sample("b", "g", 1.0)])
    wide = [Sample(n, "g", 1, features={Modality.AUDIO: _features(2, w)}) for n, w in (("a", 4), ("b", 5))]
    with pytest.raises(DataError, match="b: shape"):
        collate(wide)
    media = Sample("m", "g", 1, Clip(np.zeros((1, 8, 8, 3), np.uint8), 5.0, np.zeros(9, np.float32), 16_000))
    with pytest.raises(DataError, match="raw media and features in one batch"):
        collate([media, wide[0]])


def test_shapes_are_checked_where_they_are_made() -> None:
    with pytest.raises(DataError, match="give float32"):
        Features(np.zeros((2, 3), np.float64), np.ones(2, bool))
    with pytest.raises(DataError, match="give uint8"):
        Clip(np.zeros((2, 8, 8), np.uint8), 5.0, np.zeros(1, np.float32), 16_000)


def test_paths_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder").symlink_to(tmp_path)
    root = root.resolve()
    assert inside(root, "a/b.mp4") == root / "a" / "b.mp4"
    for bad in ("../secret.mp4", "/etc/passwd", "a/../../secret.mp4", "link.mp4", "folder/secret.mp4", "", "a\0b"):
        with pytest.raises(DataError):
            inside(root, bad)
    (root / "fine.mp4").write_bytes(b"x")
    assert list(media_index(root, [".mp4"])) == ["fine"]


def test_tables_are_bounded_and_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n\r\n"c,d",e\r\n')
    assert read_rows(path) == [(1, ["a", "b"]), (3, ["c,d", "e"])]
    path.write_bytes(b'a,"b\n')
    with pytest.raises(DataError, match=r"t\.csv: line 1: no CSV"):
        read_rows(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="byte 0 is no UTF-8"):
        read_text(path)
    with pytest.raises(DataError, match="3 bytes, more than 2"):
        read_text(path, 2)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "no.csv")


def test_names_and_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'imagenet': choose one of crema-d"):
        load("imagenet", tmp_path)
    for name in ("crema-d", "kinetics-sounds", "ave", "ucf101", "mosi", "mosei", "mosi-utterance", "clips"):
        with pytest.raises(DataError, match="no such folder; put"):
            load(name, tmp_path / "nowhere")
        with pytest.raises(DataError):
            load(name, tmp_path)  # an empty folder
    with pytest.raises(ConfigError, match="protocol = 'loose'"):
        Options(protocol="loose")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="workers = 0"):
        Options(workers=0)


def test_importing_the_sets_loads_no_torch() -> None:
    code = "import sys, clcr_edge.data.sets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
