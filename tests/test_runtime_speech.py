"""The recogniser on the shipped model and real speech; models that would take the process down with them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live_rig import need_module, need_program

from clcr_edge.errors import SpeechModelError
from clcr_edge.packets import AudioChunk, FloatArray, Word
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.media_file import MediaFile
from clcr_edge.runtime.speech import LockstepSpeech, Recogniser, open_speech
from clcr_edge.runtime.speech_process import SpeechProcess
from clcr_edge.runtime.threaded_speech import ThreadedSpeech
from clcr_edge.stt import augment


@pytest.fixture(scope="module")
def model() -> Path:
    need_module("vosk")
    path = default_speech_model()
    if path is None:
        pytest.skip("no speech model ships with this checkout")
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> FloatArray:
    """ "seven. three. nine. zero." by espeak-ng, 16 kHz."""
    need_program("espeak-ng")
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), "seven. three. nine. zero."], check=True)
    file = MediaFile(path, video=False, audio=True)
    assert file.audio is not None
    return np.concatenate([c.samples for c in file.audio.until(60.0)])


def cut(samples: FloatArray, size: int, t_s: float = 0.0) -> list[AudioChunk]:
    return [AudioChunk(samples[i : i + size], 16_000, t_s + i / 16_000) for i in range(0, len(samples), size)]


def heard(recogniser: Recogniser, chunks: list[AudioChunk]) -> list[Word]:
    return [word for chunk in chunks for word in recogniser.push(chunk)] + recogniser.finish()


@pytest.mark.live
def test_words_come_once_in_order_and_on_the_streams_clock(model: Path, speech: FloatArray) -> None:
    recogniser = Recogniser(model, check=False)
    words = heard(recogniser, cut(speech, 640, t_s=1_000.0))
    assert [w.text for w in words] == ["seven", "three", "nine", "zero"]
    assert all(1_000.0 <= w.start_s <= w.end_s <= 1_000.0 + len(speech) / 16_000 for w in words)
    assert all(0 < w.confidence <= 1 for w in words)
    # After finish() a new stream begins, and gives the same again.
    assert [w.text for w in heard(recogniser, cut(speech, 640))] == ["seven", "three", "nine", "zero"]


@pytest.mark.live
def test_word_ends_are_put_right_by_what_the_model_says_of_them(model: Path, speech: FloatArray, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "conf/late_ends.conf").unlink()
    late = heard(Recogniser(copy, check=False), cut(speech, len(speech)))
    (copy / "conf/late_ends.conf").write_text("--late-ends=0.05\n")
    recogniser = Recogniser(copy, check=False)
    for right in (heard(recogniser, cut(speech, len(speech))), heard(recogniser.fresh(), cut(speech, len(speech)))):
        assert [w.text for w in right] == [w.text for w in late]
        np.testing.assert_allclose([w.end_s for w in right], [w.end_s - 0.05 for w in late])
        assert [w.start_s for w in right] == [w.start_s for w in late]


@pytest.mark.parametrize("text", ["", "0.02", "--late-ends=-0.1", "--late-ends=0.3", "--late-ends=nan", "--late-ends=0.1\nx"])
def test_a_model_that_says_nonsense_of_its_word_ends_is_refused(model: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "conf/late_ends.conf").write_text(text)
    with pytest.raises(SpeechModelError, match=r"late_ends\.conf"):
        open_speech(copy, live=True)


@pytest.mark.live
def test_any_chunking_gives_the_same_words_and_times(model: Path, speech: FloatArray) -> None:
    recogniser = Recogniser(model, check=False)
    assert heard(recogniser, cut(speech, 333)) == heard(recogniser, cut(speech, 640)) == heard(recogniser, cut(speech, 5_000))


@pytest.mark.live
def test_a_new_round_changes_neither_words_nor_times(model: Path, speech: FloatArray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vosk's times are float32 seconds since its recogniser was made, so it is made anew at a pause every ten minutes; here
    after each of three utterances. Stamps are those of a clock after three years."""
    samples = np.tile(np.concatenate([speech, np.zeros(3 * 16_000, np.float32)]), 3)
    start_s = 94_608_000.25

    def hear(round_s: float) -> tuple[list[Word], int]:
        monkeypatch.setattr("clcr_edge.runtime.speech._ROUND_S", round_s)
        recogniser = Recogniser(model, check=False)
        first, rounds = recogniser._kaldi, 0
        words: list[Word] = []
        for chunk in cut(samples, 640, start_s):
            words += recogniser.push(chunk)
            rounds += recogniser._kaldi is not first
            first = recogniser._kaldi
        assert recogniser._origin_s is not None
        # Whatever round it is in, it knows what time it is.
        assert abs(recogniser._origin_s + recogniser._count / 16_000 - (start_s + len(samples) / 16_000)) < 1e-6
        return words + recogniser.finish(), rounds

    (one, none), (many, rounds) = hear(600.0), hear(1.0)
    assert none == 0
    assert rounds >= 3
    assert [w.text for w in one] == ["seven", "three", "nine", "zero"] * 3
    assert [w.text for w in many] == [w.text for w in one]
    assert max(abs(a.end_s - b.end_s) for a, b in zip(one, many, strict=True)) < 0.08
    assert max(abs(a.start_s - b.start_s) for a, b in zip(one, many, strict=True)) < 0.08


