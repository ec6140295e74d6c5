"""When a word of a growing hypothesis may be passed on: once, as soon as it has stood still, never `[unk]`."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import NamedTuple, TypeVar

from clcr_edge.packets import Word

UNKNOWN = frozenset({"[unk]", "<unk>", "[noise]", "<eps>"})
# Partial results carry neither times nor confidence. A word shows up about 0.35 s after it began (measured, median).
_WORD_S = 0.35
_EARLY_CONFIDENCE = 0.75

T = TypeVar("T")


class _Token(NamedTuple):
    text: str
    first_s: float  # when it was first seen at this place
    updates: int  # for how many in a row it has stood there


class WordGate:
    """Follows one recogniser's utterances.

    stable: for how many updates in a row a word, and all before it, must stand before it is passed on early. A word that
    the final result corrects is passed on as well; what was passed on is not taken back, as the past is never rewritten.
    """

    def __init__(self, stable: int) -> None:
        self._stable = stable
        self.reset()

    def reset(self, since_s: float = 0.0) -> None:
        """A new stream begins; no word of it can have begun before `since_s`."""
        self._seen: list[_Token] = []
        self._passed: list[str] = []
        self._last_end_s = since_s

    def partial(self, text: str, now_s: float) -> list[Word]:
        """A hypothesis, as of `now_s` of the audio; gives the words that have become stable.

        Their times are estimates: the end is when the word first showed, the beginning a usual word's length before.
        """
        texts = [t for t in text.split() if t not in UNKNOWN]
        same = 0
        while same < min(len(texts), len(self._seen)) and texts[same] == self._seen[same].text:
            same += 1
        self._seen = [t._replace(updates=t.updates + 1) for t in self._seen[:same]]
        self._seen += [_Token(t, now_s, 1) for t in texts[same:]]
        steady = [t for t in self._seen if t.updates >= self._stable]
        out = []
        for token in self._not_passed(steady, [t.text for t in steady]):
            start_s = max(token.first_s - _WORD_S, self._last_end_s)
            end_s = max(token.first_s, start_s)
            self._last_end_s = end_s
            out.append(Word(token.text, start_s, end_s, _EARLY_CONFIDENCE))
        self._passed += [w.text for w in out]
        return out

    def final(self, words: list[Word]) -> list[Word]:
        """The settled result; gives those of its words that have not been passed on. Ends the utterance."""
        known = [w for w in words if w.text not in UNKNOWN]
        out = self._not_passed(known, [w.text for w in known])
        self.reset(max([self._last_end_s, *(w.end_s for w in words)]))
        return out

    def _not_passed(self, items: list[T], texts: list[str]) -> list[T]:
        matcher = SequenceMatcher(None, self._passed, texts, autojunk=False)
        out: list[T] = []
        for tag, _a, _b, first, last in matcher.get_opcodes():
            if tag in ("insert", "replace"):
                out += items[first:last]
        return out
