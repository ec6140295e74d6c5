"""Features: streamed equals whole, silence is bounded, images are what they were, words hash alike everywhere."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from clcr_edge.config import TickConfig
from clcr_edge.features import FbankStream, fbank, fbank_of_ticks, luma_square, word_ngrams
from clcr_edge.features import image as image_module

CONFIG = TickConfig()


@pytest.mark.parametrize("piece", [1, 80, 333, 640, 1_024, 16_000])
def test_fbank_is_bitwise_the_same_for_every_chunking(piece: int) -> None:
    samples = (np.random.default_rng(0).standard_normal(8_000) * 0.1).astype(np.float32)
    stream = FbankStream(CONFIG)
    parts = [stream.push(samples[i : i + piece]) for i in range(0, len(samples), piece)]
    np.testing.assert_array_equal(np.concatenate(parts), fbank(samples, CONFIG))


def test_every_tick_completes_four_frames_from_the_first() -> None:
    stream = FbankStream(CONFIG)
    assert [len(stream.push(np.zeros(640, np.float32))) for _ in range(5)] == [4] * 5


def test_digital_silence_lies_at_the_floor_and_a_tone_in_its_band() -> None:
    assert fbank(np.zeros(6_400, np.float32), CONFIG).max() == pytest.approx(-1.0)
    t = np.arange(16_000) / 16_000
    low, high = (fbank((0.3 * np.sin(2 * np.pi * f * t)).astype(np.float32), CONFIG)[50].argmax() for f in (300, 3_000))
    assert low < 12
    assert high > 30


def test_a_run_after_a_gap_begins_anew() -> None:
    samples = (np.random.default_rng(0).standard_normal(640 * 6) * 0.1).astype(np.float32)
    present = np.array([True, True, False, True, True, True])
    out = fbank_of_ticks(samples, present, CONFIG)
    assert (out[2] == 0).all()
    np.testing.assert_array_equal(out[3:].reshape(12, -1), fbank(samples[3 * 640 :], CONFIG))


def test_luma_of_a_square_grey_image_is_itself() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    out = luma_square(np.repeat(grey[..., None], 3, 2), 96)
    np.testing.assert_allclose(out[0], grey / 255.0, atol=1e-6)


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (100, 97), (50, 60)])
def test_any_size_keeps_the_mean_of_its_centre_square(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = luma_square(image, 96)
    assert out.shape == (1, 96, 96)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    weights = np.array([77, 150, 29]) / 256
    mean = (image[top : top + side, left : left + side] @ weights).mean() / 255
    assert out.mean() == pytest.approx(mean, abs=0.01)


def test_words_hash_to_the_same_buckets_in_every_process() -> None:
    seven = word_ngrams("Seven", CONFIG)
    np.testing.assert_array_equal(seven, word_ngrams(" seven ", CONFIG))
    assert seven[:3].tolist() == [988, 2712, 1693]  # fixed: trained weights depend on them
    assert ((word_ngrams("donaudampfschifffahrtsgesellschaft", CONFIG) > 0).sum()) == CONFIG.ngrams_per_word


@pytest.mark.parametrize("opencv", [False, True], ids=["numpy", "opencv"])
def test_luma_is_of_integers_and_a_frame_and_its_luma_give_the_same_bits(opencv: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recording keeps is the luma; replay must see what the network saw, whether OpenCV is loaded there or not."""
    if opencv:
        monkeypatch.setitem(sys.modules, "cv2", pytest.importorskip("cv2", reason="pip install 'clcr-edge[camera]'"))
        assert image_module._opencv_gray() is not None, "this OpenCV's luma is another: frames would be slow"
    else:
        monkeypatch.delitem(sys.modules, "cv2", raising=False)
    rng = np.random.default_rng(0)
    for shape in ((480, 640, 3), (720, 1280, 3), (97, 61, 3), (96, 96, 3), (5, 3, 3), (1, 1, 3)):
        whole = rng.integers(0, 256, shape, np.uint8)
        # As a camera gives it, mirrored, upside down, BGR turned to RGB, and a window of a larger picture.
        window = np.pad(whole, ((1, 1), (2, 2), (0, 0)))[1:-1, 2:-2]
        for image in (whole, whole[:, ::-1], whole[::-1], whole[..., ::-1], window):
            wide = image.astype(int)
            expected = (wide[..., 0] * 9_798 + wide[..., 1] * 19_235 + wide[..., 2] * 3_735 + (1 << 14)) >> 15
            found = image_module.luma(image)
            assert found.dtype == np.uint8
            assert np.array_equal(found, expected)
            assert np.array_equal(luma_square(image, 96), luma_square(found, 96))
    assert image_module.luma(np.full((2, 2, 3), 255, np.uint8)).max() == 255


def test_an_opencv_that_computes_another_luma_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = ModuleType("cv2")
    other.COLOR_RGB2GRAY = 7
    other.cvtColor = lambda image, code: image[..., 0]
    monkeypatch.setitem(sys.modules, "cv2", other)
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    found = image_module.luma(image)
    monkeypatch.delitem(sys.modules, "cv2")
    assert np.array_equal(found, image_module.luma(image))
    assert not np.array_equal(found, image[..., 0])