@pytest.mark.live
def test_a_hole_ends_the_utterance_and_times_go_on_after_it(model: Path, speech: FloatArray) -> None:
    recogniser = Recogniser(model, check=False)
    words = heard(recogniser, cut(speech, 640) + cut(speech, 640, t_s=60.0))
    assert [w.text for w in words] == ["seven", "three", "nine", "zero"] * 2
    assert words[3].end_s < 10 < 60 <= words[4].start_s


@pytest.mark.live
def test_white_noise_that_sets_in_is_no_word(model: Path) -> None:
    recogniser = Recogniser(model, check=False)
    told = 0
    for seed in range(12):
        sound = np.zeros(64_000, np.float32)
        sound[16_000:48_000] = 0.09 * np.random.default_rng(seed).standard_normal(32_000)
        told += len(heard(recogniser, cut(sound, 640)))
    assert told <= 1


@pytest.mark.live
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_noise_that_pulses_does_not_hold_it_up(model: Path, slope: float) -> None:
    """With Kaldi's own limit of memory it stalls: what it holds open are lattices of `[unk]`'s phones."""
    t = np.arange(64_000) / 16_000
    pulses = 0.1 * augment.coloured_noise(64_000, np.random.default_rng(3), slope) * np.maximum(0.0, np.sin(2 * np.pi * 3 * t))
    recogniser = Recogniser(model, check=False)
    began = time.process_time()
    heard(recogniser, cut(np.pad(pulses, (16_000, 0)).astype(np.float32), 640))
    assert time.process_time() - began < 20.0


@pytest.mark.live
def test_silence_and_noise_say_nothing(model: Path) -> None:
    recogniser = Recogniser(model, check=False)
    rng = np.random.default_rng(0)
    assert heard(recogniser, cut(np.zeros(64_000, np.float32), 640)) == []
    assert heard(recogniser, cut((0.003 * rng.standard_normal(64_000)).astype(np.float32), 640)) == []


@pytest.mark.live
@pytest.mark.filterwarnings("error")
def test_samples_that_are_no_number_are_silence(model: Path, speech: FloatArray) -> None:
    broken, silent = speech.copy(), speech.copy()
    broken[100:120], silent[100:120] = np.nan, 0.0
    broken[200], silent[200] = np.inf, 1.0
    recogniser = Recogniser(model, check=False)
    words = heard(recogniser, cut(silent, 640))
    assert len(words) == 4
    assert heard(recogniser, cut(broken, 640)) == words


@pytest.mark.live
def test_in_lockstep_words_are_there_when_push_returns(model: Path, speech: FloatArray) -> None:
    runs = []
    for _ in range(2):
        lockstep = LockstepSpeech(Recogniser(model, check=False))
        run = []
        for tick, chunk in enumerate(cut(speech, 640)):
            lockstep.push(chunk)
            run += [(tick, word) for word in lockstep.take()]
        runs.append(run)
        lockstep.close()
    assert runs[0] == runs[1]
    assert [word.text for _, word in runs[0]][:3] == ["seven", "three", "nine"]


