"""Banks: reading real files with every fault named, and splits that never cross."""

from __future__ import annotations

import gzip
import shutil
import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.data import DigitBank, load_bank, merge_banks, split_bank
from clcr_edge.data.readers import read_idx_images, read_wav, resample, trim
from clcr_edge.errors import DataError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def _write_images(path: Path, count: int, magic: int = 2_051, side: int = 28, said: int | None = None) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, count * side * side, dtype=np.uint8)
    head = struct.pack(">iiii", magic, count if said is None else said, side, side)
    path.write_bytes(gzip.compress(head + pixels.tobytes()))


def _write_labels(path: Path, count: int, magic: int = 2_049) -> None:
    labels = (np.arange(count) % 10).astype(np.uint8)
    path.write_bytes(gzip.compress(struct.pack(">ii", magic, count) + labels.tobytes()))


def _write_wav(path: Path, seconds: float = 0.3, rate: int = 8_000, channels: int = 1) -> None:
    t = np.arange(int(seconds * rate)) / rate
    hertz = 440 + zlib.crc32(path.name.encode()) % 100_003 / 100  # no two alike, as no two takes are
    tone = (12_000 * np.sin(2 * np.pi * hertz * t) * np.hanning(len(t))).astype("<i2")
    with wave.open(str(path), "wb") as f:
        f.setparams((channels, 2, rate, 0, "NONE", ""))
        f.writeframes(np.repeat(tone, channels).tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder as small as can be: 700 images, 2 speakers, 3 recordings of each digit."""
    (tmp_path / "mnist").mkdir()
    _write_images(tmp_path / "mnist" / "images-idx3-ubyte.gz", 700)
    _write_labels(tmp_path / "mnist" / "labels-idx1-ubyte.gz", 700)
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "van_der_berg"):
            for index in (0, 1, 12):
                _write_wav(folder / f"{digit}_{speaker}_{index}.wav")
    return tmp_path


def test_load(root: Path) -> None:
    bank = load_bank(root)
    assert bank.images.shape == (700, 28, 28)
    assert len(bank.recordings) == 60
    assert set(bank.speakers) == {"ann", "van_der_berg"}
    assert set(bank.recording_ids.tolist()) == {0, 1, 12}
    for sound in bank.recordings:
        assert sound.dtype == np.float32
        assert 0.15 * 16_000 < len(sound) <= 0.3 * 16_000 + 1


@pytest.mark.parametrize("leave_out", [None, "ann"])
def test_parts_share_nothing(root: Path, leave_out: str | None) -> None:
    bank = load_bank(root)
    parts = {p: split_bank(bank, p, leave_out) for p in ("train", "val", "test")}
    ids = {p: set(b.image_ids.tolist()) for p, b in parts.items()}
    assert sum(len(i) for i in ids.values()) == len(ids["train"] | ids["val"] | ids["test"])
    assert len(ids["train"] | ids["val"] | ids["test"]) == 700
    sounds = {p: {id(r) for r in b.recordings} for p, b in parts.items()}
    assert not sounds["train"] & (sounds["val"] | sounds["test"])
    assert all(i % 10 for i in parts["train"].recording_ids)
    if leave_out:
        assert set(parts["test"].speakers) == {"ann"}
        assert "ann" not in {*parts["train"].speakers, *parts["val"].speakers}
        assert len(parts["test"].recordings) == 30
    else:
        assert set(parts["train"].speakers) == {"ann", "van_der_berg"}


def test_split_depends_on_nothing_but_the_count(root: Path) -> None:
    first, second = (split_bank(load_bank(root), "train") for _ in range(2))
    assert np.array_equal(first.image_ids, second.image_ids)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_real_data() -> None:
    bank = load_bank(SHARED)
    sizes = [len(split_bank(bank, p, "george").images) for p in ("train", "val", "test")]
    assert sizes == [5_000, 1_000, 1_000]
    test = split_bank(bank, "test", "george")
    assert set(test.speakers) == {"george"}
    assert len(test.recordings) == 500
    assert max(len(r) for r in bank.recordings) < 3 * 16_000


def test_unknown_speaker_and_part(root: Path) -> None:
    with pytest.raises(DataError, match=r"'bob' .* ann, van_der_berg"):
        split_bank(load_bank(root), "test", "bob")
    with pytest.raises(DataError, match="choose train, val or test"):
        split_bank(load_bank(root), "dev")  # type: ignore[arg-type]


def test_split_that_lacks_a_digit_says_so(root: Path) -> None:
    for path in (root / "fsdd" / "recordings").glob("3_*_0.wav"):
        path.unlink()
    with pytest.raises(DataError, match="no spoken digit 3"):
        split_bank(load_bank(root), "val", "ann")


def test_merge(root: Path) -> None:
    bank = load_bank(root)
    both = merge_banks(bank, bank, name="twice")
    assert (len(both.images), len(both.recordings), both.name) == (1400, 120, "twice")


def test_bank_checks_its_own_counts(root: Path) -> None:
    bank = load_bank(root)
    with pytest.raises(DataError, match="700 images but 699 labels"):
        DigitBank(
            bank.images,
            bank.image_labels[1:],
            bank.image_ids,
            bank.recordings,
            bank.recording_labels,
            bank.recording_ids,
            bank.speakers,
        )


def test_truncated_gzip(root: Path) -> None:
    path = root / "mnist" / "images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(DataError, match=r"images-idx3-ubyte.gz: not a whole gzip file"):
        load_bank(root)


def test_wrong_magic(root: Path) -> None:
    _write_images(root / "mnist" / "images-idx3-ubyte.gz", 700, magic=2_049)
    with pytest.raises(DataError, match="magic number 2049, expected 2051"):
        load_bank(root)


def test_header_count_against_file(tmp_path: Path) -> None:
    # A header that promises two thousand million images must not make anybody allocate them.
    _write_images(tmp_path / "x.gz", 5, said=2_000_000_000)
    with pytest.raises(DataError, match="the header says 2000000000 images"):
        read_idx_images(tmp_path / "x.gz")
    _write_images(tmp_path / "x.gz", 5, said=-5)
    with pytest.raises(DataError, match="the header says -5 images"):
        read_idx_images(tmp_path / "x.gz")


def test_counts_that_differ(root: Path) -> None:
    _write_labels(root / "mnist" / "labels-idx1-ubyte.gz", 699)
    with pytest.raises(DataError, match="700 images but 699 labels"):
        load_bank(root)


def test_other_size_of_image(root: Path) -> None:
    _write_images(root / "mnist" / "images-idx3-ubyte.gz", 700, side=32)
    with pytest.raises(DataError, match="32 x 32 pixels, expected 28 x 28"):
        load_bank(root)


def test_missing_folders_and_files(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"recordings: no such folder; put the spoken digits"):
        load_bank(tmp_path / "nowhere")
    for path in (root / "fsdd" / "recordings").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no \*\.wav found"):
        load_bank(root)
    (root / "mnist" / "labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"0 files match \*labels-idx1-ubyte.gz"):
        load_bank(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seven_ann_1.wav", b"", "expected a name like"),
        ("7_ann_2.wav", b"RIFFxxxxWAVEjunk", "not a readable PCM WAV"),
        ("7_ann_3.wav", b"", "not a readable PCM WAV"),
    ],
)
def test_bad_recordings(root: Path, name: str, content: bytes, message: str) -> None:
    (root / "fsdd" / "recordings" / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_bank(root)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_bad_recording_is_named(root: Path) -> None:
    folder = root / "fsdd" / "recordings"
    (folder / "1_ann_0.wav").write_bytes(b"RIFF")
    (folder / "notes.wav").write_bytes(b"")
    shutil.copy(folder / "2_ann_1.wav", folder / "2_copy_1.wav")
    with pytest.raises(DataError) as error:
        load_bank(root)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    for name, what in (
        ("1_ann_0.wav", "not a readable"),
        ("notes.wav", "expected a name"),
        ("2_copy_1.wav", "the same recording as 2_ann_1.wav"),
    ):
        assert any(name in line and what in line for line in lines), (name, lines)


def test_short_silent_and_truncated_wav(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    _write_wav(path, 0.01)
    with pytest.raises(DataError, match="80 samples at 8000 Hz"):
        read_wav(path)
    _write_wav(path)
    path.write_bytes(path.read_bytes()[:-1_000])
    with pytest.raises(DataError, match=r"fetch it again"):
        read_wav(path)
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, 8_000, 0, "NONE", ""))
        f.writeframes(bytes(8_000))
    with pytest.raises(DataError, match="all samples are zero"):
        read_wav(path)


def test_stereo_at_another_rate(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    _write_wav(path, 0.4, 44_100, 2)
    assert abs(len(read_wav(path)) - 0.4 * 16_000) < 1_600


def test_resample_keeps_a_tone_and_makes_no_image() -> None:
    t = np.arange(4_000) / 8_000
    tone = np.sin(2 * np.pi * 1_000 * t).astype(np.float32)
    up = resample(tone, 8_000)
    assert len(up) == 8_000
    middle = slice(800, 7_200)
    expected = np.sin(2 * np.pi * 1_000 * np.arange(8_000) / 16_000)
    assert np.abs(up[middle] - expected[middle]).max() < 0.01


def test_trim_leaves_the_sound() -> None:
    sound = np.zeros(16_000, np.float32)
    sound[6_000:9_000] = 0.5
    cut = trim(sound)
    assert 3_000 < len(cut) <= 3_000 + 6 * 160
    assert np.count_nonzero(cut) == 3_000
    assert cut[0] == cut[-1] == 0.0
