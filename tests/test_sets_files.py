"""The sets of media files, on small files in exactly the published formats, broken ones among them."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, noise

from clcr_edge.data.sets import DataSet, MediaConfig, Options, Task, collate, load
from clcr_edge.data.sets.ave import BACKGROUND, CLASSES
from clcr_edge.data.sets.crema_d import CLASSES as EMOTIONS
from clcr_edge.errors import DataError
from clcr_edge.packets import Modality

SMALL = Options(media=MediaConfig(frames_per_s=5.0, image_size=16, max_s=2.0), workers=2)
PUBLISHED = Options(protocol="published", media=SMALL.media, workers=2)
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One short film per container, to be copied to many names."""
    folder = tmp_path_factory.mktemp("films")
    made = {}
    for suffix in (".flv", ".mp4", ".avi", ".wav"):
        path = folder / f"x{suffix}"
        rate = 44_100 if suffix == ".flv" else 16_000
        make_clip(path, video_s=0.0 if suffix == ".wav" else 0.4, audio=noise(0.4, rate), rate_hz=rate)
        made[suffix] = path.read_bytes()
    made["mute"] = make_clip(folder / "mute.avi", video_s=0.4).read_bytes()
    return made


def _put(path: Path, content: bytes | str, copy: bool = False) -> Path:
    """Write a file. A film gets a tail of its own, which no decoder minds, or all would be copies of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes) and len(content) > 1_000 and not copy:
        content += b"\0\0\0\x18free" + hashlib.blake2b(str(path).encode(), digest_size=16).digest()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _groups(data: DataSet) -> dict[str, set[str]]:
    return {part: {data.groups[i] for i in rows.tolist()} for part, rows in data.splits.items()}


def _refused(data: DataSet) -> dict[str, str]:
    return {r.name: r.reason for r in data.report.refused}


# --- CREMA-D


@pytest.fixture
def crema(tmp_path: Path, films: dict[str, bytes]) -> Path:
    for actor, (sentence, emotion) in itertools.product(range(1001, 1011), (("IEO", "ANG"), ("DFA", "NEU"))):
        name = f"{actor}_{sentence}_{emotion}_{'HI' if sentence == 'IEO' else 'XX'}"
        _put(tmp_path / "VideoFlash" / f"{name}.flv", films[".flv"])
        _put(tmp_path / "AudioWAV" / f"{name}.wav", films[".wav"])
    return tmp_path


def test_crema_d(crema: Path) -> None:
    data = load("crema-d", crema, SMALL)
    assert (data.task, data.classes, len(data)) == (Task.CLASSIFICATION, EMOTIONS, 20)
    assert not data.report.refused
    assert {p: len(r) for p, r in data.splits.items()} == {"train": 14, "val": 2, "test": 4}
    assert {p: len(g) for p, g in _groups(data).items()} == {"train": 7, "val": 1, "test": 2}
    at = data.names.index("1001_IEO_ANG_HI")
    sample = data[at]
    assert (sample.target, sample.group, sample.text) == (EMOTIONS.index("ANG"), "1001", "It's eleven o'clock")
    assert data.targets[at] == sample.target
    batch = collate([data[i] for i in data.split("val")])
    assert batch.frames is not None
    assert batch.frames.shape == (2, 2, 16, 16, 3)
    assert batch.audio is not None
    assert np.abs(batch.audio).max() > 0.05
    notes = [str(n) for n in data.report.notes]
    assert "crema-d: 20 clips listed, the published set has 7442" in notes
    assert "HAP: this class has no sample in train" in notes


def test_a_set_of_media_can_be_sent_to_another_process(crema: Path) -> None:
    data = load("crema-d", crema, SMALL)
    sent = pickle.loads(pickle.dumps(data))
    assert sent.names == data.names
    here, there = data[3].clip, sent[3].clip
    assert here is not None
    assert np.array_equal(here.frames, there.frames)
    assert np.array_equal(here.audio, there.audio)


def test_crema_d_names_every_fault(crema: Path, films: dict[str, bytes]) -> None:
    _put(crema / "VideoFlash" / "1001_IEO_ANG_HI.flv", b"")  # empty
    _put(crema / "VideoFlash" / "1002_IEO_ANG_HI.flv", b"no film")
    (crema / "VideoFlash" / "1003_IEO_ANG_HI.flv").unlink()  # sound only
    (crema / "AudioWAV" / "1004_IEO_ANG_HI.wav").unlink()  # sound from the film
    _put(crema / "AudioWAV" / "readme.wav", films[".wav"])
    _put(crema / "AudioWAV" / "1001_XXX_ANG_HI.wav", films[".wav"])
    _put(crema / "other" / "1005_IEO_ANG_HI.flv", films[".flv"])  # a second file of that name
    _put(crema / "AudioMP3" / "1006_IEO_ANG_HI.mp3", b"")  # the WAV comes first
    data = load("crema-d", crema, SMALL)
    refused = _refused(data)
    assert set(refused) == {"1001_IEO_ANG_HI", "1002_IEO_ANG_HI", "1005_IEO_ANG_HI", "1001_XXX_ANG_HI", "readme"}
    assert "cannot be read as a media file" in refused["1001_IEO_ANG_HI"]
    assert "2 files of this name" in refused["1005_IEO_ANG_HI"]
    assert "'XXX' is none of the twelve" in refused["1001_XXX_ANG_HI"]
    assert "expected a name like" in refused["readme"]
    assert (data.report.listed, data.report.read) == (22, 17)
    sound_only = data[data.names.index("1003_IEO_ANG_HI")]
    assert sound_only.clip is not None
    assert len(sound_only.clip.frames) == 0
    from_film = data[data.names.index("1004_IEO_ANG_HI")]
    assert from_film.clip is not None
    assert len(from_film.clip.audio) > 4_000
    notes = [str(n) for n in data.report.notes]
    assert "1003_IEO_ANG_HI: no film, sound only" in notes
    assert "1004_IEO_ANG_HI: no WAV, sound from the film" in notes


def test_crema_d_as_published_shares_actors_and_says_so(crema: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train\.csv"):
        load("crema-d", crema, PUBLISHED)
    _put(crema / "train.csv", "".join(f"{a}_IEO_ANG_HI,ANG\n" for a in range(1001, 1009)) + "1009_IEO_ANG_HI,SAD\n")
    _put(crema / "test.csv", "1001_DFA_NEU_XX,NEU\n1001_DFA_NEU_XX,NEU\n1099_DFA_NEU_XX,NEU\n1008_DFA_NEU_XX,NEU\n")
    data = load("crema-d", crema, PUBLISHED)
    assert {p: len(r) for p, r in data.splits.items()} == {"train": 8, "test": 2}
    assert data.crossing == ("1001", "1008")
    reasons = [str(r) for r in data.report.refused]
    assert "1009_IEO_ANG_HI: line 9 of train.csv says 'SAD', the name says ANG" in reasons
    assert "1001_DFA_NEU_XX: listed twice; the first is used" in reasons
    assert any(r.startswith("1099_DFA_NEU_XX: no such media file") for r in reasons)
    _put(crema / "train.csv", "1001_IEO_ANG_HI\n")
    with pytest.raises(DataError, match=r"train\.csv: line 1 has 1 cells"):
        load("crema-d", crema, PUBLISHED)


def test_a_copy_under_another_name_may_not_cross_and_is_named(crema: Path) -> None:
    copied = (crema / "VideoFlash" / "1001_IEO_ANG_HI.flv").read_bytes()
    for name in ("1001_DFA_NEU_XX", "1002_IEO_ANG_HI"):  # the same actor, another actor
        _put(crema / "VideoFlash" / f"{name}.flv", copied, copy=True)
    data = load("crema-d", crema, SMALL)
    # In the order of the names: 1001_DFA_NEU_XX is the first with that content.
    assert set(_refused(data)) == {"1002_IEO_ANG_HI"}
    assert "1001_DFA_NEU_XX.flv ('1001'); leave one of them" in _refused(data)["1002_IEO_ANG_HI"]
    copies = [n.name for n in data.report.notes if n.reason.startswith("a copy of")]
    assert copies == ["1001_IEO_ANG_HI"]


# --- Kinetics-Sounds


@pytest.fixture
def kinetics(tmp_path: Path, films: dict[str, bytes]) -> Path:
    # Ids may hold - and _, also before a number.
    train = [f"-a_{i:04d}_{i % 10}___"[:11] + "_000010_000020" for i in range(20)]
    test = ["-3Mwkq-7TV4_2", "0Xq4OFEk1o__369"]
    rows = {"train": [f"{n},10,{i % 31}" for i, n in enumerate(train)], "test": [f"{n},10,{i}" for i, n in enumerate(test)]}
    for part, names in (("train", train), ("test", test)):
        _put(tmp_path / f"my_{part}.txt", "\n".join(rows[part]) + "\n")
        for name in names:
            _put(tmp_path / part / f"{name}.mp4", films[".mp4"])
    return tmp_path


def test_kinetics_sounds(kinetics: Path) -> None:
    data = load("kinetics-sounds", kinetics, SMALL)
    assert not data.report.refused
    assert (len(data.classes), data.classes[7]) == (31, "class_07")
    assert {p: len(r) for p, r in data.splits.items()} == {"train": 18, "val": 2, "test": 2}
    assert _groups(data)["test"] == {"-3Mwkq-7TV4", "0Xq4OFEk1o_"}
    assert data.targets[data.names.index("0Xq4OFEk1o__369")] == 1
    assert "val" not in load("kinetics-sounds", kinetics, PUBLISHED).splits
    _put(kinetics / "class.txt", ", ".join(f"name {i}" for i in range(31)))
    assert load("kinetics-sounds", kinetics, SMALL).classes[2] == "name 2"
    _put(kinetics / "class.txt", "one, two")
    with pytest.raises(DataError, match="2 different names, expected 31"):
        load("kinetics-sounds", kinetics, SMALL)


def test_a_copy_of_a_test_film_is_refused_in_train(kinetics: Path) -> None:
    name = (kinetics / "my_train.txt").read_text().partition(",")[0]
    _put(kinetics / "train" / f"{name}.mp4", (kinetics / "test" / "-3Mwkq-7TV4_2.mp4").read_bytes(), copy=True)
    data = load("kinetics-sounds", kinetics, SMALL)
    assert "('-3Mwkq-7TV4', test); leave one" in _refused(data)[name]
    published = load("kinetics-sounds", kinetics, PUBLISHED)
    assert not published.report.refused
    assert any(n.name == name and n.reason.startswith("a copy of") for n in published.report.notes)


def test_kinetics_sounds_names_every_fault(kinetics: Path, films: dict[str, bytes]) -> None:
    extra = [
        "-3Mwkq-7TV4_000100_000110,10,3",  # its video is in test
        "short_000010_000020,10,3",
        "AAAAAAAAAAA_000010_000020,10,31",
        "BBBBBBBBBBB_000010_000020,10,3",  # no film
        "CCCCCCCCCCC_000010_000020,10,3",  # empty film
        "../../../etc/passwd_0_1,10,3",
    ]
    path = kinetics / "my_train.txt"
    path.write_text(path.read_text() + "\n".join(extra) + "\n")
    _put(kinetics / "train" / "-3Mwkq-7TV4_000100_000110.mp4", films[".mp4"])
    _put(kinetics / "train" / "CCCCCCCCCCC_000010_000020.mp4", b"")
    refused = _refused(load("kinetics-sounds", kinetics, SMALL))
    assert len(refused) == 6
    assert "'-3Mwkq-7TV4' is in the test split too" in refused["-3Mwkq-7TV4_000100_000110"]
    assert "label '31', expected 0 to 30" in refused["AAAAAAAAAAA_000010_000020"]
    assert "no such media file" in refused["BBBBBBBBBBB_000010_000020"]
    assert "cannot be read" in refused["CCCCCCCCCCC_000010_000020"]
    published = load("kinetics-sounds", kinetics, PUBLISHED)
    assert published.crossing == ("-3Mwkq-7TV4",)
    assert len(published.report.refused) == 5
    path.write_text("a,b\n")
    with pytest.raises(DataError, match=r"my_train\.txt: line 1 has 2 cells"):
        load("kinetics-sounds", kinetics, SMALL)


# --- AVE

_HEADER = "Category&VideoID&Quality&StartTime&EndTime\n"
_AVE = {
    "train": ["Church bell&AAAAAAAAAA0&good&0&10", "Bark&BBBBBBBBBB0&good&2&5", "Mandolin&shared_both&good&0&10"],
    "val": ["Bark&CCCCCCCCCC0&good&0&1"],
    "test": ["Flute&DDDDDDDDDD0&good&9&10", "Banjo&shared_both&good&0&4"],
}


@pytest.fixture
def ave(tmp_path: Path, films: dict[str, bytes]) -> Path:
    _put(tmp_path / "Annotations.txt", _HEADER + "\n".join(itertools.chain(*_AVE.values())) + "\n")
    for part, rows in _AVE.items():
        _put(tmp_path / f"{part}Set.txt", "\n".join(rows) + "\n")
        for row in rows:
            _put(tmp_path / "AVE" / f"{row.split('&')[1]}.mp4", films[".mp4"])
    return tmp_path


def test_ave(ave: Path) -> None:
    assert (len(CLASSES), len(set(CLASSES)), CLASSES[BACKGROUND]) == (29, 29, "background")
    data = load("ave", ave, SMALL)
    assert data.task is Task.SEGMENTS
    sample = data[data.names.index("BBBBBBBBBB0&Bark")]
    assert isinstance(sample.target, np.ndarray)
    assert sample.target.tolist() == [28, 28, 2, 2, 2, 28, 28, 28, 28, 28]
    assert _refused(data) == {
        "shared_both&Mandolin": "'shared_both' is in the test split too; protocol \"published\" keeps it in train"
    }
    assert {p: len(r) for p, r in data.splits.items()} == {"train": 2, "val": 1, "test": 2}
    assert load("ave", ave, PUBLISHED).crossing == ("shared_both",)
    assert collate(list(data)).targets.shape == (5, 10)
    # Without the header, as the authors' own repository has it.
    _put(ave / "Annotations.txt", (ave / "Annotations.txt").read_text().removeprefix(_HEADER))
    assert load("ave", ave, SMALL).names == data.names


def test_ave_names_every_fault(ave: Path) -> None:
    with (ave / "Annotations.txt").open("a") as f:
        f.write("Bark&EEEEEEEEEE0&good&3&3\nBark&FFFFFFFFFF0&good&3&11\nMeow&GGGGGGGGGG0&good&0&5\nBark&HHHHHHHHHH0&good&0&5\n")
        f.write("Bark&IIIIIIIIII0&good&0&5\n")
    with (ave / "trainSet.txt").open("a") as f:
        f.write("Bark&EEEEEEEEEE0&good&3&3\nBark&FFFFFFFFFF0&good&3&11\nMeow&GGGGGGGGGG0&good&0&5\nBark&IIIIIIIIII0&good&0&5\n")
        f.write("Bark&AAAAAAAAAA0&good&0&5\nBark&BBBBBBBBBB0&good&2&5\n")
    _put(ave / "AVE" / "EEEEEEEEEE0.mp4", (ave / "AVE" / "AAAAAAAAAA0.mp4").read_bytes())
    reasons = _refused(load("ave", ave, SMALL))
    assert reasons.pop("shared_both&Mandolin")
    assert {name: reason.split(";")[0] for name, reason in reasons.items()} == {
        "EEEEEEEEEE0&Bark": "3 to 3 s: an event of no length",
        "FFFFFFFFFF0&Bark": "3 to 11 s is no part of 10 s",
        "GGGGGGGGGG0&Meow": "category 'Meow' is none of the 28",
        "HHHHHHHHHH0&Bark": "in Annotations.txt, but in none of the three sets",
        "IIIIIIIIII0&Bark": "no such media file below the root",
        "AAAAAAAAAA0&Bark": "0 to 5 s in trainSet.txt is not in Annotations.txt",
        "BBBBBBBBBB0&Bark": "listed twice",
    }
    published = load("ave", ave, PUBLISHED)
    assert published[published.names.index("EEEEEEEEEE0&Bark")].target.tolist() == [28] * 10  # type: ignore[union-attr]
    _put(ave / "testSet.txt", "Flute&DDDDDDDDDD0&good&nine&10\n")
    with pytest.raises(DataError, match=r"testSet\.txt: line 1: expected Category&VideoID"):
        load("ave", ave, SMALL)


# --- UCF101


@pytest.fixture
def ucf(tmp_path: Path, films: dict[str, bytes]) -> Path:
    lists = tmp_path / "ucfTrainTestlist"
    # The real set has one class whose folder and files differ in case.
    classes = {"ApplyEyeMakeup": "ApplyEyeMakeup", "HandstandPushups": "HandStandPushups"}
    _put(lists / "classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n")
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for number, (folder, stem) in enumerate(classes.items(), 1):
        for group, clip in itertools.product(range(1, 8), (1, 2)):
            relative = f"{folder}/v_{stem}_g{group:02d}_c{clip:02d}.avi"
            _put(tmp_path / "UCF-101" / relative, films[".avi" if clip == 1 else "mute"])
            rows["test" if group < 3 else "train"].append(relative if group < 3 else f"{relative} {number}")
    for part, lines in rows.items():
        _put(lists / f"{part}list01.txt", "\r\n".join(lines) + "\r\n")
    return tmp_path


def test_ucf101(ucf: Path) -> None:
    data = load("ucf101", ucf, SMALL)
    assert data.classes == ("ApplyEyeMakeup", "HandstandPushups")
    assert not data.report.refused
    assert {p: len(r) for p, r in data.splits.items()} == {"train": 18, "val": 2, "test": 8}
    assert "HandstandPushups_g01" in _groups(data)["test"]
    mute = data[data.names.index("v_ApplyEyeMakeup_g01_c02")]
    assert mute.clip is not None
    assert (len(mute.clip.frames), len(mute.clip.audio), mute.target) == (2, 0, 0)
    assert sum(n.reason == "no sound" for n in data.report.notes) == 14
    batch = collate([mute, data[0]])
    assert batch.audio_mask is not None
    assert batch.audio_mask.any(axis=1).sum() == 1
    with pytest.raises(DataError, match=r"trainlist02\.txt"):
        load("ucf101", ucf, Options(split_number=2))


def test_ucf101_names_every_fault(ucf: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "v_ApplyEyeMakeup_g20_c01.avi"
    outside.write_bytes((ucf / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi").read_bytes())
    (ucf / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g20_c01.avi").symlink_to(outside)
    broken = _put(ucf / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g21_c01.avi", outside.read_bytes()[:-5_000])
    extra = [
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g20_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g21_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g22_c01.avi 1",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi 2",
        "../ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi 1",
        "Juggling/v_Juggling_g03_c01.avi 3",
    ]
    with (ucf / "ucfTrainTestlist" / "trainlist01.txt").open("a") as f:
        f.write("\r\n".join(extra))
    refused = _refused(load("ucf101", ucf, SMALL))
    assert len(refused) == 6
    assert "a link that leads out of" in refused["ApplyEyeMakeup/v_ApplyEyeMakeup_g20_c01.avi"]
    assert "cut off" in refused[broken.stem]
    assert "no such film" in refused["ApplyEyeMakeup/v_ApplyEyeMakeup_g22_c01.avi"]
    assert "says class '2', the folder says 1" in refused["ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi"]
    assert "expected Class/v_Class" in refused["../ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c01.avi"]
    _put(ucf / "ucfTrainTestlist" / "classInd.txt", "1 ApplyEyeMakeup\n3 HandstandPushups\n")
    with pytest.raises(DataError, match=r"classInd\.txt: line 2: expected '2 ClassName'"):
        load("ucf101", ucf, SMALL)


# --- the user's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b", "c")):
        path = tmp_path / "day1" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        make_clip(path, video_s=2.0, audio=noise(2.0, seed=seed))
    _put(tmp_path / "day1" / "a.words", "0.1 0.4 hello\n0.9 1.2 there\n1.5 1.9 you\n")
    rows = [
        "file,start,end,label,words",
        "day1/a.mp4,0.0,1.0,wave,day1/a.words",
        "./day1/a.mp4,1.0,2.0,nod,day1/a.words",
        "day1/b.mp4,,,wave,",
        '"day1/c.mp4",0.5,,nod,',
    ]
    _put(tmp_path / "clips.csv", "\n".join(rows) + "\n")
    return tmp_path


def test_clips(own: Path) -> None:
    data = load("clips", own, SMALL)
    assert not data.report.refused
    assert data.classes == ("nod", "wave")
    assert data.targets.tolist() == [1, 0, 1, 0]  # type: ignore[union-attr]
    assert data.groups == ("day1/a.mp4", "day1/a.mp4", "day1/b.mp4", "day1/c.mp4")
    assert {len(g) for g in _groups(data).values()} == {1}
    assert data.modalities == frozenset(Modality)
    first, second = data[0], data[1]
    assert first.clip is not None
    assert second.clip is not None
    # "there" has its middle at 1.05 s: it is the second clip's, and begins before it.
    assert [w.text for w in first.clip.words] == ["hello"]
    assert [(w.text, round(w.start_s, 3)) for w in second.clip.words] == [("there", -0.1), ("you", 0.5)]
    assert second.text == "there you"
    assert (len(first.clip.frames), len(first.clip.audio)) == (5, 16_000)


def test_clips_with_given_splits_and_numbers(own: Path) -> None:
    head = "file,label,split,group,text\n"
    _put(own / "t.csv", head + "day1/a.mp4,0.5,train,x,hi\nday1/b.mp4,-2,val,y,\nday1/c.mp4,1e1,test,z,\n")
    options = Options(table="t.csv", task="regression", media=SMALL.media)
    data = load("clips", own, options)
    assert data.task is Task.REGRESSION
    assert [data[i].target for i in range(3)] == [0.5, -2.0, 10.0]
    assert {p: g for p, g in _groups(data).items()} == {"train": {"x"}, "val": {"y"}, "test": {"z"}}
    assert data[0].text == "hi"
    _put(own / "t.csv", head + "day1/a.mp4,0.5,train,x,\nday1/b.mp4,2,test,x,\n")
    with pytest.raises(DataError, match=r"t\.csv: 'x' is in train \(line 2\) and in test \(line 3\)"):
        load("clips", own, options)
    _put(own / "t.csv", head + "day1/a.mp4,0.5,train,x,\nday1/b.mp4,2,,y,\n")
    with pytest.raises(DataError, match="line 3: split ''; write train, val, test on every line"):
        load("clips", own, options)


def test_clips_name_every_fault(own: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.mp4"
    outside.write_bytes((own / "day1" / "a.mp4").read_bytes())
    (own / "link.mp4").symlink_to(outside)
    _put(own / "empty.mp4", b"")
    _put(own / "bad.words", "0.1 hello\n")
    faults = [
        (f"{outside},0,1,wave,", "leads out of"),
        ("../outside/x.mp4,0,1,wave,", "leads out of"),
        ("link.mp4,0,1,wave,", "a link that leads out of"),
        ("gone.mp4,0,1,wave,", "no such file below"),
        ("empty.mp4,0,1,wave,", "cannot be read as a media file"),
        ("day1/b.mp4,1,1,wave,", "is no span"),
        ("day1/b.mp4,0,9,wave,", "more than max_s"),
        ("day1/b.mp4,zero,1,wave,", "start 'zero' is no number"),
        ("day1/b.mp4,0,1,,", "no label"),
        ("day1/b.mp4,0,1,wave,bad.words", "expected 'start end word'"),
        ("day1/b.mp4,0,1,wave,../../etc/passwd", "leads out of"),
        ("day1/b.mp4,,,wave,", "listed twice"),
        ("day1/a.mp4,0.00,1.0,wave,", "listed twice"),
    ]
    with (own / "clips.csv").open("a") as f:
        f.write("\n".join(line for line, _ in faults) + "\n")
    data = load("clips", own, SMALL)
    reasons = [str(r) for r in data.report.refused]
    assert len(reasons) == len(faults)
    for _, reason in faults:
        assert any(reason in r for r in reasons), (reason, reasons)
    assert len(data) == 4


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "empty; the first line names the columns"),
        ("file,start\nday1/a.mp4,0\n", "needed: file and label"),
        ("file,label,colour\nday1/a.mp4,x,red\n", "columns file,label,colour"),
        ("file,start,end,label\nday1/a.mp4,0,1,x\nday1/a.mp4,0.0,1.00,y\n", "label 'x' in line 2, 'y' in line 3; correct one"),
        ("file,label\nday1/a.mp4\n", "line 2 has 1 cells, the header has 2"),
        ("file,label\nday1/a.mp4,x\n", "1 different labels"),
        ("file,label\n", "0 different labels"),
    ],
)
def test_tables_of_clips_that_cannot_be(own: Path, table: str, message: str) -> None:
    _put(own / "clips.csv", table)
    with pytest.raises(DataError, match=message):
        load("clips", own, SMALL)
