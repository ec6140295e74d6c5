"""Files as media: every frame and sample once, at its time, whatever the container does."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from clips import find_in, make_clip, noise
from live_rig import read_counter, shared_file

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk, FloatArray, VideoFrame
from clcr_edge.runtime.media_file import MediaFile
from clcr_edge.runtime.program_stream import is_cut

STEP_S = 0.04


def read(file: MediaFile, step_s: float = STEP_S, seconds: float = 60.0) -> tuple[list[VideoFrame], list[AudioChunk]]:
    frames: list[VideoFrame] = []
    chunks: list[AudioChunk] = []
    for k in range(1, int(seconds / step_s)):
        if file.video is not None:
            frames += file.video.until(k * step_s)
        if file.audio is not None:
            chunks += file.audio.until(k * step_s)
        tracks = [t for t in (file.video, file.audio) if t is not None]
        if all(t.exhausted and t.end_s <= k * step_s for t in tracks):
            break
    return frames, chunks


def joined(chunks: list[AudioChunk]) -> FloatArray:
    """The audio from time 0 on, silence where there was none."""
    out = np.zeros(round(chunks[-1].end_s * 16_000), np.float32)
    for chunk in chunks:
        start = round(chunk.t_s * 16_000)
        out[start : start + len(chunk.samples)] = chunk.samples
    return out


@pytest.mark.parametrize(
    ("name", "rate_hz"),
    [("a.mp4", 16_000), ("a.mp4", 44_100), ("a.mpg", 44_100), ("a.avi", 48_000), ("a.mkv", 48_000), ("a.mov", 32_000)],
)
def test_both_modalities_arrive_whole_and_in_time(tmp_path: Path, name: str, rate_hz: int) -> None:
    sound = noise(2.0)
    at_rate = np.interp(np.arange(int(2 * rate_hz)) * 16_000 / rate_hz, np.arange(len(sound)), sound).astype(np.float32)
    with_sound = MediaFile(make_clip(tmp_path / name, video_s=2.0, audio=at_rate, rate_hz=rate_hz), video=True, audio=True)
    frames, chunks = read(with_sound)
    assert [read_counter(f.image) for f in frames] == list(range(50))
    assert [f.seq for f in frames] == list(range(50))
    first_s = frames[0].t_s  # the sound's run-in may begin the file
    assert 0 <= first_s < 0.03
    np.testing.assert_allclose([f.t_s - first_s for f in frames], np.arange(50) / 25, atol=2e-3)
    assert all(b.t_s == pytest.approx(a.end_s, abs=1e-9) for a, b in itertools.pairwise(chunks))
    at, correlation = find_in(joined(chunks), sound[8_000:24_000])
    assert correlation > 0.93
    # A container without edit lists may leave the coder's run-in (some 20 ms) at the front of the sound.
    assert abs(at - 8_000) < (40 if name.endswith(("mp4", "mov")) else 800)
    assert with_sound.problem is None


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_lossless_audio_is_exact(tmp_path: Path, name: str) -> None:
    sound = noise(1.03)
    file = MediaFile(make_clip(tmp_path / name, video_s=0, audio=sound), video=False, audio=True)
    _, chunks = read(file)
    np.testing.assert_allclose(joined(chunks), np.trunc(sound * 32_767) / 32_768, atol=2e-5)
    assert all(len(c.samples) == 640 for c in chunks[:-1])


def test_any_step_gives_the_same_samples(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=1.0, audio=noise(1.0, 44_100), rate_hz=44_100)
    whole = [read(MediaFile(clip, video=True, audio=True), step_s) for step_s in (0.04, 0.013, 0.5)]
    for frames, chunks in whole[1:]:
        np.testing.assert_array_equal(joined(chunks), joined(whole[0][1]))
        assert [f.t_s for f in frames] == [f.t_s for f in whole[0][0]]


@pytest.mark.parametrize(("video_from_s", "audio_from_s"), [(0.48, 0.0), (0.0, 0.48)])
def test_a_stream_that_begins_late_keeps_its_offset(tmp_path: Path, video_from_s: float, audio_from_s: float) -> None:
    sound = noise(1.0)
    clip = make_clip(tmp_path / "a.mkv", audio=sound, video_from_s=video_from_s, audio_from_s=audio_from_s)
    frames, chunks = read(MediaFile(clip, video=True, audio=True))
    at, correlation = find_in(joined(chunks), sound[2_000:12_000])
    assert correlation > 0.95
    offset_s = (at - 2_000) / 16_000 - frames[0].t_s
    assert offset_s == pytest.approx(audio_from_s - video_from_s, abs=0.005)
    assert min(frames[0].t_s, chunks[0].t_s) == pytest.approx(0.0, abs=0.07)  # the coder's run-in may lead


def test_a_badly_interleaved_file_is_read_all_the_same(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", video_s=2.0, audio=noise(2.0), interleaved=False)
    frames, chunks = read(MediaFile(clip, video=True, audio=True))
    assert len(frames) == 50
    assert sum(len(c.samples) for c in chunks) >= 31_000


def test_a_missing_modality_is_named(tmp_path: Path) -> None:
    silent = make_clip(tmp_path / "silent.mp4")
    song = make_clip(tmp_path / "song.wav", video_s=0, audio=noise(0.5))
    with pytest.raises(SourceError, match=r"silent\.mp4: holds no audio \(video only\)"):
        MediaFile(silent, video=True, audio=True)
    with pytest.raises(SourceError, match=r"song\.wav: holds no video \(audio only\)"):
        MediaFile(song, video=True, audio=False)
    assert len(read(MediaFile(silent, video=True, audio=False))[0]) == 25


def test_what_is_no_media_file_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no media\n" * 100)
    empty = tmp_path / "empty.wav"
    empty.touch()
    for path, why in (
        (text, "cannot be read"),
        (empty, "cannot be read"),
        (tmp_path / "no.mp4", "no such file"),
        (tmp_path, "not a"),
    ):
        with pytest.raises(SourceError, match=why) as caught:
            MediaFile(path, video=True, audio=False)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_never_reaches_for_the_network(tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(SourceError, match=r"list\.m3u8"):
        read(MediaFile(playlist, video=True, audio=False))


def test_a_file_cut_off_is_used_as_far_as_it_goes_and_reported(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mp4", video_s=4.0, audio=noise(4.0), options={"movflags": "+faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    file = MediaFile(cut, video=True, audio=True)
    frames, chunks = read(file)
    assert 20 < len(frames) < 90
    assert chunks
    assert file.problem is not None
    assert str(cut) in file.problem


def test_a_program_stream_cut_off_is_reported_and_a_whole_one_is_not(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.mpg", video_s=2.0, audio=noise(2.0))
    data, cut = whole.read_bytes(), tmp_path / "cut.mpg"
    places = np.random.default_rng(0).integers(len(data) // 4, len(data), 100)
    found = 0
    for place in places.tolist():
        cut.write_bytes(data[:place])
        found += is_cut(cut)
    assert found >= 97  # a cut between two packets cannot be told
    for end in (b"", b"\x00\x00\x01\xb9", b"\x00\x00", b"\xff" * 40):  # with the end code, or padded
        cut.write_bytes(data + end)
        assert not is_cut(cut)
    for content, problem in ((data, None), (data[: len(data) * 6 // 10 + 3], f"{cut}: cut off in the middle of a packet")):
        cut.write_bytes(content)
        file = MediaFile(cut, video=True, audio=True)
        read(file)
        assert (file.problem or "").startswith(problem or "nothing") or file.problem is problem


def test_damage_in_the_middle_costs_only_what_was_hit(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", video_s=4.0, audio=noise(4.0, 48_000), rate_hz=48_000)
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3_000] = np.random.default_rng(0).bytes(3_000)
    clip.write_bytes(data)
    frames, chunks = read(MediaFile(clip, video=True, audio=True))
    assert frames[-1].t_s > 3.5
    assert chunks[-1].end_s > 3.5
    assert all(b.t_s > a.t_s for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize("name", ["bbaf2n", "brbk7n", "lbax4n", "lrwp9a", "sbwe5n"])
def test_real_clips(name: str) -> None:
    file = MediaFile(shared_file(f"data/grid_clips/{name}.mpg"), video=True, audio=True)
    frames, chunks = read(file)
    assert len(frames) == 75
    assert sum(len(c.samples) for c in chunks) == 47_648
    assert file.problem is None


def test_a_real_clip_of_many_streams_gives_its_best_ones() -> None:
    file = MediaFile(shared_file("data/nasa_av/nasa_13013.mp4"), video=True, audio=True)
    frames, chunks = read(file)
    assert len(frames) == 390
    assert frames[0].image.shape == (270, 480, 3)
    assert sum(len(c.samples) for c in chunks) == 208_896
