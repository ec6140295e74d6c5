"""The bank that ships: small, whole, in three parts that share neither hand nor voice, and remade by its script."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.data.glyphs import DIGIT_SKELETONS, draw_hand, letter_glyphs, render_digit
from clcr_edge.data.make_synthetic import VARIANTS, check_voices, make_images, speak, write_opus
from clcr_edge.data.synthetic import FOLDER, PARTS, read_part, synthetic_bank, with_other_speech
from clcr_edge.errors import DataError, MissingPartError


def test_small_enough_to_ship() -> None:
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 3_500_000


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_whole(part: str) -> None:
    bank = synthetic_bank(part)
    assert len(bank.images) == len(bank.image_labels) >= 300
    assert set(bank.image_labels.tolist()) == set(range(10))
    assert len(set(bank.speakers)) >= 8
    assert len(bank.other_speech) >= 100
    for sound in (*bank.recordings, *(s for _, s in bank.other_speech)):
        assert 0.1 < len(sound) / 16_000 < 2.0
        assert 0.2 < np.abs(sound).max() < 1.0


def test_parts_share_nothing() -> None:
    banks = [synthetic_bank(p) for p in PARTS]
    for a, b in combinations(banks, 2):
        assert not set(a.image_ids.tolist()) & set(b.image_ids.tolist())
        voices = [{s.rpartition("+")[2] for s in bank.speakers} for bank in (a, b)]
        assert not voices[0] & voices[1]
        pictures = [{i.tobytes() for i in bank.images} for bank in (a, b)]
        assert not pictures[0] & pictures[1]
    assert sum(len(v) for v in VARIANTS.values()) == len({v for part in VARIANTS.values() for v in part}) >= 36


def test_images_come_out_the_same_again() -> None:
    images, labels, ids = make_images("check")
    bank = synthetic_bank("check")
    # Another processor may round a pixel to the next of the 16 grey levels.
    assert np.mean(images == bank.images) > 0.999
    assert np.array_equal(labels, bank.image_labels)
    assert np.array_equal(ids, bank.image_ids)


def test_glyphs_fill_their_cell() -> None:
    rng = np.random.default_rng(0)
    for digit in range(10):
        for style in range(len(DIGIT_SKELETONS[digit])):
            image = render_digit(digit, draw_hand(rng), rng)
            rows = np.flatnonzero(image.max(axis=1) > 127)
            assert 12 <= rows[-1] - rows[0] + 1 <= 26, (digit, style)
            assert 20 < np.count_nonzero(image > 127) < 350
    assert letter_glyphs().shape == (240, 28, 28)


def test_other_speech_goes_with_its_part() -> None:
    bank = with_other_speech(synthetic_bank("train"), "test")
    assert len(bank.other_speech) == sum(len(synthetic_bank(p).other_speech) for p in ("train", "check"))
    with pytest.raises(DataError, match="choose train, val, test"):
        with_other_speech(bank, "check")  # type: ignore[arg-type]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"check.npz: not the index"):
        read_part(tmp_path, "check")
    for path in FOLDER.glob("check.*"):
        shutil.copy(path, tmp_path)
    sound = tmp_path / "check.opus"
    sound.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    with pytest.raises(DataError, match=r"check.opus: .* the index needs"):
        read_part(tmp_path, "check")
    sound.write_bytes(b"no sound at all")
    with pytest.raises(DataError, match=r"check.opus: cannot be decoded"):
        read_part(tmp_path, "check")
    index = tmp_path / "check.npz"
    index.write_bytes(index.read_bytes()[:3_000])
    with pytest.raises(DataError, match=r"check.npz: not the index"):
        read_part(tmp_path, "check")
    with pytest.raises(DataError, match="choose train, calibration, check"):
        synthetic_bank("dev")


def test_opus_keeps_every_sample_in_place(tmp_path: Path) -> None:
    from clcr_edge.data.synthetic import _decode

    rng = np.random.default_rng(0)
    sound = np.convolve(rng.standard_normal(40_000), np.ones(12) / 12, "same").astype(np.float32) * 0.3
    write_opus(tmp_path / "x.opus", sound)
    back = _decode(tmp_path / "x.opus")
    assert abs(len(back) - len(sound)) <= 960
    n = min(len(back), len(sound))
    lag = np.fft.irfft(np.fft.rfft(back[:n], 1 << 17) * np.conj(np.fft.rfft(sound[:n], 1 << 17))).argmax()
    assert lag in (0, 1, (1 << 17) - 1)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_voices_differ() -> None:
    assert check_voices() > 3.5
    with pytest.raises(MissingPartError, match="no voice 'xx-nowhere'"):
        speak("one", "xx-nowhere", 160, 50)


def test_without_espeak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError, match="apt-get install espeak-ng"):
        speak("one", "en-us", 160, 50)
