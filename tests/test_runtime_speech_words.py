"""Words are passed on once, when they are over and stand still, corrected by the final result, and never as `[unk]`."""

from __future__ import annotations

from clcr_edge.packets import Word
from clcr_edge.runtime.speech_words import WordGate


def texts(words: list[Word]) -> list[str]:
    return [w.text for w in words]


def said(*words: str) -> list[Word]:
    return [Word(w, 0.5 * k, 0.5 * k + 0.4, 0.9) for k, w in enumerate(words)]


def test_a_word_is_passed_on_when_it_is_over_and_has_stood_still() -> None:
    gate = WordGate(stable=3, settled_s=0.6)
    assert gate.partial(said("seven"), 0.5) == []
    assert gate.partial(said("seven"), 0.9) == []
    assert gate.partial(said("seven"), 0.98) == [], "0.58 s after its end it may still grow"
    assert gate.partial(said("seven"), 1.0) == said("seven")
    assert gate.partial(said("seven"), 1.1) == []
    assert gate.final(said("seven")) == []


def test_a_word_that_another_follows_is_over() -> None:
    gate = WordGate(stable=2)
    assert gate.partial(said("seven", "[unk]"), 0.5) == []
    assert gate.partial(said("seven", "[unk]"), 0.6) == said("seven")


def test_a_word_with_less_than_even_odds_is_not_told() -> None:
    gate = WordGate(stable=2)
    doubted, sure = (Word("nine", 0.0, 0.4, confidence) for confidence in (0.49, 0.5))
    assert gate.partial([doubted], 2.0) == gate.partial([doubted], 2.1) == []
    assert gate.partial([sure], 2.2) == []
    assert gate.partial([sure], 2.3) == [sure], "once it has stood as a word"
    assert gate.final([sure]) == gate.final([doubted]) == []


def test_what_other_models_say_for_no_word_is_none() -> None:
    gate = WordGate(stable=1)
    assert gate.final([Word(text, 0.0, 0.4, 1.0) for text in ("<UNK>", "<unk>", "[laughter]", "[noise]", "<eps>")]) == []


def test_a_changing_word_waits() -> None:
    gate = WordGate(stable=2)
    for k, guess in enumerate(("to", "two", "do", "two")):
        assert gate.partial(said(guess), 2.0 + 0.1 * k) == []
    assert texts(gate.partial(said("two"), 2.5)) == ["two"]


def test_a_word_that_grows_or_is_just_being_followed_waits() -> None:
    """As of JFK's "fellow Americans": one@5.37-5.64, in the next update one@5.37-5.53 [unk], in the one after [unk] alone."""
    gate = WordGate(stable=3)
    for now_s, end_s in ((5.92, 5.46), (6.0, 5.52), (6.08, 5.58), (6.24, 5.64)):
        assert gate.partial([Word("one", 5.37, end_s, 0.99)], now_s) == []
    tail = Word("[unk]", 5.53, 5.70, 1.0)
    assert gate.partial([Word("one", 5.37, 5.53, 0.99), tail], 6.32) == []
    assert gate.partial([Word("[unk]", 5.42, 5.79, 1.0)], 6.4) == []
    assert gate.final([Word("[unk]", 5.42, 7.9, 1.0)]) == []


def test_times_that_only_tremble_count_as_standing_still() -> None:
    gate = WordGate(stable=3)
    assert gate.partial([Word("one", 5.370, 5.640, 0.9)], 6.3) == []
    assert gate.partial([Word("one", 5.368, 5.646, 0.9)], 6.4) == []
    assert texts(gate.partial([Word("one", 5.371, 5.641, 0.9)], 6.5)) == ["one"]


def test_a_change_further_left_starts_the_count_again() -> None:
    gate = WordGate(stable=2)
    gate.partial(said("a", "nine"), 3.1)
    assert gate.partial(said("an", "nine"), 3.2) == []
    assert texts(gate.partial(said("an", "nine"), 3.3)) == ["an", "nine"]


def test_the_final_result_adds_and_corrects_but_repeats_nothing() -> None:
    gate = WordGate(stable=1)
    assert texts(gate.partial(said("one", "five"), 5.0)) == ["one", "five"]
    assert texts(gate.final(said("one", "nine", "two"))) == ["nine", "two"]
    # A new utterance: the same word again is another word.
    assert texts(gate.partial(said("one"), 9.0)) == ["one"]
    assert gate.final(said("one")) == []
    assert texts(gate.final(said("seven", "seven"))) == ["seven", "seven"]


def test_a_word_said_twice_is_two_words() -> None:
    gate = WordGate(stable=1)
    assert texts(gate.partial(said("seven"), 1.0)) == ["seven"]
    assert texts(gate.partial(said("seven", "seven"), 2.0)) == ["seven"]
    assert gate.final(said("seven", "seven")) == []


def test_unknown_words_never_pass_and_do_not_disturb() -> None:
    gate = WordGate(stable=2)
    gate.partial(said("[unk]", "three"), 3.0)
    assert texts(gate.partial(said("[unk]", "[unk]", "three"), 3.1)) == ["three"]
    assert gate.final(said("[unk]", "three", "<unk>")) == []


def test_a_word_that_comes_to_stand_before_one_already_passed_on_is_passed_once() -> None:
    """`[unk] one` that becomes `nine one`: nine came at every update, and again with the final result."""
    unknown, nine, one = said("[unk]", "nine", "one")
    nine = Word("nine", unknown.start_s, unknown.end_s, 0.9)
    gate = WordGate(stable=2)
    out = [w for k in range(3) for w in gate.partial([unknown, one], 3.0 + 0.1 * k)]
    out += [w for k in range(5) for w in gate.partial([nine, one], 3.5 + 0.1 * k)]
    assert texts(out + gate.final([nine, one])) == ["one", "nine"]


def test_the_same_word_elsewhere_is_another_word() -> None:
    gate = WordGate(stable=1)
    early, late = Word("one", 0.5, 0.9, 0.9), Word("one", 1.5, 1.9, 0.9)
    assert gate.partial([late], 3.0) == [late]
    # Found before it after all: each is taken for itself, and stamped with its own time.
    moved = Word("one", 1.53, 1.95, 0.9)
    assert gate.final([early, moved]) == [early]
