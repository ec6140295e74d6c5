"""Decoding and its cache: the right frame at the right time, faults named, nothing stale read."""

from __future__ import annotations

import dataclasses
import os
import wave
from pathlib import Path

import numpy as np
import pytest
from clips import find_in, make_clip, noise

from clcr_edge.data.sets import load
from clcr_edge.data.sets.cache import ClipCache, Source
from clcr_edge.data.sets.decode import Decoded, MediaConfig, Span, decode
from clcr_edge.errors import ConfigError, DataError, SourceError
from clcr_edge.features import luma_square, rgb_square
from clcr_edge.packets import ByteArray

CONFIG = MediaConfig(frames_per_s=5.0, image_size=96, max_s=4.0)


def _decode(path: Path, *spans: Span, config: MediaConfig = CONFIG, audio: Path | None = None) -> list[Decoded]:
    found = dict(decode(path, audio or path, spans, config))
    out = []
    for i in range(len(spans)):
        result = found[i]
        assert isinstance(result, Decoded), result
        out.append(result)
    return out


def test_frames_are_the_newest_in_the_middle_of_each_step(tmp_path: Path) -> None:
    sound = noise(2.0)
    path = make_clip(tmp_path / "a.mp4", video_s=2.0, audio=sound)
    (whole,) = _decode(path, Span())
    assert whole.notes == ()
    # 25 pictures a second: 0.1, 0.3, ... s show the pictures 2, 7, 12, ...
    assert [_number(f) for f in whole.clip.frames] == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47]
    assert whole.clip.frames.dtype == np.uint8
    at, score = find_in(whole.clip.audio, sound[4_000:12_000])
    assert abs(at - 4_000) < 40
    assert score > 0.95
    assert abs(len(whole.clip.audio) - 32_000) < 2_100


def _number(frame: ByteArray) -> int:
    """Which `counter_image` it is, by the grey of its lower part (its blocks are cropped at the sides)."""
    return round(float(frame[60:, :, 1].mean()) / 3)


def test_one_pass_serves_overlapping_spans_and_equals_one_pass_each(tmp_path: Path) -> None:
    sound = noise(3.0)
    path = make_clip(tmp_path / "a.mp4", video_s=3.0, audio=sound)
    spans = [Span(1.0, 2.0), Span(0.0, 0.6), Span(0.5, 2.5), Span()]
    together = _decode(path, *spans)
    for span, found in zip(spans, together, strict=True):
        (alone,) = _decode(path, span)
        assert np.array_equal(alone.clip.frames, found.clip.frames)
        assert np.array_equal(alone.clip.audio, found.clip.audio)
    assert [len(d.clip.frames) for d in together] == [5, 3, 10, 15]
    assert len(together[0].clip.audio) == 16_000
    assert _number(together[0].clip.frames[0]) == 27
    at, _ = find_in(together[0].clip.audio, sound[20_000:28_000])
    assert abs(at - 4_000) < 40


def test_a_file_without_picture_or_sound(tmp_path: Path) -> None:
    (seen,) = _decode(make_clip(tmp_path / "v.avi", video_s=0.6), Span())
    assert (len(seen.clip.frames), len(seen.clip.audio), seen.notes) == (3, 0, ("no sound",))
    (heard,) = _decode(make_clip(tmp_path / "a.wav", video_s=0, audio=noise(0.6)), Span())
    assert heard.clip.frames.shape == (0, 96, 96, 3)
    assert (len(heard.clip.audio), heard.notes) == (9_600, ("no picture",))


def test_picture_and_sound_from_two_files(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "v.mp4", video_s=1.0, audio=noise(1.0, seed=1))
    sound = noise(1.0, seed=2)
    (both,) = _decode(film, Span(), audio=make_clip(tmp_path / "a.wav", video_s=0, audio=sound))
    assert len(both.clip.frames) == 5
    assert find_in(both.clip.audio, sound[2_000:10_000])[1] > 0.99


