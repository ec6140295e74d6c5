"""One stream: push media, step, get a prediction. Sans-IO: no thread, no clock, no device.

Live capture, file replay and a recorded session all drive this object, so a recording replays to identical predictions, and a
robot can call it from its own loop.
"""

from __future__ import annotations

import time

import numpy as np

from clcr_edge.config import StudentConfig
from clcr_edge.errors import EngineError
from clcr_edge.features import word_age_ticks, word_ngrams
from clcr_edge.packets import AudioChunk, Level, Modality, Prediction, VideoFrame, Word
from clcr_edge.runtime.engine import Engine, State, StepInputs, StepOutputs
from clcr_edge.runtime.ladder import Ladder, Rung, masked
from clcr_edge.runtime.stages import StageTimes
from clcr_edge.runtime.step_state import passed_over
from clcr_edge.runtime.ticker import SessionStats, Tick, Ticker

# Made once: an enum's name costs more than a comparison, and a prediction holds thirty.
_MODALITIES = tuple(m.key for m in Modality)
_LEVELS = tuple(level.key for level in Level)


def step_inputs(tick: Tick, config: StudentConfig) -> StepInputs:
    """A tick as the graph's inputs: what is absent becomes zeros and a mask, words are hashed, due levels are counted."""
    t = config.tick
    ngrams = np.zeros((t.words_per_tick, t.ngrams_per_word), np.int32)
    confidence = np.zeros(t.words_per_tick, np.float32)
    age = np.zeros(t.words_per_tick, np.float32)
    for slot, word in enumerate(tick.words):
        ngrams[slot] = word_ngrams(word.text, t)
        confidence[slot] = min(max(word.confidence, 0.0), 1.0)
        age[slot] = word_age_ticks(word.end_s, tick.end_s, t)
    n_new = np.empty((len(Level), len(Modality)), np.int32)
    n_new[:, Modality.LANGUAGE] = len(tick.words)
    for level, stride in enumerate(config.model.strides):
        n_new[level, Modality.VISION :] = (tick.index + 1) % stride == 0
    frame = np.zeros((1, t.image_size, t.image_size), np.float32) if tick.frame is None else tick.frame
    return StepInputs(
        frame=frame[None],
        fbank=np.zeros((t.fbank_frames, t.n_mels), np.float32) if tick.fbank is None else tick.fbank,
        ngrams=ngrams,
        confidence=confidence,
        word_age=age,
        # A tick that does not look at its frame holds the one before: vision is there all the same.
        present=np.array([tick.frame_seq is not None, tick.fbank is not None], np.float32),
        n_new=n_new,
    )


