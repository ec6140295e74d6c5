"""What training draws anew for each chunk: noise as a microphone gives it, as loud as asked, and gone when it ends."""

from __future__ import annotations

import numpy as np
import pytest

from clcr_edge.stt import vary
from clcr_edge.stt.mel import RATE_HZ, log_mel

_FLOOR = np.float32(-15.94)  # log-mel of digital silence


def test_hiss_is_as_loud_as_white_noise_of_its_level() -> None:
    hiss, mean = vary._hiss()
    real = log_mel((0.05 * np.random.default_rng(5).normal(size=20 * RATE_HZ)).astype(np.float32))
    expected = np.log(np.exp(real.astype(np.float64)).mean(axis=0))
    np.testing.assert_allclose(mean + 2 * np.log(0.05), expected, atol=0.1)
    np.testing.assert_allclose(hiss.std(axis=0), real.std(axis=0), atol=0.05)  # it flickers as much, too


@pytest.mark.parametrize("ringing", [False, True])
def test_a_noise_lasts_sets_in_ends_or_comes_and_goes(ringing: bool) -> None:
    change = np.diff(vary._gate(2000, 160, ringing, np.random.default_rng(7)), axis=1)
    lasts, grows, falls = (change == 0).all(axis=1), (change >= 0).all(axis=1), (change <= 0).all(axis=1)
    for kind in (lasts, grows & ~lasts, falls & ~lasts):
        assert 0.9 < kind.mean() * (5 if ringing else 3) < 1.35  # a clap at the very end only grows
    assert 0.3 * ringing <= (~grows & ~falls).mean() <= 0.45 * ringing  # claps and pulses


def test_a_clap_is_there_at_once_and_falls_by_the_same_decibels_in_each_frame() -> None:
    power = vary._clap(np.arange(40.0), np.array([[0.5], [5.0], [20.0]]))
    assert (power.argmax(axis=1) <= 3).all()
    fall = np.diff(np.log(power[:, 3:]), axis=1)
    np.testing.assert_allclose(fall, np.broadcast_to([[-4.0], [-0.4], [-0.1]], fall.shape))


def test_noise_where_nobody_speaks_begins_lasts_and_ends() -> None:
    chunks = np.full((600, 162, 40), _FLOOR)
    noisy = vary._noisy(chunks.copy(), np.ones(600, bool), vary.STEADY, np.random.default_rng(1))
    loud = noisy.mean(axis=2) > _FLOOR + 3
    touched = loud.any(axis=1)
    assert 0.8 < touched.mean() < 0.95
    first, last = loud[touched, 0], loud[touched, -1]
    for share in (first & last, ~first & last, first & ~last):
        assert 0.2 < share.mean() < 0.5
    rms_db = 10 / np.log(10) * (np.log(np.exp(noisy[touched].astype(np.float64)).sum(axis=2).max(axis=1))
                                - np.log(np.exp(vary._hiss()[1]).sum()))  # fmt: skip
    assert rms_db.max() < -1
    assert rms_db.min() < -50


def test_noise_under_speech_is_8_to_40_db_softer() -> None:
    rng = np.random.default_rng(2)
    speech = np.full((400, 162, 40), _FLOOR)
    speech[:, 60:140] = rng.normal(15.0, 1.0, (400, 80, 40))
    noisy = vary._noisy(speech.copy(), np.zeros(400, bool), vary.STEADY, rng)
    noise = np.exp(noisy[:, :60].astype(np.float64)).sum(axis=2)
    under_db = 10 / np.log(10) * (np.log(np.exp(speech[:, 60:140].astype(np.float64)).sum(axis=2).mean())
                                  - np.log(noise.mean(axis=1)))  # fmt: skip
    heard = under_db < 45
    assert 0.3 < heard.mean() < 0.5  # half, less those that set in later
    assert under_db.min() > 4  # 8, less the swing of its loudness
    np.testing.assert_allclose(noisy[:, 60:140].mean(), speech[:, 60:140].mean(), atol=0.5)


def test_a_chunk_varies_by_its_generator_alone() -> None:
    chunks = np.random.default_rng(3).normal(10.0, 2.0, (32, 162, 40)).astype(np.float32)
    silent = np.arange(32) % 2 == 0
    one, two, other = (vary.vary(chunks.copy(), silent, vary.ALL, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.float32
    assert one.shape == chunks.shape
    assert (one != other).any(axis=(1, 2)).all()
    assert np.isfinite(one).all()


def test_emptied_chunks_are_soft_and_labelled_silent() -> None:
    chunks, labels = np.full((2000, 162, 40), 15.0, np.float32), np.full((2000, 40), 7)
    rows = vary.hush(chunks, labels, 0, 0.05, np.random.default_rng(6))
    assert 0.03 < rows.mean() < 0.07
    assert (labels[rows] == 0).all()
    assert (labels[~rows] == 7).all()
    assert (chunks[~rows] == 15.0).all()
    soft = chunks[rows].mean(axis=(1, 2))
    assert soft.max() < 13.5
    assert soft.min() < _FLOOR + 5