def test_a_late_picture_is_black_before_it_begins(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", video_s=1.0, video_from_s=1.0, audio=noise(2.0))
    (found,) = _decode(path, Span())
    assert len(found.clip.frames) == 10
    assert not found.clip.frames[:5].any()
    assert _number(found.clip.frames[5]) == 2


def test_a_long_file_is_cut_and_says_so(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", video_s=2.0, audio=noise(2.0))
    config = dataclasses.replace(CONFIG, max_s=1.0)
    (cut,) = _decode(path, Span(), config=config)
    assert cut.notes == ("longer than max_s = 1.0 s; cut there",)
    assert (len(cut.clip.frames), len(cut.clip.audio)) == (5, 16_000)


def test_silence_is_noted(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as f:
        f.setparams((1, 2, 16_000, 0, "NONE", ""))
        f.writeframes(bytes(16_000))
    (found,) = _decode(tmp_path / "a.wav", Span())
    assert found.notes == ("no picture", "its sound is all zero")


@pytest.mark.parametrize(
    ("span", "message"),
    [
        (Span(1.0, 1.0), "is no span"),
        (Span(-1.0, 1.0), "is no span"),
        (Span(float("nan"), 1.0), "is no span"),
        (Span(0.0, float("inf")), "is no span"),
        (Span(-1.0), "starts at -1.0 s"),
        (Span(0.0, 5.0), "5.0 s long, more than max_s = 4.0"),
        (Span(0.0, 3.0), r"should end at 3.00 s, but the file ends at 1\.\d\d s"),
        (Span(2.0), "neither a frame nor a sound"),
    ],
)
def test_spans_that_cannot_be(tmp_path: Path, span: Span, message: str) -> None:
    path = make_clip(tmp_path / "a.mp4", video_s=1.0, audio=noise(1.0))
    found = dict(decode(path, path, [span, Span(0.0, 0.8)], CONFIG))
    with pytest.raises(DataError, match=message):
        raise found[0]  # type: ignore[misc]
    assert isinstance(found[1], Decoded)  # a wrong neighbour does no harm


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    whole = make_clip(tmp_path / "whole.avi", video_s=3.0, audio=noise(3.0)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    for name in ("empty.mp4", "noise.mp4", "absent.mp4"):
        with pytest.raises(SourceError, match=name):
            list(decode(tmp_path / name, tmp_path / name, [Span()], CONFIG))
    with pytest.raises(DataError, match=r"cut\.avi: cut off: \d+ bytes of \d+"):
        list(decode(tmp_path / "cut.avi", tmp_path / "cut.avi", [Span()], CONFIG))
    fast = make_clip(tmp_path / "fast.mp4", video_s=3.0, audio=noise(3.0), options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(fast[: len(fast) // 2])
    found = dict(decode(tmp_path / "cut.mp4", tmp_path / "cut.mp4", [Span(), Span(0.0, 1.0)], CONFIG))
    with pytest.raises(DataError, match=r"cut\.mp4: cut off: its video ends at 1\.\d\d s of 3\.00 s"):
        raise found[0]  # type: ignore[misc]
    assert isinstance(found[1], Decoded)  # what ended before the cut is whole


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", video_s=0.2)
    monkeypatch.setattr("clcr_edge.data.sets.decode._MOST_PIXELS", 160 * 120 - 1)
    with pytest.raises(DataError, match="pictures of 160 x 120"):
        list(decode(path, path, [Span()], CONFIG))


def test_rgb_square_averages_areas_and_agrees_with_luma() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    small = rgb_square(image, 20)
    expected = image[:, 20:80].reshape(20, 3, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - expected).max() <= 0.5001
    luma = luma_square(image, 20)[0] * 255
    assert np.abs(small @ np.array([0.3, 0.587, 0.113]) - luma).max() < 2.5


def test_configuration_is_checked() -> None:
    for values in ({"frames_per_s": 0.0}, {"image_size": 4}, {"sample_rate_hz": 1}, {"max_s": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            MediaConfig(**values)
    with pytest.raises(ConfigError, match="one clip would take"):
        MediaConfig(frames_per_s=60, image_size=512, max_s=600)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "a.mp4", video_s=0.6, audio=noise(0.6))


def test_a_second_time_nothing_is_decoded(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ClipCache(tmp_path, None, CONFIG)
    assert cache.folder == tmp_path / ".clcr-edge-cache"
    quiet = make_clip(tmp_path / "v.mp4", video_s=0.4)
    sources = [Source(film, film), Source(quiet, quiet)]
    seen: list[tuple[int, int]] = []
    assert cache.prepare(sources, 2, lambda done, of: seen.append((done, of))) == [(), ("no sound",)]
    assert seen == [(1, 2), (2, 2)]
    first = cache.get(sources[0])
    monkeypatch.setattr("clcr_edge.data.sets.cache.decode", None)
    again = ClipCache(tmp_path, None, CONFIG)
    assert again.prepare(sources, 2) == [(), ("no sound",)]  # the notes are kept too
    assert np.array_equal(again.get(sources[0]).clip.frames, first.clip.frames)
    assert np.array_equal(again.get(sources[0]).clip.audio, first.clip.audio)
    assert not list(cache.folder.rglob("*.part"))


def test_whatever_changes_is_decoded_anew(film: Path, tmp_path: Path) -> None:
    source = Source(film, film)
    key = ClipCache(tmp_path, None, CONFIG).path_of(source)
    keys = {key}
    for change in ({"frames_per_s": 6.0}, {"image_size": 64}, {"sample_rate_hz": 8_000}, {"max_s": 3.0}):
        keys.add(ClipCache(tmp_path, None, dataclasses.replace(CONFIG, **change)).path_of(source))
    keys.add(ClipCache(tmp_path, None, CONFIG).path_of(Source(film, film, Span(0.0, 0.3))))
    keys.add(ClipCache(tmp_path, None, CONFIG).path_of(Source(film, None)))
    stat = film.stat()
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.add(ClipCache(tmp_path, None, CONFIG).path_of(source))
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ClipCache(tmp_path, None, CONFIG).path_of(source) == key
    film.write_bytes(film.read_bytes() + b"\0")
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    keys.add(ClipCache(tmp_path, None, CONFIG).path_of(source))
    assert len(keys) == 9


def test_a_damaged_entry_is_mended(film: Path, tmp_path: Path) -> None:
    cache = ClipCache(tmp_path, None, CONFIG)
    source = Source(film, film)
    good = cache.get(source).clip.frames
    path = cache.path_of(source)
    raw = path.read_bytes()
    for damage in (b"", raw[:100], raw[:-50], b"PK\x03\x04" + raw[100:]):
        path.write_bytes(damage)
        assert np.array_equal(cache.get(source).clip.frames, good)
        assert path.stat().st_size == len(raw)


def test_faults_come_back_in_place(film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    cache = ClipCache(tmp_path, tmp_path / "elsewhere", CONFIG)
    bad, gone = tmp_path / "bad.mp4", tmp_path / "gone.mp4"
    found = cache.prepare([Source(bad, bad), Source(film, film), Source(gone, gone), Source(film, film, Span(3.0))], 2)
    assert [type(f) for f in found] == [DataError, tuple, DataError, DataError]
    assert "bad.mp4" in str(found[0])
    assert "gone.mp4" in str(found[2])
    assert not (tmp_path / ".clcr-edge-cache").exists()


def test_a_root_that_holds_nothing_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="crema-d: found no sample at all; see if --root is the right folder"):
        load("crema-d", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="name another cache folder"):
        ClipCache(tmp_path, tmp_path / "file" / "cache", CONFIG)