class Session:
    """A stream on an engine.

    >>> session = Session(engine)                          # doctest: +SKIP
    >>> session.push_frame(frame); session.push_audio(chunk); session.push_word(word)
    >>> prediction = session.step()

    Packets may come in any order between modalities; within one, times must not run backwards. `step` cuts the next tick from
    what has been pushed and always advances by exactly one tick: what has not arrived is absent, never waited for.

    ladder: what may be left out under load. Nothing is unless the caller sets `rung`; while `due` is False, the next tick is
    not to be computed: call `skip` in place of `step`.
    """

    def __init__(self, engine: Engine, ladder: Ladder | None = None) -> None:
        self.engine = engine
        self.ladder = ladder
        self.rung = 0
        self.config = engine.config
        self.times = StageTimes()  # since the session was made: a reset forgets the stream, not what it cost
        self._ticker = Ticker(engine.config.tick)
        self._state = engine.initial_state()

    def reset(self) -> None:
        """Back to the state before the first packet, exactly, and to rung 0."""
        self.rung = 0
        self._ticker.reset()
        self._state = self.engine.initial_state()

    def start(self, t_s: float) -> None:
        """Fix the media time at which tick 0 begins (otherwise: the first packet's)."""
        self._ticker.start(t_s)

    def push_frame(self, frame: VideoFrame) -> None:
        """Queue a camera frame. Raises `StreamError` if it is not uint8 `[H, W, 3]`."""
        self._ticker.push_frame(frame)

    def push_audio(self, chunk: AudioChunk) -> None:
        """Append samples, float32 mono at the configured rate, any number of them.

        Samples whose tick has been cut already are left out and counted in `stats.samples_late`: a live source that falls
        behind must not stop its stream.
        """
        self._ticker.push_audio(chunk)

    def push_word(self, word: Word) -> None:
        """Queue a recognised word; it enters the next tick, however late it comes.

        Raises `StreamError` for empty text, times that are not finite or run backwards, or a confidence outside 0..1.
        """
        self._ticker.push_word(word)

    @property
    def next_end_s(self) -> float:
        """Media time at which the next tick ends."""
        return self._ticker.next_end_s

    @property
    def audio_until_s(self) -> float | None:
        """Media time up to which audio has been pushed; None before the first sample."""
        return self._ticker.audio_until_s

    @property
    def stats(self) -> SessionStats:
        """Counts since the last reset."""
        return self._ticker.stats

    @property
    def due(self) -> bool:
        """Whether the next tick is to be computed: on the lowest rung of a ladder, not every one is."""
        return self._rung.computes(self._ticker.stats.ticks)

    @property
    def _rung(self) -> Rung:
        return Rung() if self.ladder is None else self.ladder.rungs[self.rung]

    def step(self) -> Prediction:
        """Run the next tick. latency_ms of the result is the wall time of this call.

        Raises `EngineError` if the engine fails twice; its tick is gone then, and the state is that of the tick before.
        """
        begun = time.perf_counter()
        rung, index = self._rung, self._ticker.stats.ticks
        tick = self._ticker.cut(look=rung.looks(index))
        inputs = step_inputs(tick, self.config)
        cut = time.perf_counter()
        try:
            outputs, self._state = self._run(rung, index, inputs)
        except EngineError:  # memory was short, say: a pure function gives the same again
            self.stats.engine_retries += 1
            outputs, self._state = self._run(rung, index, inputs)
        self.times.features.add(cut - begun)
        self.times.engine.add(time.perf_counter() - cut)
        return self._prediction(tick, outputs, begun)

    def _run(self, rung: Rung, index: int, inputs: StepInputs) -> tuple[StepOutputs, State]:
        if self.ladder is None:
            return self.engine.step(inputs, self._state)
        return self.ladder.step(rung, index, inputs, self._state)

    def skip(self) -> None:
        """Let the next tick pass without a prediction.

        Its sound is heard by the one after, its words and frame wait for it, and what the network would have made of it is
        taken to be what it made last.
        """
        rung = self._rung
        tick = self._ticker.cut(look=False, words=False)
        inputs = masked(step_inputs(tick, self.config), vision=rung.vision_every > 0, audio=rung.audio)
        self._state = passed_over(self._state, inputs, self.config.model)

    def _prediction(self, tick: Tick, out: StepOutputs, begun: float) -> Prediction:
        probs = out.probs.tolist()
        newest = zip(_MODALITIES, (tick.word_s, tick.frame_s, tick.audio_s), strict=True)

        def per_modality(values: list[float]) -> dict[str, float]:
            return dict(zip(_MODALITIES, values, strict=True))

        return Prediction(
            t_s=tick.end_s,
            tick=tick.index,
            label=self.config.classes[probs.index(max(probs))],
            probs=dict(zip(self.config.classes, probs, strict=True)),
            ready=bool(out.there.any(axis=1).all()),
            level_weights=dict(zip(_LEVELS, out.level_weights.tolist(), strict=True)),
            modality_weights=per_modality(out.modality_weights.tolist()),
            private_gates=per_modality(out.private_gates.tolist()),
            participation={name: per_modality(row) for name, row in zip(_LEVELS, out.participation.tolist(), strict=True)},
            age_s={name: None if t is None else max(0.0, tick.end_s - t) for name, t in newest},
            frame_seq=tick.frame_seq,
            skew_ms=_skew_ms(tick),
            latency_ms=(time.perf_counter() - begun) * 1e3,
            rung=self.rung,
        )


def _skew_ms(tick: Tick) -> float | None:
    if tick.frame is None or tick.fbank is None or tick.frame_s is None or tick.audio_s is None:
        return None
    return (tick.frame_s - tick.audio_s) * 1e3