@pytest.mark.live
def test_in_a_thread_push_never_waits(model: Path, speech: FloatArray) -> None:
    threaded = ThreadedSpeech(Recogniser(model, check=False))
    worst_s = 0.0
    for chunk in cut(speech[: 4 * 16_000], 640):
        begun = time.perf_counter()
        threaded.push(chunk)
        worst_s = max(worst_s, time.perf_counter() - begun)
    deadline = time.monotonic() + 20
    words: list[Word] = []
    while len(words) < 3 and time.monotonic() < deadline:
        words += threaded.take()
        time.sleep(0.02)
    threaded.close()
    assert [w.text for w in words][:3] == ["seven", "three", "nine"]
    assert worst_s < 0.05


@pytest.mark.live
def test_a_model_in_the_old_layout_is_taken(model: Path, speech: FloatArray, tmp_path: Path) -> None:
    """All files in one folder, as Vosk's first models had them; its options are then Vosk's own."""
    for path in (p for p in model.rglob("*") if p.is_file() and p.name not in ("model.conf", "MODEL_CARD.md")):
        shutil.copy(path, tmp_path / path.name)
    words = heard(Recogniser(tmp_path), cut(speech, 640))
    assert [w.text for w in words] == ["seven", "three", "nine", "zero"]
    (tmp_path / "Gr.fst").unlink()
    with pytest.raises(SpeechModelError, match="no decoding graph"):
        Recogniser(tmp_path)


@pytest.mark.live
def test_a_model_whose_word_times_are_wrong_is_taken_and_told(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    told: list[str] = []
    open_speech(copy, live=False, notice=told.append).close()
    assert told == []
    (copy / "graph/phones/word_boundary.int").unlink()
    open_speech(copy, live=False, notice=told.append).close()
    open_speech(copy, live=True, notice=told.append).close()
    assert told == 2 * [f"{copy}: has no word_boundary.int, so that the times of its words are wrong by tenths of a second"]


def _drop(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def _without_silence(model: Path) -> None:
    conf = model / "conf/model.conf"
    conf.write_text("\n".join(x for x in conf.read_text().splitlines() if "silence-phones" not in x))


def _cut_network(model: Path) -> None:
    network = model / "am/final.mdl"
    network.write_bytes(network.read_bytes()[:200_000])


def _empty_graph(model: Path) -> None:
    for path in (model / "graph").glob("*.fst"):
        path.write_bytes(b"")


def _empty_names(model: Path) -> None:
    (model / "graph/words.txt").write_text("")


@pytest.mark.live
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_drop("am/final.mdl"), "not a Vosk model"),
        (_drop("graph/Gr.fst"), "no decoding graph"),
        (_empty_graph, "empty"),
        (_empty_names, r"words\.txt: empty"),  # Vosk loads it
        (_without_silence, "Vosk loads it and falls over it"),  # it aborts the process
        (_cut_network, "Vosk cannot load it"),
    ],
)
def test_a_broken_model_is_an_error_and_not_the_end(
    model: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    damage(copy)
    with pytest.raises(SpeechModelError, match=said) as caught:
        Recogniser(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.live
def test_a_graph_with_words_that_have_no_name_is_an_error_once_one_is_said(
    model: Path, speech: FloatArray, tmp_path: Path
) -> None:
    """Vosk tells them as words without text, which no stream takes."""
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "graph/words.txt").write_text("<eps> 0\n")
    for listening in (Recogniser(copy, check=False), SpeechProcess(copy)):
        with pytest.raises(SpeechModelError, match=r"words\.txt does not name") as caught:
            listening.push(AudioChunk(speech, 16_000, 0.0))
        listening.close()
        assert str(copy) in str(caught.value)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    need_module("vosk")
    with pytest.raises(SpeechModelError, match="no such speech model"):
        Recogniser(tmp_path / "none")
    with pytest.raises(SpeechModelError, match=r"needs am/final\.mdl"):
        Recogniser(tmp_path)
    (tmp_path / "vosk-model-small/am").mkdir(parents=True)
    with pytest.raises(SpeechModelError, match=r"did you mean .*vosk-model-small"):
        Recogniser(tmp_path)
