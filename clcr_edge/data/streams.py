"""Labelled streams of the digits task, composed from a bank: what training, calibration and evaluation consume.

    bank, seed --plan--> who shows and says what --+-- scene   --> frames
    conditions, dropout -------------------------- +-- sound   --> audio
                                                   +-- hearing --> words  (or a recogniser's, of the sound)
                                                   +-- labels: an event is what can be perceived of it

Everything is deterministic in (bank, conditions, seconds, seed, dropout). The same seed under other conditions gives
the same screenplay, so that noise levels compare on the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from clcr_edge.data.bank import DIGITS, NONE, DigitBank
from clcr_edge.data.conditions import (
    CLEAN,
    MODERATE,
    Conditions,
    ModalityDropout,
    draw_training_conditions,
)
from clcr_edge.data.hearing import SOUND_ALIKES, Heard, Spoken, attribute, hear
from clcr_edge.data.plan import AFTERMATH, TICK, Plan, Planned, plan_negatives, plan_stream
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.scene import SIZE, render
from clcr_edge.data.sound import Utterance, mix
from clcr_edge.data.tracks import make_track
from clcr_edge.errors import ConfigError
from clcr_edge.packets import ByteArray, FloatArray, Word

RATE_TICKS_HZ = 25
CLASSES = (*"0123456789", "none")
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """A digit, shown or said or both. All in ticks: perceived in [onset, offset), labelled in [onset, end).

    end is offset + 25, one second later, unless a training stream ends before.
    """

    label: int
    onset: int
    offset: int
    end: int


@dataclass(frozen=True)
class Trace:
    """Where an event came from, for tests and reports: places in the bank (-1: not used) and times in seconds.

    shown_s, said_s: (start, end), None where it was not shown or said. words: places in `Stream.words`.
    """

    image: int
    recording: int
    shown_s: tuple[float, float] | None
    said_s: tuple[float, float] | None
    words: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stream:
    """One labelled stream of T ticks at 25 Hz.

    frames: uint8 `[T, 96, 96]` luma, zeros where vision_present (bool `[T]`) is False. audio: float32 `[T * 640]` at
    16 kHz, zeros where audio_present (bool `[T]`) is False. words with word_ticks: int64 `[n]`, rising, the tick in
    which each arrives. labels: int64 `[T]`, 0..9, 10 = none. traces: one per event.
    """

    frames: ByteArray
    vision_present: BoolArray
    audio: FloatArray
    audio_present: BoolArray
    words: tuple[Word, ...]
    word_ticks: IntArray
    labels: IntArray
    events: tuple[Event, ...]
    traces: tuple[Trace, ...]
    conditions: Conditions

    @property
    def ticks(self) -> int:
        """Number of ticks."""
        return len(self.labels)


class Perceived(NamedTuple):
    """What can be perceived of one planned event: the ticks [first, last) seen and said, None where it is not; its trace."""

    seen: tuple[int, int] | None
    said: tuple[int, int] | None
    trace: Trace


class Labels(NamedTuple):
    """What a stream is labelled with: `[T]`, the events, and one trace for each."""

    ticks: IntArray
    events: list[Event]
    traces: list[Trace]


# (plan, what of each of its events can be perceived, number of ticks) -> labels: what a task makes of a stream.
Labeller = Callable[[Plan, "list[Perceived]", int], Labels]


# Sound float32 `[T * 640]` -> the words that are recognised in it, each with the tick in which it arrives.
Ears = Callable[[FloatArray], "list[tuple[int, Word]]"]


def perceive(plan: Plan, planned: Planned, heard: list[Heard], present: BoolArray) -> Perceived:
    """What of an event can be perceived: what happens while its device is away is no evidence.

    A showing counts from its first to its last visible tick (at least 5 of them); speech counts when three fifths of
    it are audible or when a digit, right or wrong, or a word that sounds like the digit arrives from the recogniser.
    """
    language, vision, audio = present
    kept = {i for i, h in enumerate(heard) if language[h.tick]}
    place = {i: k for k, i in enumerate(sorted(kept))}
    seen_span, said_span = None, None
    image, recording, shown_s, said_s = -1, -1, None, None
    words: tuple[int, ...] = ()
    if planned.shown is not None:
        shown = plan.shown[planned.shown]
        seen = shown.first + np.flatnonzero(vision[shown.first : shown.last])
        image, shown_s = shown.image, (shown.first / RATE_TICKS_HZ, shown.last / RATE_TICKS_HZ)
        if len(seen) >= 5:
            seen_span = int(seen[0]), int(seen[-1]) + 1
    if planned.said is not None:
        said = plan.said[planned.said]
        first, last = said.ticks
        recording, said_s = said.recording, (said.start / RATE_HZ, (said.start + said.length) / RATE_HZ)
        mine = [i for i in kept if heard[i].source == planned.said]
        words = tuple(place[i] for i in sorted(mine))
        telling = (*DIGITS, *SOUND_ALIKES[DIGITS[planned.label]])
        if audio[first:last].sum() >= 0.6 * (last - first) or any(heard[i].word.text in telling for i in mine):
            said_span = first, last
    return Perceived(seen_span, said_span, Trace(image, recording, shown_s, said_s, words))


def label_digits(plan: Plan, perceived: list[Perceived], ticks: int) -> Labels:
    """The digits task: each event is labelled with its digit, from its first perceived tick until a second after its last."""
    labels, events, traces = np.full(ticks, NONE, np.int64), [], []
    for planned, found in zip(plan.events, perceived, strict=True):
        spans = [s for s in (found.seen, found.said) if s is not None]
        if spans:
            onset, offset = min(s[0] for s in spans), min(max(s[1] for s in spans), ticks)
            events.append(Event(planned.label, onset, offset, min(offset + AFTERMATH, ticks)))
            traces.append(found.trace)
            labels[onset : events[-1].end] = planned.label
    return Labels(labels, events, traces)


def compose(
    bank: DigitBank,
    plan: Plan,
    conditions: Conditions,
    present: BoolArray,
    ticks: int,
    seed: int,
    label: Labeller = label_digits,
    ears: Ears | None = None,
) -> Stream:
    """Draw and sound a plan. present: bool `[3, ticks]`, language, vision and audio; label: the task; ears: a recogniser, which
    hears all of the sound, in place of the simulated words."""
    language, vision, audio_there = present
    rng = np.random.default_rng([seed, 1])
    frames = np.zeros((ticks, SIZE, SIZE), np.uint8)
    if vision.any():
        tracks = [make_track(s, bank, conditions.blur_px, conditions.plain, rng) for s in plan.shown]
        frames = render(ticks, tracks, vision, conditions, rng)
    audio = np.zeros(ticks * TICK, np.float32)
    if audio_there.any() or (ears is not None and language.any()):
        utterances = [Utterance(s.samples, s.start, s.speed, s.level_db) for s in plan.said]
        audio = mix(utterances, ticks * TICK, bank, conditions, np.random.default_rng([seed, 2]))
    spoken = [Spoken(s.text, s.start / RATE_HZ, (s.start + s.length) / RATE_HZ) for s in plan.said]
    if ears is None:
        heard = hear(spoken, conditions.word_error_rate, ticks, np.random.default_rng([seed, 3]))
    else:
        heard = attribute(ears(audio), spoken)
    audio.reshape(ticks, TICK)[~audio_there] = 0.0
    labels = label(plan, [perceive(plan, planned, heard, present) for planned in plan.events], ticks)
    arrived = [h for h in heard if language[h.tick]]
    return Stream(
        frames=frames,
        vision_present=vision,
        audio=audio,
        audio_present=audio_there,
        words=tuple(h.word for h in arrived),
        word_ticks=np.asarray([h.tick for h in arrived], np.int64),
        labels=labels.ticks,
        events=tuple(labels.events),
        traces=tuple(labels.traces),
        conditions=conditions,
    )


def draw_presence(dropout: bool | ModalityDropout, ticks: int, seed: int) -> BoolArray:
    """Which devices are there, bool `[3, ticks]`: `make_stream`'s dropout."""
    if not dropout:
        return np.ones((3, ticks), bool)
    kind = dropout if isinstance(dropout, ModalityDropout) else ModalityDropout()
    return kind.draw(ticks, np.random.default_rng([seed, 4]))


