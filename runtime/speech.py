"""Speech to text on the device, through Vosk: audio in, words on the stream's clock out."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clcr_edge.errors import MissingPartError, SpeechModelError
from clcr_edge.packets import AudioChunk, FloatArray, Word
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.machine import ProcessUse
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.speech_model import check_speech_model, knows_word_boundaries, late_ends_s
from clcr_edge.runtime.speech_process import SpeechProcess
from clcr_edge.runtime.speech_words import WordGate
from clcr_edge.runtime.threaded_speech import ThreadedSpeech

_RATE_HZ = 16_000
_BLOCK = 1_280  # samples given to Vosk at a time: 80 ms
# Vosk tells times as float32 seconds since its recogniser was made: after two weeks their steps are 125 ms. So a new one is
# made at the first pause after this long, when Vosk itself would drop its front end.
_ROUND_S = 600.0
_GAP_S = 0.05  # a hole in the audio longer than this ends the utterance


def _vosk() -> Any:
    try:
        return importlib.import_module("vosk")
    except (ImportError, OSError):
        raise _no_vosk() from None


def _no_vosk() -> MissingPartError:
    return MissingPartError("speech: the vosk package is not installed; pip install 'clcr-edge[audio]', or give --no-stt")


class Recogniser:
    """A Vosk model listening to one stream of 16 kHz audio.

    model_dir: a Vosk model. Raises `SpeechModelError` if it is missing or broken (a broken one may abort the process, so
    `check` loads it in another process first; leave that out only for a model known to be sound). stable: updates of
    80 ms for which a word must stand before it is passed on ahead of the final result. A model whose conf/model.conf leaves
    determinize-max-delay at Kaldi's 60 tells its words about two seconds after them, or at the end of the utterance; with
    --determinize-max-delay=5 and --determinize-min-chunk-size=2 it tells them after some 0.6 s.
    """

    def __init__(self, model_dir: Path | str, *, stable: int = 3, check: bool = True) -> None:
        vosk = _vosk()
        vosk.SetLogLevel(-2)  # errors only: Kaldi warns of every lattice that it prunes
        self._model_dir = model_dir
        check_speech_model(Path(model_dir), trial=check)
        self._late_s = late_ends_s(Path(model_dir))
        try:
            self._model = vosk.Model(str(model_dir))
        except Exception as e:  # vosk raises plain Exception
            raise SpeechModelError(f"{model_dir}: Vosk cannot load it ({e}); copy or download it again") from None
        self._vosk = vosk
        self._stable = stable
        self._gate = WordGate(stable)
        self.reset()

    def ready(self) -> Recogniser:
        """At once: the model is loaded."""
        return self

    use: ProcessUse | None = None  # it has no process of its own

    def stop(self) -> None:
        """Nothing: a call into Vosk cannot be ended."""

    def close(self) -> None:
        """Nothing: what it holds goes with the object."""

    def fresh(self) -> Recogniser:
        """Another recogniser on the same loaded model, at the beginning of a stream."""
        other = object.__new__(Recogniser)
        other._vosk, other._model, other._stable = self._vosk, self._model, self._stable
        other._model_dir, other._late_s = self._model_dir, self._late_s
        other._gate = WordGate(self._stable)
        other.reset()
        return other

    def reset(self) -> None:
        """Begin a new stream: the next chunk's time is its beginning."""
        self._begin_round()
        self._gate.reset()
        self._origin_s: float | None = None
        self._count = 0  # samples since the origin, those waiting included
        self._waiting: list[FloatArray] = []
        self._waiting_count = 0

    def _begin_round(self) -> None:
        self._kaldi: Any = self._vosk.KaldiRecognizer(self._model, float(_RATE_HZ))
        self._kaldi.SetWords(True)
        self._kaldi.SetPartialWords(True)
        self._given = 0  # samples, since the origin

    def push(self, chunk: AudioChunk) -> list[Word]:
        """Listen to a chunk, float32 mono at 16 kHz; gives the words that have become stable or final."""
        out = []
        expected_s = None if self._origin_s is None else self._origin_s + self._count / _RATE_HZ
        if expected_s is not None and abs(chunk.t_s - expected_s) > _GAP_S:
            out += self.finish()
        if self._origin_s is None:
            self._origin_s = chunk.t_s
        self._waiting.append(chunk.samples)
        self._waiting_count += len(chunk.samples)
        self._count += len(chunk.samples)
        while self._waiting_count >= _BLOCK:
            joined = np.concatenate(self._waiting)
            out += self._listen(joined[:_BLOCK])
            self._waiting = [joined[_BLOCK:]]
            self._waiting_count -= _BLOCK
        return out

    def finish(self) -> list[Word]:
        """The stream has ended, or has a hole: settle the utterance, give its remaining words, begin anew."""
        out: list[Word] = []
        if self._origin_s is not None:
            if self._waiting_count:
                out += self._listen(np.concatenate(self._waiting))
            out += self._gate.final(self._words(self._kaldi.FinalResult(), "result"))
        self.reset()
        return out

    def _listen(self, samples: FloatArray) -> list[Word]:
        levels = np.clip(np.rint(samples * 32_768.0), -32_768, 32_767)
        pcm = np.nan_to_num(levels, nan=0.0).astype("<i2").tobytes()  # a broken driver's "no number" is silence
        assert self._origin_s is not None
        self._given += len(samples)
        heard_s = self._origin_s + self._given / _RATE_HZ
        if self._kaldi.AcceptWaveform(pcm):
            words = self._gate.final(self._words(self._kaldi.Result(), "result"))
            if self._given >= _ROUND_S * _RATE_HZ:
                self._origin_s, self._count = heard_s, self._count - self._given
                self._begin_round()
            return words
        return self._gate.partial(self._words(self._kaldi.PartialResult(), "partial_result"), heard_s)

    def _words(self, result: str, kind: str) -> list[Word]:
        origin_s = self._origin_s
        assert origin_s is not None
        told = json.loads(result).get(kind, ())
        if any(not w["word"].strip() for w in told):  # Vosk does not look, and says nothing in their place
            raise SpeechModelError(
                f"{self._model_dir}: its graph has words that its words.txt does not name; copy or download it again"
            )
        words = []
        for w in told:
            end = max(w["end"] - self._late_s, w["start"])
            words.append(Word(w["word"], origin_s + w["start"], origin_s + end, min(max(float(w.get("conf", 1.0)), 0.0), 1.0)))
        return words


