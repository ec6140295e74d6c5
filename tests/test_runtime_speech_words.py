"""Words are passed on once, early when they stand still, corrected by the final result, and never as `[unk]`."""

from __future__ import annotations

import itertools

from clcr_edge.packets import Word
from clcr_edge.runtime.speech_words import WordGate


def texts(words: list[Word]) -> list[str]:
    return [w.text for w in words]


def settled(*words: str) -> list[Word]:
    return [Word(w, 0.5 * k, 0.5 * k + 0.4, 0.9) for k, w in enumerate(words)]


def test_a_word_is_passed_on_when_it_has_stood_still() -> None:
    gate = WordGate(stable=3)
    assert gate.partial("seven", 0.4) == []
    assert gate.partial("seven", 0.48) == []
    (word,) = gate.partial("seven", 0.56)
    assert (word.text, round(word.end_s, 3)) == ("seven", 0.4)
    assert 0 < word.confidence < 1
    assert gate.partial("seven", 0.64) == []
    assert gate.final(settled("seven")) == []


def test_a_changing_word_waits() -> None:
    gate = WordGate(stable=2)
    for k, guess in enumerate(("to", "two", "do", "two")):
        assert gate.partial(guess, 0.1 * k) == []
    assert texts(gate.partial("two", 0.5)) == ["two"]


def test_a_change_further_left_starts_the_count_again() -> None:
    gate = WordGate(stable=2)
    gate.partial("a nine", 0.1)
    assert gate.partial("an nine", 0.2) == []
    assert texts(gate.partial("an nine", 0.3)) == ["an", "nine"]


def test_the_final_result_adds_and_corrects_but_repeats_nothing() -> None:
    gate = WordGate(stable=1)
    assert texts(gate.partial("one five", 0.5)) == ["one", "five"]
    assert texts(gate.final(settled("one", "nine", "two"))) == ["nine", "two"]
    # A new utterance: the same word again is another word.
    assert texts(gate.partial("one", 3.0)) == ["one"]
    assert gate.final(settled("one")) == []
    assert texts(gate.final(settled("seven", "seven"))) == ["seven", "seven"]


def test_a_word_said_twice_is_two_words() -> None:
    gate = WordGate(stable=1)
    assert texts(gate.partial("seven", 0.5)) == ["seven"]
    assert texts(gate.partial("seven seven", 1.0)) == ["seven"]
    assert gate.final(settled("seven", "seven")) == []


def test_unknown_words_never_pass_and_do_not_disturb() -> None:
    gate = WordGate(stable=2)
    gate.partial("[unk] three", 0.4)
    assert texts(gate.partial("[unk] [unk] three", 0.5)) == ["three"]
    assert gate.final(settled("[unk]", "three", "<unk>")) == []


def test_estimated_times_rise_and_stay_within_the_stream() -> None:
    gate = WordGate(stable=1)
    gate.reset(since_s=10.0)
    words = gate.partial("one", 10.1) + gate.partial("one two", 10.2) + gate.partial("one two three", 12.0)
    assert all(w.start_s >= 10.0 and w.end_s >= w.start_s for w in words)
    assert all(b.start_s >= a.end_s for a, b in itertools.pairwise(words))
