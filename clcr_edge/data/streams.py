"""Labelled streams of the digits task, composed from a bank: what training, calibration and evaluation consume.

    bank, seed --plan--> who shows and says what --+-- scene   --> frames
    conditions, dropout -------------------------- +-- sound   --> audio
                                                   +-- hearing --> words
                                                   +-- labels: an event is what can be perceived of it

Everything is deterministic in (bank, conditions, seconds, seed, dropout). The same seed under other conditions gives
the same screenplay, so that noise levels compare on the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clcr_edge.data.bank import DIGITS, NONE, DigitBank
from clcr_edge.data.cards import Card, bend, make_card, make_face
from clcr_edge.data.conditions import (
    CLEAN,
    MODERATE,
    Conditions,
    ModalityDropout,
    draw_training_conditions,
)
from clcr_edge.data.glyphs import letter_glyphs, scribble
from clcr_edge.data.hearing import SOUND_ALIKES, Heard, Spoken, hear
from clcr_edge.data.plan import AFTERMATH, TICK, Plan, Shown, plan_negatives, plan_stream
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.scene import SIZE, Track, render, wander
from clcr_edge.data.sound import Utterance, mix
from clcr_edge.errors import ConfigError
from clcr_edge.packets import ByteArray, FloatArray, Word

RATE_TICKS_HZ = 25
CLASSES = (*"0123456789", "none")
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """A digit, shown or said or both. All in ticks: perceived in [onset, offset), labelled in [onset, end)."""

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


def _glyph(shown: Shown, bank: DigitBank, rng: np.random.Generator, plain: bool) -> FloatArray | None:
    if shown.kind == "blank":
        return None
    if shown.kind == "scribble":
        return scribble(rng)
    if shown.kind in ("letter", "chimera"):
        letter = letter_glyphs()[rng.integers(240)]
        if shown.kind == "chimera":  # the left half of one, the right half of another
            letter = letter.copy()
            letter[:, 14:] = letter_glyphs()[rng.integers(240), :, 14:]
        return letter
    glyph = bank.images[shown.image].astype(np.float32) / np.float32(255.0)
    if shown.kind == "mirrored":
        glyph = np.ascontiguousarray(glyph[:, ::-1])
    return glyph if plain or rng.random() < 0.4 else bend(glyph, rng)


def _track(shown: Shown, bank: DigitBank, blur_px: float, plain: bool, rng: np.random.Generator) -> Track:
    """Where a card is in each frame: it slides in, or is simply there, sways, and leaves."""
    size = float(np.exp(rng.uniform(np.log(36.0), np.log(112.0))))
    blur = float(rng.uniform(0.0, min(blur_px, size / 40.0)))
    enter, leave = (int(rng.integers(3, 10)) if rng.random() < 0.75 else 0 for _ in range(2))
    before, after = (6 * enter) // 10, (6 * leave) // 10
    count = before + shown.last - shown.first + after
    ramp = np.zeros((2, count))
    for steps, part in ((enter, slice(0, enter)), (leave, slice(count - leave, count))):
        if steps:
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(50, 100)
            fall = (1.0 - (np.arange(steps) + 0.5) / steps) ** 1.5
            ramp[:, part] = far * np.array([[np.cos(angle)], [np.sin(angle)]]) * (fall if part.start == 0 else fall[::-1])
    free = max(SIZE / 2.0 - 0.4 * size, 0.0)
    centre = SIZE / 2.0 + rng.uniform(-free, free, 2)
    sway = float(rng.choice([0.3, 1.2, 3.0]))
    moving = bool(np.hypot(ramp[0, :enter], ramp[1, :enter]).any())
    seed = int(rng.integers(1 << 62))
    x, y = centre[0] + ramp[0] + wander(count, 12, sway, rng), centre[1] + ramp[1] + wander(count, 12, sway, rng)
    angle_rad = np.deg2rad(rng.uniform(-15, 15) + wander(count, 15, 2.0, rng))
    sizes = size * (1.0 + wander(count, 15, 0.03, rng))
    shear = float(np.clip(rng.normal(0.0, 0.07), -0.15, 0.15))
    glyph = None if shown.kind == "face" else _glyph(shown, bank, rng, plain)

    def card(blur_y: float, blur_x: float) -> Card:
        paint_rng = np.random.default_rng(seed)  # the same card twice: still, and blurred by its motion
        if shown.kind == "face":
            return make_face(size, (blur_y, blur_x), paint_rng)
        return make_card(glyph, size, (blur_y, blur_x), paint_rng, plain)

    still = card(blur, blur)
    blurred, fast = still, np.zeros(count, bool)
    if moving and not plain and rng.random() < 0.6:
        step = np.hypot(np.gradient(x), np.gradient(y)) if count > 1 else np.zeros(count)
        fast = step > 2.0
        along = np.abs(ramp[:, 0]) / max(float(np.hypot(*ramp[:, 0])), 1e-6)
        blurred = card(blur + 2.5 * along[1], blur + 2.5 * along[0])
    return Track(still, blurred, shown.first - before, x, y, sizes, angle_rad, shear, fast)


def _perceived(plan: Plan, heard: list[Heard], present: BoolArray, ticks: int) -> tuple[list[Event], list[Trace]]:
    """Events as far as they can be perceived: what happens while its device is away is no evidence.

    A showing counts from its first to its last visible tick (at least 5 of them); speech counts when three fifths of
    it are audible or when a digit, right or wrong, or a word that sounds like the digit arrives from the recogniser.
    """
    language, vision, audio = present
    kept = {i for i, h in enumerate(heard) if language[h.tick]}
    place = {i: k for k, i in enumerate(sorted(kept))}
    events, traces = [], []
    for planned in plan.events:
        spans: list[tuple[int, int]] = []
        image, recording, shown_s, said_s = -1, -1, None, None
        words: tuple[int, ...] = ()
        if planned.shown is not None:
            shown = plan.shown[planned.shown]
            seen = shown.first + np.flatnonzero(vision[shown.first : shown.last])
            image, shown_s = shown.image, (shown.first / RATE_TICKS_HZ, shown.last / RATE_TICKS_HZ)
            if len(seen) >= 5:
                spans.append((int(seen[0]), int(seen[-1]) + 1))
        if planned.said is not None:
            said = plan.said[planned.said]
            first, last = said.ticks
            recording, said_s = said.recording, (said.start / RATE_HZ, (said.start + said.length) / RATE_HZ)
            mine = [i for i in kept if heard[i].source == planned.said]
            words = tuple(place[i] for i in sorted(mine))
            telling = (*DIGITS, *SOUND_ALIKES[DIGITS[planned.label]])
            if audio[first:last].mean() >= 0.6 or any(heard[i].word.text in telling for i in mine):
                spans.append((first, last))
        if spans:
            onset, offset = min(s[0] for s in spans), max(s[1] for s in spans)
            events.append(Event(planned.label, onset, offset, min(offset + AFTERMATH, ticks)))
            traces.append(Trace(image, recording, shown_s, said_s, words))
    return events, traces


def _compose(bank: DigitBank, plan: Plan, conditions: Conditions, present: BoolArray, ticks: int, seed: int) -> Stream:
    language, vision, audio_there = present
    rng = np.random.default_rng([seed, 1])
    tracks = [_track(s, bank, conditions.blur_px, conditions.plain, rng) for s in plan.shown if vision.any()]
    frames = render(ticks, tracks, vision, conditions, rng)
    audio = np.zeros(ticks * TICK, np.float32)
    if audio_there.any():
        utterances = [Utterance(s.samples, s.start, s.speed, s.level_db) for s in plan.said]
        audio = mix(utterances, ticks * TICK, bank, conditions, np.random.default_rng([seed, 2]))
        if not audio_there.all():
            audio.reshape(ticks, TICK)[~audio_there] = 0.0
    spoken = [Spoken(s.text, s.start / RATE_HZ, (s.start + s.length) / RATE_HZ) for s in plan.said]
    heard = hear(spoken, conditions.word_error_rate, ticks, np.random.default_rng([seed, 3]))
    events, traces = _perceived(plan, heard, present, ticks)
    labels = np.full(ticks, NONE, np.int64)
    for event in events:
        labels[event.onset : event.end] = event.label
    arrived = [h for h in heard if language[h.tick]]
    return Stream(
        frames=frames,
        vision_present=vision,
        audio=audio,
        audio_present=audio_there,
        words=tuple(h.word for h in arrived),
        word_ticks=np.asarray([h.tick for h in arrived], np.int64),
        labels=labels,
        events=tuple(events),
        traces=tuple(traces),
        conditions=conditions,
    )


def _ticks(seconds: float) -> int:
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
) -> Stream:
    """One stream. dropout: True for the usual `ModalityDropout`, False keeps every device there.

    With `conditions.plain` each event is both shown and said; else some are only shown or only said.
    """
    ticks = _ticks(seconds)
    plan = plan_stream(bank, ticks, np.random.default_rng([seed, 0]), conditions.plain)
    present = np.ones((3, ticks), bool)
    if dropout:
        kind = dropout if isinstance(dropout, ModalityDropout) else ModalityDropout()
        present = kind.draw(ticks, np.random.default_rng([seed, 4]))
    return _compose(bank, plan, conditions, present, ticks, seed)


def negative_stream(seconds: float, seed: int, bank: DigitBank, conditions: Conditions | None = None) -> Stream:
    """A stream without any digit, for false events per minute: drawn rooms, faces and letters, speech that is no
    digit, noise. Without `conditions`, `CLEAN` or `MODERATE` by the seed. Labels are all none."""
    ticks = _ticks(seconds)
    rng = np.random.default_rng([seed, 5])
    plan = plan_negatives(bank, ticks, rng)
    chosen = conditions or (CLEAN, MODERATE)[int(rng.integers(2))]
    return _compose(bank, plan, chosen, np.ones((3, ticks), bool), ticks, seed)


def _sub_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def training_streams(
    bank: DigitBank,
    seed: int,
    *,
    seconds: float = 12.0,
    dropout: bool | ModalityDropout = True,
    start: int = 0,
) -> Iterator[Stream]:
    """Endless training streams, each with conditions of its own; stream `i` depends on (seed, i) alone.

    start: the first `i`, so that a resumed run, or one of several workers, goes on where it should.
    """
    index = start
    while True:
        own = _sub_seed(seed, index)
        conditions = draw_training_conditions(np.random.default_rng([own, 6]))
        yield make_stream(bank, conditions, seconds, own, dropout=dropout)
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
