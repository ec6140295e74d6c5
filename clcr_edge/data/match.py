"""`digits-match`: the same streams, another question. Is what is said what is shown? No modality can tell alone.

A digit shown is *known* from its first visible tick until a second after its last; a digit said is known from the last third of
the word (nobody knows a word at its first sound) until a second after its end. That is what a tick is labelled by:

    none        neither is known
    seen only   a digit shown is known, none said
    said only   a digit said is known, none shown
    same        both are known and are one digit
    different   both are known and are two

So an event in which one is both shown and said is `seen only` or `said only` until the second is known too, then `same` or
`different` for as long as both are known (at least half a second if no device goes away), then what is left of the longer one.
"Said" is sound or language: the recogniser's words say the spoken digit as well, right or wrong, and while the sound is away
they are what says it. What happens while its device is away is not known, as in the digits task (`streams.perceive`).

The balance is made, not measured. When things happen, whether they agree and the digits are drawn from random numbers of their
own; the spoken digit is uniform, and the shown one is it or, as likely, one of the nine others. So same and different are as
likely given all that is seen (every digit, how it is written, how long and when it is shown), and given all that is heard. The
network must bring the two together: one that only adds up what each modality says gets at most 75 % of these events right,
however well it hears and sees (docs/digits-match.md has the proof).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import partial

import numpy as np

from clcr_edge.data.bank import DIGITS, DigitBank
from clcr_edge.data.conditions import Conditions, ModalityDropout
from clcr_edge.data.plan import (
    AFTERMATH,
    TICK,
    Plan,
    Planned,
    Said,
    Shown,
    add_person,
    fill_gap,
    fill_rest,
    other_card,
    other_speech,
    say,
)
from clcr_edge.data.readers import RATE_HZ
from clcr_edge.data.streams import (
    RATE_TICKS_HZ,
    Event,
    IntArray,
    Labels,
    Perceived,
    Stream,
    compose,
    draw_presence,
    ticks_of,
    training_streams,
)
from clcr_edge.data.words import known_by
from clcr_edge.packets import FloatArray


class Match(IntEnum):
    """What a tick is labelled."""

    NONE = 0
    SEEN = 1
    SAID = 2
    SAME = 3
    DIFFERENT = 4


UNKNOWN = 10  # no digit
MATCH_CLASSES = ("none", "seen only", "said only", "same", "different")
# Seen only, said only; the rest is both. Half of what is both agrees.
_ALONE = (0.16, 0.16)
# Longer recordings are left out, so that the time reserved for a word need not depend on the word.
_LONGEST = RATE_HZ
_SPEECH_TICKS = 32  # the longest, said at the slowest speed
# The usual drop-outs leave one modality alone in most streams; here the two must meet.
MATCH_DROPOUT = ModalityDropout(whole=0.25, stretches=0.3)


def plan_match(bank: DigitBank, ticks: int, seed: int, plain: bool, differ: float = 0.5) -> Plan:
    """Events as in `plan_stream`, but of two digits. differ: how often those of an event with both are different.

    Nothing but which picture is shown depends on `differ`: the times, the sounds and the distractors do not.
    """
    when, pictures, sounds, verdicts = (np.random.default_rng([seed, 0, k]) for k in range(4))
    plan = Plan()
    add_person(plan, ticks, when)
    speech = 0.5 if plain else 0.7
    at = int(when.integers(5, 40))
    fill_gap(plan, bank, 0, at, when, plain, speech)
    while True:
        way = when.random()
        shows, says = way >= _ALONE[1], way < _ALONE[1] or way >= sum(_ALONE)
        held = int(when.integers(25, 63) if plain else when.integers(15, 55))
        lag = int(when.integers(-12, held - 8)) if shows and says else 0
        first = at + max(0, -lag)
        start = (first + lag) * TICK + int(when.integers(TICK))
        offset = max(first + held if shows else 0, first + lag + _SPEECH_TICKS if says else 0)
        onset = first + min(lag, 0)
        if offset + AFTERMATH > ticks and (plain or onset + 10 > ticks):
            break
        spoken = int(sounds.integers(10))
        other = (spoken + int(verdicts.integers(1, 10))) % 10
        written = other if verdicts.random() < differ else spoken
        if not says:
            spoken = written
        plan.events.append(Planned(spoken, len(plan.shown) if shows else None, len(plan.said) if says else None))
        if shows:
            # One number a picture: how many there are of a digit must not move what comes after.
            images = bank.images_of(written)
            plan.shown.append(Shown("digit", first, first + held, int(images[int(pictures.random() * len(images))])))
        if says:
            plan.said.append(_speak(bank, spoken, start, sounds, plain))
        if shows and not says and when.random() < 0.35:
            plan.said.append(other_speech(bank, (first + int(when.integers(held))) * TICK, when, plain))
        if says and not shows and when.random() < 0.35:
            plan.shown.append(other_card(bank, at, at + int(when.integers(20, 50)), when))
        end = offset + AFTERMATH
        gap = int(when.integers(10, 80) if plain else when.integers(6, 45))
        if end < ticks:
            fill_gap(plan, bank, end, min(end + gap, ticks), when, plain, speech)
        at = end + gap
    fill_rest(plan, bank, at, ticks, when, plain, speech)
    return plan


def _speak(bank: DigitBank, digit: int, start: int, rng: np.random.Generator, plain: bool) -> Said:
    of_digit = bank.recordings_of(digit)
    short = [i for i in of_digit if len(bank.recordings[i]) <= _LONGEST]
    # A bank without a short one: the shortest, which then may reach into the gap that follows.
    choice = int(rng.choice(short or [min(of_digit, key=lambda i: len(bank.recordings[i]))]))
    samples: FloatArray = bank.recordings[choice]
    return say("digit", samples, DIGITS[digit], start, rng, plain, choice)


def label_match(bank: DigitBank, plan: Plan, perceived: list[Perceived], ticks: int) -> Labels:
    """Labels as the head of this file says. An event with both is labelled, and lasts, where both are known; one of which only
    one is perceived, or whose two are never known at once, is one `seen only` or `said only` for each."""
    labels = np.full(ticks, Match.NONE, np.int64)
    found: list[tuple[Event, Perceived]] = []
    for planned, what in zip(plan.events, perceived, strict=True):
        spans: list[tuple[Match, int, int, int]] = []
        if what.seen is not None:
            spans.append((Match.SEEN, what.seen[0], what.seen[1], what.seen[1] + AFTERMATH))
        if what.said is not None and planned.said is not None:
            said = plan.said[planned.said]
            known = known_by(said.start, said.length)
            spans.append((Match.SAID, known.start, what.said[1], known.stop))
        for label, onset, _, end in spans:
            labels[onset:end] = label
        if len(spans) == 2:
            onset, end = max(s[1] for s in spans), min(s[3] for s in spans)
            if onset < min(end, ticks):
                assert planned.shown is not None
                same = int(bank.image_labels[plan.shown[planned.shown].image]) == planned.label
                label = Match.SAME if same else Match.DIFFERENT
                labels[onset:end] = label
                spans = [(label, onset, min(end, max(s[2] for s in spans)), end)]
        found += [
            (Event(int(label), onset, min(offset, ticks), min(end, ticks)), what)
            for label, onset, offset, end in spans
            if onset < ticks
        ]
    found.sort(key=lambda pair: pair[0].onset)
    return Labels(labels, [event for event, _ in found], [what.trace for _, what in found])


def known_digits(stream: Stream, bank: DigitBank) -> tuple[IntArray, IntArray]:
    """The digit shown and the digit said that are known in each tick of a stream, int64 `[T]` each, `UNKNOWN` for none."""
    seen, said = (np.full(stream.ticks, UNKNOWN, np.int64) for _ in range(2))
    for trace in stream.traces:
        if trace.shown_s is not None:
            first, last = (round(t * RATE_TICKS_HZ) for t in trace.shown_s)
            seen[first : last + AFTERMATH] = bank.image_labels[trace.image]
        if trace.said_s is not None:
            start, end = (round(t * RATE_HZ) for t in trace.said_s)
            said[known_by(start, end - start)] = bank.recording_labels[trace.recording]
    # What happens while its device is away is not known.
    seen[~np.isin(stream.labels, (Match.SEEN, Match.SAME, Match.DIFFERENT))] = UNKNOWN
    said[~np.isin(stream.labels, (Match.SAID, Match.SAME, Match.DIFFERENT))] = UNKNOWN
    return seen, said


def match_labels(seen: IntArray, said: IntArray) -> IntArray:
    """A `Match` for each tick of what `known_digits` gives, any shape."""
    either = np.where(seen == said, Match.SAME, Match.DIFFERENT)
    one = np.where(seen != UNKNOWN, Match.SEEN, np.where(said != UNKNOWN, Match.SAID, Match.NONE))
    return np.where((seen != UNKNOWN) & (said != UNKNOWN), either, one).astype(np.int64)


def make_match_stream(
    bank: DigitBank,
    conditions: Conditions,
    seconds: float,
    seed: int,
    *,
    dropout: bool | ModalityDropout = False,
) -> Stream:
    """One stream of the task. labels: int64 `[T]`, a `Match` each; events: label a `Match` above NONE, that label in
    [onset, end). Deterministic in its arguments, as `make_stream`."""
    ticks = ticks_of(seconds)
    plan = plan_match(bank, ticks, seed, conditions.plain)
    return compose(bank, plan, conditions, draw_presence(dropout, ticks, seed), ticks, seed, partial(label_match, bank))


def match_training_streams(bank: DigitBank, seed: int, *, seconds: float = 8.0, start: int = 0) -> Iterator[Stream]:
    """Endless training streams of the task; stream `i` depends on (seed, i) alone, as `training_streams`."""
    return training_streams(bank, seed, seconds=seconds, dropout=MATCH_DROPOUT, start=start, make=make_match_stream)
