"""digits-match: labels that say what is known when, and a balance that no single modality can see through."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest

from clcr_edge.data.bank import DIGITS, DigitBank
from clcr_edge.data.conditions import CLEAN, HEAVY, ModalityDropout
from clcr_edge.data.hearing import SOUND_ALIKES, Heard
from clcr_edge.data.match import (
    MATCH_CLASSES,
    Match,
    known_digits,
    label_match,
    make_match_stream,
    match_labels,
    match_training_streams,
    plan_match,
)
from clcr_edge.data.plan import AFTERMATH, Plan
from clcr_edge.data.streams import Perceived, Stream, Trace, perceive
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.data.words import known_by
from clcr_edge.errors import ConfigError
from clcr_edge.packets import Word

TRACE = Trace(-1, -1, None, None, ())


@pytest.fixture(scope="module")
def bank() -> DigitBank:
    """The shipped bank."""
    return synthetic_bank("check")


def _verdicts(bank: DigitBank, plan: Plan) -> list[tuple[int, int, int, int]]:
    """(same 1 or different 0, digit shown, digit said, place in the plan) of every event with both."""
    found = []
    for place, event in enumerate(plan.events):
        if event.shown is not None and event.said is not None:
            written = int(bank.image_labels[plan.shown[event.shown].image])
            spoken = int(bank.recording_labels[plan.said[event.said].recording])
            assert spoken == event.label
            found.append((int(written == spoken), written, spoken, place))
    return found


@pytest.fixture(scope="module")
def plans(bank: DigitBank) -> list[Plan]:
    """Two minutes each, training and evaluation in turn."""
    return [plan_match(bank, 3_000, seed, plain=seed % 2 == 0) for seed in range(160)]


class TestBalance:
    def test_whether_they_agree_changes_the_picture_held_up_and_nothing_else(self, bank: DigitBank) -> None:
        for seed in range(6):
            same, different = (plan_match(bank, 1_500, seed, seed % 2 == 0, differ) for differ in (0.0, 1.0))
            assert all(s for s, *_ in _verdicts(bank, same))
            assert not any(s for s, *_ in _verdicts(bank, different))
            assert len(_verdicts(bank, same)) == len(_verdicts(bank, different)) >= 3
            for a, b in zip(same.said, different.said, strict=True):
                assert np.array_equal(a.samples, b.samples)
                assert replace(a, samples=b.samples) == b
            assert [(s.kind, s.first, s.last) for s in same.shown] == [(s.kind, s.first, s.last) for s in different.shown]

    @pytest.mark.parametrize("side", ["digit shown", "digit said", "times of the picture", "times of the sound", "recording"])
    def test_no_single_modality_tells_same_from_different(self, bank: DigitBank, plans: list[Plan], side: str) -> None:
        """A table of all that one modality holds, learned on half of the events, is no better than a coin on the others."""
        keys, same = [], []
        for plan in plans:
            for agree, written, spoken, place in _verdicts(bank, plan):
                event = plan.events[place]
                assert event.shown is not None
                assert event.said is not None
                shown, said = plan.shown[event.shown], plan.said[event.said]
                keys.append(
                    {
                        "digit shown": (written,),
                        "digit said": (spoken,),
                        "times of the picture": (written, (shown.last - shown.first) // 12),
                        "times of the sound": (spoken, said.length // 2_500),
                        "recording": (said.recording,),
                    }[side]
                )
                same.append(agree)
        n = len(same) // 2
        assert n > 1_200
        table: dict[tuple[int, ...], list[int]] = {}
        for key, agree in zip(keys[:n], same[:n], strict=True):
            table.setdefault(key, []).append(agree)
        guess = [np.mean(table.get(key, [0])) >= 0.5 for key in keys[n:]]
        right = np.mean(np.array(guess) == np.array(same[n:], bool))
        assert abs(right - 0.5) < 4.0 * 0.5 / np.sqrt(n), right

    def test_the_two_together_do(self, bank: DigitBank, plans: list[Plan]) -> None:
        verdicts = [v for plan in plans for v in _verdicts(bank, plan)]
        assert all(agree == (written == spoken) for agree, written, spoken, _ in verdicts)
        assert 0.45 < np.mean([v[0] for v in verdicts]) < 0.55
        counts = np.bincount([w * 10 + s for agree, w, s, _ in verdicts if not agree], minlength=100).reshape(10, 10)
        assert not counts.diagonal().any()
        assert (counts + np.eye(10) > 0).all()  # all ninety pairs

    def test_adding_up_what_each_says_gets_three_quarters_at_most(self) -> None:
        """The bound in docs/digits-match.md: 'same' where g(shown) + h(said) > 0, the best of many tries to beat it."""
        rng = np.random.default_rng(0)
        weight = np.where(np.eye(10, dtype=bool), 1 / 20, 1 / 180)

        def accuracy(g: npt.NDArray[np.float64], h: npt.NDArray[np.float64]) -> float:
            return float(weight[(g[:, None] + h > 0) == np.eye(10, dtype=bool)].sum())

        steps = np.arange(10.0)
        assert accuracy(steps, 0.5 - steps) == pytest.approx(0.75)
        assert max(accuracy(rng.normal(size=10), rng.normal(size=10)) for _ in range(2_000)) <= 0.75 + 1e-9


class TestLabels:
    def test_what_is_known_when(self, bank: DigitBank) -> None:
        """Every tick of undisturbed streams, from the plan."""
        for seed in range(3):
            stream = make_match_stream(bank, CLEAN, 30.0, seed)
            plan = plan_match(bank, 750, seed, plain=True)
            for t in range(stream.ticks):
                seen = said = None
                for event in plan.events:
                    if event.shown is not None:
                        shown = plan.shown[event.shown]
                        held = shown.first <= t < shown.last + AFTERMATH
                        seen = int(bank.image_labels[shown.image]) if held else seen
                    if event.said is not None:
                        word = plan.said[event.said]
                        known = known_by(word.start, word.length)
                        said = event.label if known.start <= t < known.stop else said
                expected = {
                    (False, False): Match.NONE,
                    (True, False): Match.SEEN,
                    (False, True): Match.SAID,
                    (True, True): Match.SAME if seen == said else Match.DIFFERENT,
                }[seen is not None, said is not None]
                assert stream.labels[t] == expected, (seed, t)

    def test_events_are_runs_of_their_label(self, bank: DigitBank) -> None:
        kinds = set()
        heavy = [make_match_stream(bank, HEAVY, 30.0, seed) for seed in (5, 6)]
        for stream in [*heavy, *islice(match_training_streams(bank, 2), 10)]:
            for event in stream.events:
                kinds.add(event.label)
                assert 0 <= event.onset < event.end <= stream.ticks
                assert event.onset <= event.offset <= event.end
                assert (stream.labels[event.onset : event.end] == event.label).all()
                if event.label in (Match.SAME, Match.DIFFERENT) and event.end < stream.ticks and stream.conditions.plain:
                    assert event.end - event.onset >= 12
        assert kinds == {1, 2, 3, 4}
        assert len(MATCH_CLASSES) == len(Match)

    def _both(self, bank: DigitBank) -> tuple[Plan, int]:
        plan = plan_match(bank, 1_500, 3, plain=True)
        return plan, _verdicts(bank, plan)[0][3]

    def test_what_no_device_caught_is_not_known(self, bank: DigitBank) -> None:
        plan, place = self._both(bank)
        plan.events = [plan.events[place]]
        event = plan.events[0]
        assert event.shown is not None
        assert event.said is not None
        shown, said = plan.shown[event.shown], plan.said[event.said]
        present = np.ones((3, 1_500), bool)

        def labelled(vision: bool, audio: bool, words: list[str]) -> set[int]:
            there = present.copy()
            there[1] &= vision
            there[2] &= audio
            heard = [Heard(said.ticks[1] + 5, Word(w, 0.0, 1.0, 1.0), event.said or 0, True) for w in words]
            return set(label_match(bank, plan, [perceive(plan, event, heard, there)], 1_500).ticks.tolist()) - {0}

        verdict = Match.SAME if bank.image_labels[shown.image] == event.label else Match.DIFFERENT
        assert verdict in labelled(True, True, [])
        assert labelled(False, True, []) == {Match.SAID}
        assert labelled(True, False, []) == {Match.SEEN}
        # The recogniser says it while the sound is away, right, nearly right or wrong; another word says nothing.
        for word in (DIGITS[event.label], SOUND_ALIKES[DIGITS[event.label]][0], DIGITS[(event.label + 1) % 10]):
            assert verdict in labelled(True, False, [word])
        assert labelled(True, False, ["coffee"]) == {Match.SEEN}

    def test_two_that_are_never_known_at_once_are_two_events(self, bank: DigitBank) -> None:
        plan, place = self._both(bank)
        plan.events = [plan.events[place]]
        said = plan.said[plan.events[0].said or 0]
        late = known_by(said.start, said.length).stop + 10
        labels = label_match(bank, plan, [Perceived((late, late + 8), said.ticks, TRACE)], 1_500)
        assert [e.label for e in labels.events] == [Match.SAID, Match.SEEN]
        assert set(labels.ticks.tolist()) == {0, 1, 2}


def _same(a: Stream, b: Stream) -> bool:
    arrays = ("frames", "audio", "vision_present", "audio_present", "word_ticks", "labels")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) and a.words == b.words and a.events == b.events


def test_same_seed_same_stream_bit_for_bit(bank: DigitBank) -> None:
    first, second = (make_match_stream(bank, HEAVY, 8, 7, dropout=ModalityDropout(stretches=1.0)) for _ in range(2))
    assert _same(first, second)
    assert not _same(first, make_match_stream(bank, HEAVY, 8, 8, dropout=ModalityDropout(stretches=1.0)))
    assert make_match_stream(bank, CLEAN, 8, 7).events == make_match_stream(bank, HEAVY, 8, 7).events


def test_training_streams_can_start_anywhere(bank: DigitBank) -> None:
    everything = list(islice(match_training_streams(bank, 5, seconds=4.0), 3))
    resumed = next(match_training_streams(bank, 5, seconds=4.0, start=2))
    assert _same(everything[2], resumed)
    assert not _same(everything[0], everything[1])


def test_a_length_that_is_none_is_refused(bank: DigitBank) -> None:
    with pytest.raises(ConfigError, match=r"seconds = 0\.0"):
        make_match_stream(bank, CLEAN, 0.0, 0)


def test_the_digits_known_in_each_tick_give_its_label(bank: DigitBank) -> None:
    """With devices that come and go, in streams that end anywhere."""
    seen_together = 0
    for stream in islice(match_training_streams(bank, 5, seconds=8.0), 60):
        seen, said = known_digits(stream, bank)
        assert match_labels(seen, said).tolist() == stream.labels.tolist()
        seen_together += int(np.isin(stream.labels, (Match.SAME, Match.DIFFERENT)).sum())
    assert seen_together > 500