class Speech(Protocol):
    """A recogniser as the pipeline uses it: audio in after a step, words out before the next."""

    def push(self, chunk: AudioChunk) -> None:
        """Hand over audio; must not raise because a recogniser is slow."""

    def take(self) -> list[Word]:
        """The words recognised since the last call."""

    @property
    def state(self) -> SourceState:
        """How the recogniser is doing."""

    @property
    def health(self) -> SourceHealth:
        """The same in numbers."""

    def close(self) -> None:
        """Free the recogniser."""


class LockstepSpeech:
    """For replay: recognises within `push`, however long it takes, so that every run gives the same words at the same ticks."""

    state = SourceState.LIVE
    health = SourceHealth(SourceState.LIVE, 0.0)

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self._words: list[Word] = []

    def push(self, chunk: AudioChunk) -> None:
        """Recognise."""
        self._words += self._recogniser.push(chunk)

    def take(self) -> list[Word]:
        """The words since the last call."""
        words, self._words = self._words, []
        return words

    def close(self) -> None:
        """Forget the stream."""
        self._recogniser.reset()
        self._words = []


def open_speech(
    model_dir: Path | None = None, *, live: bool, notice: Callable[[str], None] | None = None
) -> LockstepSpeech | ThreadedSpeech:
    """A recogniser for a live pipeline, or for a replay. model_dir: a Vosk model; None: the one that ships.

    Raises `SpeechModelError` or `MissingPartError`.
    """
    path = model_dir or default_speech_model()
    if path is None:
        raise SpeechModelError(
            "no speech model ships with this installation; name a Vosk model (--stt-model DIR), or give --no-stt"
        )
    # The shipped model is known to be sound; another may abort its process, so it is tried in one of its own first.
    lockstep = None
    if not live:
        lockstep = LockstepSpeech(Recogniser(path, check=model_dir is not None))
    elif importlib.util.find_spec("vosk") is None:
        raise _no_vosk()
    else:
        check_speech_model(path, trial=model_dir is not None)
    if notice is not None and not knows_word_boundaries(path):
        notice(f"{path}: has no word_boundary.int, so that the times of its words are wrong by tenths of a second")
    return lockstep or ThreadedSpeech(SpeechProcess(path), notice=notice)
