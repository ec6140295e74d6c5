"""The live recogniser: stalled or crashed, it costs words and never predictions, and comes back by itself."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from live_rig import need_module, need_program

from clcr_edge.errors import SpeechModelError
from clcr_edge.packets import AudioChunk, FloatArray, Word
from clcr_edge.runtime import deadline
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.machine import process_use
from clcr_edge.runtime.media_file import MediaFile
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.speech import Recogniser
from clcr_edge.runtime.speech_model import check_speech_model
from clcr_edge.runtime.speech_process import SpeechProcess
from clcr_edge.runtime.threaded_speech import ThreadedSpeech


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Broken:
    """A recogniser that hears a word in each chunk; `hang` and `crash` say what the next ones do."""

    hanging: ClassVar[set[threading.Thread]] = set()

    def __init__(self, hang: threading.Event | None = None, crash: bool = False) -> None:
        self.hang, self.crash = hang, crash
        self.next: list[Broken] = []

    use = None

    def ready(self) -> Broken:
        return self

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass

    def push(self, chunk: AudioChunk) -> list[Word]:
        if self.crash:
            raise RuntimeError("out of luck")
        if self.hang is not None and not self.hang.is_set():
            self.hanging.add(threading.current_thread())
            self.hang.wait(60)
            self.hanging.discard(threading.current_thread())
        return [Word("word", chunk.t_s, chunk.end_s)]

    def fresh(self) -> Broken:
        return self.next.pop(0) if self.next else Broken()


def chunk(t_s: float) -> AudioChunk:
    return AudioChunk(np.zeros(640, np.float32), 16_000, t_s)


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until
        time.sleep(0.0005)


def settle(speech: ThreadedSpeech) -> None:
    """Give the worker the real time that it needs, on however busy a machine, to hear all that waits, to crash or to hang."""

    def settled() -> bool:
        worker = speech._worker
        return worker is None or not worker.waiting or worker.error is not None or worker.thread in Broken.hanging

    wait_until(settled)


def run(speech: ThreadedSpeech, clock: Clock, seconds: float) -> tuple[list[Word], list[SourceState]]:
    """Live ticks on a clock that the test drives."""
    words, states = [], []
    for _ in range(round(seconds * 25)):
        speech.push(chunk(clock.now))
        clock.now += 0.04
        settle(speech)
        words += speech.take()
        states.append(speech.state)
    return words, states


def turns(states: list[SourceState]) -> list[SourceState]:
    return [s for i, s in enumerate(states) if i == 0 or s is not states[i - 1]]


def test_a_crash_is_told_once_and_a_fresh_recogniser_takes_over() -> None:
    clock, notices = Clock(), list[str]()
    first = Broken(crash=True)
    first.next = [Broken(crash=True)]
    speech = ThreadedSpeech(first, notice=notices.append, clock=clock)
    second = first.next[0]
    second.next = []
    words, states = run(speech, clock, 4.0)
    assert words
    assert [s for s in turns(states) if s is SourceState.LOST]
    assert states[-1] is SourceState.LIVE
    assert isinstance(speech.error, RuntimeError)
    assert notices == [
        "speech recognition has stopped (out of luck); predictions go on without new words until it is back",
        "speech recognition is back",
    ]
    health = speech.health
    assert health.drops > 5
    assert health.last_media_s == pytest.approx(clock.now, abs=0.1)
    # 0.5 s, then 1 s: the words came after both waits.
    assert words[0].start_s - 100.0 == pytest.approx(1.5, abs=0.4)
    assert all(b.start_s > a.start_s for a, b in pairwise(words))
    speech.close()


def test_a_stall_is_seen_given_up_and_replaced() -> None:
    clock, notices = Clock(), list[str]()
    hang = threading.Event()
    speech = ThreadedSpeech(Broken(hang), notice=notices.append, clock=clock)
    words, states = run(speech, clock, 8.0)
    assert turns(states)[:3] == [SourceState.STARTING, SourceState.STALLED, SourceState.LOST]
    assert states[-1] is SourceState.LIVE
    assert words[0].start_s - 100.0 == pytest.approx(5.5, abs=0.4)
    assert [n.split()[2:4] for n in notices] == [["has", "stalled;"], ["is", "back"]]
    assert "speech recognition" in deadline.abandoned()
    hang.set()  # the old one wakes: what it heard belongs to the past
    wait_until(lambda: "speech recognition" not in deadline.abandoned())
    late, _ = run(speech, clock, 1.0)
    assert min(w.start_s for w in late) > 107.0
    speech.close()


def test_recognisers_that_all_hang_do_not_pile_up() -> None:
    clock = Clock()
    hang = threading.Event()
    first = Broken(hang)
    first.next = [Broken(hang) for _ in range(20)]
    before = threading.active_count()
    speech = ThreadedSpeech(first, clock=clock)
    _, states = run(speech, clock, 60.0)
    assert threading.active_count() - before == 3
    assert states[-1] is SourceState.LOST
    first.next = []
    hang.set()
    wait_until(lambda: "speech recognition" not in deadline.abandoned())
    words, states = run(speech, clock, 16.0)
    assert words
    assert states[-1] is SourceState.LIVE
    speech.close()


def test_a_process_that_stood_still_is_no_stall() -> None:
    clock = Clock()
    hang = threading.Event()
    speech = ThreadedSpeech(Broken(hang), clock=clock)
    run(speech, clock, 1.0)
    clock.now += 3_600.0
    run(speech, clock, 1.0)
    assert deadline.abandoned().count("speech recognition") == 0
    hang.set()
    wait_until(lambda: not speech._worker.waiting)  # type: ignore[union-attr]
    _, states = run(speech, clock, 0.2)
    assert states[-1] is SourceState.LIVE
    assert speech.health.reconnects == 0
    speech.close()


def test_silence_for_hours_is_live() -> None:
    clock = Clock()
    speech = ThreadedSpeech(Broken(), clock=clock)
    run(speech, clock, 0.2)
    for _ in range(100):
        clock.now += 100.0
        speech.take()
    assert speech.state is SourceState.LIVE
    speech.close()


def test_one_that_is_too_slow_is_degraded_and_its_losses_are_counted() -> None:
    clock = Clock()
    hang = threading.Event()
    speech = ThreadedSpeech(Broken(), clock=clock)
    run(speech, clock, 0.2)
    speech._worker.push = lambda _chunk: False  # type: ignore[union-attr, method-assign]
    _, states = run(speech, clock, 0.2)
    assert states[-1] is SourceState.DEGRADED
    assert speech.health.drops == 5
    assert "slower than real time" in speech.health.reason
    hang.set()
    speech.close()


# -- the real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    need_module("vosk")
    path = default_speech_model()
    if path is None:
        pytest.skip("no speech model ships with this checkout")
    return Recogniser(path, check=False)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> FloatArray:
    """ "seven. three. nine. zero." by espeak-ng, 16 kHz."""
    need_program("espeak-ng")
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), "seven. three. nine. zero."], check=True)
    file = MediaFile(path, video=False, audio=True)
    assert file.audio is not None
    return np.concatenate([*(c.samples for c in file.audio.until(60.0)), np.zeros(16_000, np.float32)])


def hear(speech: ThreadedSpeech, samples: FloatArray, t_s: float, words: int) -> list[Word]:
    """Push in real order, far faster than real time, without overfilling the queue; wait for the words."""
    out: list[Word] = []
    until = time.monotonic() + 30
    for i in range(0, len(samples), 640):
        while speech._worker is not None and speech._worker.waiting_s > 3.0 and time.monotonic() < until:
            out += speech.take()
            time.sleep(0.005)
        speech.push(AudioChunk(samples[i : i + 640], 16_000, t_s + i / 16_000))
        out += speech.take()
    while len(out) < words and time.monotonic() < until:
        out += speech.take()
        time.sleep(0.01)
    return out


@pytest.mark.live
@pytest.mark.parametrize("fault", ["hangs", "crashes"])
def test_vosk_comes_back_and_says_what_it_would_have_said(
    fault: str, recogniser: Recogniser, spoken: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clcr_edge.runtime.threaded_speech._GIVEN_UP_S", 1.0)
    monkeypatch.setattr("clcr_edge.runtime.threaded_speech._STALLED_S", 0.3)
    whole = [w for i in range(0, len(spoken), 640) for w in _push(recogniser, spoken, i, 60.0)]
    broken = recogniser.fresh()
    release = threading.Event()
    monkeypatch.setattr(broken, "push", lambda _chunk: release.wait(60) if fault == "hangs" else 1 / 0)
    speech = ThreadedSpeech(broken)
    states = [speech.state]
    until = time.monotonic() + 20
    t_s = 0.0
    while SourceState.RECONNECTING not in states and time.monotonic() < until:
        speech.push(AudioChunk(np.zeros(640, np.float32), 16_000, t_s))
        t_s += 0.04
        speech.take()
        states.append(speech.state)
        time.sleep(0.01)
    assert SourceState.LOST in states
    assert (SourceState.STALLED in states) == (fault == "hangs")
    words = hear(speech, spoken, 60.0, len(whole))
    assert words == whole
    assert [w.text for w in words][:3] == ["seven", "three", "nine"]
    assert speech.state is SourceState.LIVE
    release.set()
    speech.close()


@pytest.mark.live
def test_in_its_own_process_it_says_the_same(recogniser: Recogniser, spoken: FloatArray) -> None:
    whole = [w for i in range(0, len(spoken), 640) for w in _push(recogniser, spoken, i, 60.0)]
    path = default_speech_model()
    assert path is not None
    apart = SpeechProcess(path)
    try:
        chunks = [AudioChunk(spoken[i : i + 640], 16_000, 60.0 + i / 16_000) for i in range(0, len(spoken), 640)]
        assert [w for c in chunks for w in apart.push(c)] == whole
        use = process_use(apart.pid)
        assert use is not None
        assert 20e6 < use.resident_bytes < 120e6
        assert 0.0 < use.cpu_s < 60.0
    finally:
        apart.close()
    assert process_use(apart.pid) is None
    with pytest.raises(SpeechModelError, match="its process was ended by SIGKILL"):
        apart.push(chunk(0.0))
    apart.close()


@pytest.mark.live
def test_what_keeps_it_from_listening_is_told(tmp_path: Path) -> None:
    need_module("vosk")
    apart = SpeechProcess(tmp_path / "none")
    with pytest.raises(SpeechModelError, match="none: no such speech model"):
        apart.ready()
    apart.close()


@pytest.mark.live
def test_modules_of_the_working_directory_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("vosk")
    for name in ("json", "vosk", "numpy", "clcr_edge"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stray file was run')")
    path = default_speech_model()
    assert path is not None
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.chdir(tmp_path)
    check_speech_model(path)
    apart = SpeechProcess(path)
    assert apart.ready() is apart
    apart.close()


@pytest.mark.live
def test_it_ends_when_we_are_killed(recogniser: Recogniser) -> None:
    code = (
        "import sys; from clcr_edge.runtime.speech_process import SpeechProcess as P\n"
        "from clcr_edge.runtime.assets import default_speech_model as m\n"
        "p = P(m()).ready(); print(p.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        pid = int(ours.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        ours.kill()
    # Nobody may be there to collect it: a process that has ended then stays in the table as a zombie.
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text())


@pytest.mark.live
def test_one_that_loads_long_is_waited_for() -> None:
    """A large model takes half a minute: no stall, no restart, and its words come."""
    clock, loaded = Clock(), threading.Event()

    class Large(Broken):
        def ready(self) -> Broken:
            loaded.wait(60)
            return self

    speech = ThreadedSpeech(Large(), clock=clock)
    for _ in range(30 * 25):
        speech.push(chunk(clock.now))
        clock.now += 0.04
        assert speech.take() == []
        assert speech.state is SourceState.STARTING
    loaded.set()
    wait_until(lambda: speech._worker is not None and not speech._worker.waiting)
    words, states = run(speech, clock, 1.0)
    assert words
    assert states[-1] is SourceState.LIVE
    assert speech.health.reconnects == 0
    speech.close()


def _push(recogniser: Recogniser, samples: FloatArray, at: int, t_s: float) -> list[Word]:
    if at == 0:
        recogniser.reset()
    return recogniser.push(AudioChunk(samples[at : at + 640], 16_000, t_s + at / 16_000))


@pytest.mark.live
def test_in_a_stall_push_never_waits_and_the_end_is_prompt(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = recogniser.fresh()
    release = threading.Event()
    monkeypatch.setattr(broken, "push", lambda _chunk: release.wait(60))
    threaded = ThreadedSpeech(broken)
    begun = time.perf_counter()
    for i in range(750):
        threaded.push(chunk(i * 0.04))
    assert time.perf_counter() - begun < 2.0
    assert threaded.chunks_dropped >= 24 * 25
    assert threaded.take() == []
    begun = time.perf_counter()
    threaded.close()
    assert time.perf_counter() - begun < 3.0
    release.set()
