"""When a word of a growing hypothesis may be passed on: once, when it is over, has stood still and is likely right, never
`[unk]`."""

from __future__ import annotations

from typing import NamedTuple

from clcr_edge.packets import Word

# A word to which the recogniser itself gives less than even odds is not told: noise that sets in, a word that it does not know.
LEAST_CONFIDENCE = 0.5
# Vosk's partial results know where a word began at once (8 ms, median), but let its end grow in steps for half a second after
# it. Once the end lies this far back, 99 % of ends are right to within 60 ms (benchmarks/word_latency.py).
SETTLED_S = 0.6
# Two results tell one word's time a little differently; the same text further off than this is another word.
_SAME_S = 0.3


# Half of Vosk's frame: more than its averaged times tremble, less than a word grows by.
_STILL_S = 0.015


def is_told(word: Word) -> bool:
    """Whether it is a word at all, not `[unk]`, `<UNK>` or `[laughter]`, and likelier right than wrong."""
    return not word.text.startswith(("[", "<")) and word.confidence >= LEAST_CONFIDENCE


class _Token(NamedTuple):
    word: Word
    last: bool  # nothing follows it yet, not even `[unk]`
    updates: int  # for how many in a row it has stood at this place, no longer and no shorter

    def stands(self, word: Word, last: bool) -> bool:
        """A word that still grows is often the beginning of another one: most of it becomes `[unk]`."""
        grown_s = (word.end_s - word.start_s) - (self.word.end_s - self.word.start_s)
        return self.last == last and abs(grown_s) <= _STILL_S


class WordGate:
    """Follows one recogniser's utterances.

    stable: for how many updates in a row a word, and all before it, must stand, and grow no more, before it is passed on ahead
    of the final result. A word that the final result corrects is passed on as well; what was passed on is not taken back, as
    the past is never rewritten.
    """

    def __init__(self, stable: int, settled_s: float = SETTLED_S) -> None:
        self._stable, self._settled_s = stable, settled_s
        self.reset()

    def reset(self) -> None:
        """A new utterance begins."""
        self._seen: list[_Token] = []
        self._passed: list[Word] = []

    def partial(self, hypothesis: list[Word], now_s: float) -> list[Word]:
        """A hypothesis with its times, `[unk]` and all, as of `now_s` of the audio; gives the words that are now sure."""
        known = [w for w in hypothesis if is_told(w)]
        seen, self._seen = self._seen, []
        same = True
        for k, word in enumerate(known):
            same = same and k < len(seen) and seen[k].word.text == word.text
            last = word is hypothesis[-1]
            self._seen.append(_Token(word, last, seen[k].updates + 1 if same and seen[k].stands(word, last) else 1))
        sure = []
        for word, last, updates in self._seen:
            over = not last or now_s - word.end_s >= self._settled_s
            if updates < self._stable or not over:
                break
            sure.append(word)
        out = self._not_passed(sure)
        self._passed += out
        return out

    def final(self, words: list[Word]) -> list[Word]:
        """The settled result; gives those of its words that have not been passed on. Ends the utterance."""
        out = self._not_passed([w for w in words if is_told(w)])
        self.reset()
        return out

    def _not_passed(self, words: list[Word]) -> list[Word]:
        """By text and time, not by place: a word may come to stand before one that has been passed on already."""
        near = sorted(
            (abs(old.start_s - new.start_s), k, n)
            for k, old in enumerate(self._passed)
            for n, new in enumerate(words)
            if old.text == new.text and _gap_s(old, new) <= _SAME_S
        )
        told: set[int] = set()
        spent: set[int] = set()
        for _, k, n in near:  # the closest first, so that of a word said twice each is taken for itself
            if k not in spent and n not in told:
                spent.add(k)
                told.add(n)
        return [word for n, word in enumerate(words) if n not in told]


def _gap_s(a: Word, b: Word) -> float:
    """What lies between two words; negative as far as they overlap."""
    return max(a.start_s, b.start_s) - min(a.end_s, b.end_s)
