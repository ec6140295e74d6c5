"""The screenplay of a stream: who shows what and says what when, before anything is drawn or heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clcr_edge.data.bank import DIGITS, DigitBank
from clcr_edge.data.hearing import COMMON_WORDS
from clcr_edge.packets import FloatArray

TICK = 640  # samples
AFTERMATH = 25  # ticks that an event stays labelled after its offset: 1.0 s
ShownKind = Literal["digit", "letter", "scribble", "blank", "mirrored", "chimera", "face", "person"]
SaidKind = Literal["digit", "word", "reversed", "spliced", "gibberish"]
_FADE = np.linspace(0.0, 1.0, 80, dtype=np.float32)
# Mirrored, these are no digits (a mirrored 2 reads as 5, an open 4 as itself).
_MIRRORS = (3, 7, 9)


@dataclass(frozen=True)
class Shown:
    """Something held up in the ticks [first, last). image: place in the bank, -1 where none is used."""

    kind: ShownKind
    first: int
    last: int
    image: int = -1


@dataclass(frozen=True)
class Said:
    """Something said. start: first sample; length: samples in the stream. recording: place in the bank or -1."""

    kind: SaidKind
    start: int
    length: int
    samples: FloatArray
    speed: float
    level_db: float
    text: str | None
    recording: int = -1

    @property
    def ticks(self) -> tuple[int, int]:
        """The ticks [first, last) that it touches."""
        return self.start // TICK, -(-(self.start + self.length) // TICK)


@dataclass(frozen=True)
class Planned:
    """An event to be: the digit, and the places of what shows and says it in the plan (None: not in that way)."""

    label: int
    shown: int | None
    said: int | None


@dataclass
class Plan:
    """All that happens in a stream."""

    shown: list[Shown] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    events: list[Planned] = field(default_factory=list)


def _speed(rng: np.random.Generator, plain: bool) -> float:
    return 1.0 if plain else float(rng.uniform(0.8, 1.25))


def _level(rng: np.random.Generator, plain: bool) -> float:
    return float(np.clip(rng.normal(0.0, 1.5 if plain else 3.5), -8.0, 8.0))


def say(
    kind: SaidKind, samples: FloatArray, text: str | None, start: int, rng: np.random.Generator, plain: bool, recording: int
) -> Said:
    speed = _speed(rng, plain)
    length = round(len(samples) / speed)
    return Said(kind, start, length, samples, speed, _level(rng, plain), text, recording)


def other_speech(bank: DigitBank, start: int, rng: np.random.Generator, plain: bool) -> Said:
    """Human speech that is no digit, beginning at sample `start`."""
    if bank.other_speech and rng.random() < (0.7 if plain else 0.55):
        text, samples = bank.other_speech[rng.integers(len(bank.other_speech))]
        if not plain and rng.random() < 0.4:  # more words for the language side than there are recordings
            text = str(rng.choice(COMMON_WORDS))
        return say("word", samples, text, start, rng, plain, -1)
    first = bank.recordings[rng.integers(len(bank.recordings))]
    way = rng.random()
    if way < 0.35:
        return say("reversed", first[::-1], None, start, rng, plain, -1)
    if way < 0.6:
        label = int(rng.integers(10))
        a = bank.recordings[rng.choice(bank.recordings_of(label))]
        b = bank.recordings[rng.choice(bank.recordings_of((label + int(rng.integers(1, 10))) % 10))]
        # The second half first, so that neither digit is whole in any order.
        return say("spliced", np.concatenate([b[len(b) // 2 :], a[: len(a) // 2]]), None, start, rng, plain, -1)
    pieces = []
    for _ in range(int(rng.integers(4, 13))):  # gibberish: scraps of a tenth of a second
        source = bank.recordings[rng.integers(len(bank.recordings))]
        length = min(len(source), int(rng.integers(800, 2_240)))
        at = int(rng.integers(0, len(source) - length + 1))
        scrap = source[at : at + length].copy()
        scrap[:80] *= _FADE
        scrap[-80:] *= _FADE[::-1]
        pieces.append(scrap / max(float(np.abs(scrap).max()), 0.02))
    return say("gibberish", np.concatenate(pieces), None, start, rng, plain, -1)


def other_card(bank: DigitBank, first: int, last: int, rng: np.random.Generator) -> Shown:
    """Something that is no digit, held up in the ticks [first, last)."""
    kinds: tuple[ShownKind, ...] = ("letter", "scribble", "blank", "mirrored", "chimera", "face")
    kind = kinds[int(rng.choice(6, p=[0.28, 0.12, 0.15, 0.12, 0.08, 0.25]))]
    image = -1
    if kind == "mirrored":
        image = int(rng.choice(bank.images_of(int(rng.choice(_MIRRORS)))))
    return Shown(kind, first, last, image)


def fill_gap(
    plan: Plan,
    bank: DigitBank,
    first: int,
    last: int,
    rng: np.random.Generator,
    plain: bool,
    speech: float = 0.5,
    card: float = 0.35,
) -> None:
    """Distractors in the ticks [first, last). speech, card: how often somebody speaks, something is held up."""
    if rng.random() < speech:
        at = first * TICK + int(rng.integers(0, 12 * TICK))
        for _ in range(int(rng.integers(1, 5))):
            said = other_speech(bank, at, rng, plain)
            if at + said.length + 2 * TICK > last * TICK:
                break
            plan.said.append(said)
            at += said.length + int(rng.integers(800, 8_000))
    if last - first >= 22 and rng.random() < card:
        length = min(last - first - 6, int(rng.integers(16, 55)))
        start = first + 3 + int(rng.integers(0, last - first - 5 - length))
        plan.shown.append(other_card(bank, start, start + length, rng))


def add_person(plan: Plan, ticks: int, rng: np.random.Generator) -> None:
    """In two streams of five somebody sits behind whatever is shown."""
    if rng.random() < 0.4:
        plan.shown.append(Shown("person", 0, ticks))


def plan_stream(bank: DigitBank, ticks: int, rng: np.random.Generator, plain: bool) -> Plan:
    """Events with 0.8 to 4 s between their labelled intervals, and distractors in between.

    plain (evaluation): every event is shown, for 1.0 to 2.5 s, and said, and is whole. Otherwise (training) a fifth is
    only shown and a quarter only said; now and then somebody says something else while a digit is held up, or holds
    up something else while saying one; events are denser (0.6 to 2.2 s, mostly 0.8 to 2.4 s apart), because a tick of
    nothing teaches little; and the last event may be cut off by the end.
    """
    plan = Plan()
    add_person(plan, ticks, rng)
    speech = 0.5 if plain else 0.7
    at = int(rng.integers(5, 50))
    fill_gap(plan, bank, 0, at, rng, plain, speech)
    while True:
        label = int(rng.integers(10))
        way = 0.0 if plain else rng.random()
        shows, says = way < 0.75, way < 0.55 or way >= 0.75
        held = int(rng.integers(25, 63) if plain else rng.integers(15, 55))
        choice = int(rng.choice(bank.recordings_of(label)))
        said = say("digit", bank.recordings[choice], None, 0, rng, plain, choice)
        # Samples from the showing's first tick to the speech's first sample.
        lag = int(rng.integers(-10 * TICK, max(held * TICK - (said.length * 3) // 5, -10 * TICK + 1)))
        lead = -(-max(0, -lag) // TICK) if shows and says else 0
        first = at + lead
        start = first * TICK + (lag if shows else int(rng.integers(TICK)))
        speech_end = -(-(start + said.length) // TICK) if says else 0
        offset = max(first + held if shows else 0, speech_end)
        end = offset + AFTERMATH
        onset = min(first if shows else ticks, start // TICK if says else ticks)
        if end > ticks and (plain or onset + 10 > ticks):
            break
        planned = Planned(label, len(plan.shown) if shows else None, len(plan.said) if says else None)
        if shows:
            plan.shown.append(Shown("digit", first, first + held, int(rng.choice(bank.images_of(label)))))
        if says:
            text = DIGITS[label]
            plan.said.append(Said("digit", start, said.length, said.samples, said.speed, said.level_db, text, choice))
        plan.events.append(planned)
        if shows and not says and rng.random() < 0.35:
            plan.said.append(other_speech(bank, (first + int(rng.integers(held))) * TICK, rng, plain))
        if says and not shows and rng.random() < 0.25:
            plan.shown.append(other_card(bank, at, at + int(rng.integers(20, 50)), rng))
        gap = int(rng.integers(20, 101) if plain or rng.random() < 0.25 else rng.integers(20, 61))
        if end < ticks:
            fill_gap(plan, bank, end, min(end + gap, ticks), rng, plain, speech)
        at = end + gap
    fill_rest(plan, bank, at, ticks, rng, plain, speech)
    return plan


def fill_rest(
    plan: Plan, bank: DigitBank, first: int, ticks: int, rng: np.random.Generator, plain: bool, speech: float
) -> None:
    """Whatever is left of a stream holds no event, but need not be empty."""
    while first + 30 < ticks:
        fill_gap(plan, bank, first, min(first + 60, ticks), rng, plain, speech)
        first += 60


def plan_negatives(bank: DigitBank, ticks: int, rng: np.random.Generator) -> Plan:
    """No event at all: distractors throughout."""
    plan = Plan()
    add_person(plan, ticks, rng)
    at = 0
    while at + 25 < ticks:
        last = min(at + int(rng.integers(40, 130)), ticks)
        fill_gap(plan, bank, at, last, rng, True, speech=0.8, card=0.6)
        at = last
    return plan