def ticks_of(seconds: float) -> int:
    """Number of ticks of a stream. Raises `ConfigError` for a length that is none."""
    ticks = round(seconds * RATE_TICKS_HZ)
    if ticks < 1 or seconds > 3_600:
        raise ConfigError(f"seconds = {seconds!r}: choose 0.04 to 3600")
    return ticks


def make_stream(
    bank: DigitBank,
    conditions: Conditions,
    seconds: float,
    seed: int,
    *,
    dropout: bool | ModalityDropout = False,
    ears: Ears | None = None,
) -> Stream:
    """One stream. dropout: True for the usual `ModalityDropout`, False keeps every device there. ears: see `compose`.

    With `conditions.plain` each event is both shown and said; else some are only shown or only said.
    """
    ticks = ticks_of(seconds)
    plan = plan_stream(bank, ticks, np.random.default_rng([seed, 0]), conditions.plain)
    return compose(bank, plan, conditions, draw_presence(dropout, ticks, seed), ticks, seed, ears=ears)


def negative_stream(
    seconds: float, seed: int, bank: DigitBank, conditions: Conditions | None = None, ears: Ears | None = None
) -> Stream:
    """A stream without any digit, for false events per minute: drawn rooms, faces and letters, speech that is no
    digit, noise. Without `conditions`, `CLEAN` or `MODERATE` by the seed. Labels are all none. ears: see `compose`."""
    ticks = ticks_of(seconds)
    rng = np.random.default_rng([seed, 5])
    plan = plan_negatives(bank, ticks, rng)
    chosen = conditions or (CLEAN, MODERATE)[int(rng.integers(2))]
    return compose(bank, plan, chosen, np.ones((3, ticks), bool), ticks, seed, ears=ears)


class StreamMaker(Protocol):
    """`make_stream`, or another task's."""

    def __call__(
        self, bank: DigitBank, conditions: Conditions, seconds: float, seed: int, *, dropout: bool | ModalityDropout = False
    ) -> Stream: ...


def _sub_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_streams(
    bank: DigitBank,
    seed: int,
    *,
    seconds: float = 12.0,
    dropout: bool | ModalityDropout = True,
    start: int = 0,
    make: StreamMaker = make_stream,
) -> Iterator[Stream]:
    """Endless training streams, each with conditions of its own; stream `i` depends on (seed, i) alone.

    start: the first `i`, so that a resumed run, or one of several workers, goes on where it should. make: the task.
    """
    index = start
    while True:
        own = _sub_seed(seed, index)
        conditions = draw_training_conditions(np.random.default_rng([own, 6]))
        yield make(bank, conditions, seconds, own, dropout=dropout)
        index += 1


def evaluation_streams(
    bank: DigitBank, conditions: Conditions, events: int, seed: int, *, seconds: float = 60.0
) -> Iterator[Stream]:
    """Streams until `events` events are reached (the last stream is whole, so there may be a few more)."""
    index = found = 0
    while found < events:
        stream = make_stream(bank, conditions, seconds, _sub_seed(seed, index))
        found += len(stream.events)
        index += 1
        if index >= 20 and not found:
            raise ConfigError(f"seconds = {seconds!r}: too short for an event; give at least 5")
        yield stream
