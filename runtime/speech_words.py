"""When a word of a growing hypothesis may be passed on: once, when it is over and has stood still, never `[unk]`."""

from __future__ import annotations

from typing import NamedTuple

from clcr_edge.packets import Word

UNKNOWN = frozenset({"[unk]", "<unk>", "[noise]", "<eps>"})
# Vosk's partial results know where a word began at once (7 ms, median), but let its end grow in steps for half a second after
# it. Once the end lies this far back, 97 % of ends are right to within 60 ms (benchmarks/word_latency.py).
SETTLED_S = 0.6
# Two results tell one word's time a little differently; the same text further off than this is another word.
_SAME_S = 0.3


class _Token(NamedTuple):
    text: str
    updates: int  # for how many in a row it has stood at this place


class WordGate:
    """Follows one recogniser's utterances.

    stable: for how many updates in a row a word, and all before it, must stand before it is passed on ahead of the final
    result. A word that the final result corrects is passed on as well; what was passed on is not taken back, as the past is
    never rewritten.
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
        known = [w for w in hypothesis if w.text not in UNKNOWN]
        same = 0
        while same < min(len(known), len(self._seen)) and known[same].text == self._seen[same].text:
            same += 1
        self._seen = [t._replace(updates=t.updates + 1) for t in self._seen[:same]]
        self._seen += [_Token(w.text, 1) for w in known[same:]]
        sure = []
        for word, token in zip(known, self._seen, strict=True):
            over = word is not hypothesis[-1] or now_s - word.end_s >= self._settled_s
            if token.updates < self._stable or not over:
                break
            sure.append(word)
        out = self._not_passed(sure)
        self._passed += out
        return out

    def final(self, words: list[Word]) -> list[Word]:
        """The settled result; gives those of its words that have not been passed on. Ends the utterance."""
        out = self._not_passed([w for w in words if w.text not in UNKNOWN])
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
