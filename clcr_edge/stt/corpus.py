"""From spoken utterances to network targets: counts phonemes, makes the inventory, labels frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from clcr_edge.errors import DataError
from clcr_edge.stt.arrays import FloatArray, IntArray
from clcr_edge.stt.synthetic import Spoken
from clcr_edge.stt.units import SPOKEN_NOISE, Units, inventory, word_units
from clcr_edge.stt.vocabulary import VOCABULARY


def _words(spoken: Spoken) -> list[tuple[str, list[tuple[str, float, float]]]]:
    """Each word of an utterance with its phonemes (phone, start_s, end_s)."""
    result: list[tuple[str, list[tuple[str, float, float]]]] = [(word, []) for word in spoken.words]
    for phone, word, start_s, end_s in spoken.phones:
        result[word][1].append((phone, start_s, end_s))
    return result


def count_units(corpus: Sequence[Spoken]) -> Units:
    """The inventory of a corpus. Plain phonemes are counted by use, not by distinct word: rare words must not decide."""
    words: Counter[tuple[str, tuple[str, ...]]] = Counter()
    plain: Counter[str] = Counter()
    for spoken in corpus:
        for word, phones in _words(spoken):
            names = tuple(phone for phone, _, _ in phones)
            if word in VOCABULARY:
                words[word, names] += 1
            else:
                plain.update(names)
    missing = set(VOCABULARY) - {word for word, _ in words}
    if missing or not plain:
        raise DataError(f"nobody says {', '.join(sorted(missing)) or 'other words'}: render more than {len(corpus)} utterances")
    return inventory(words, plain)


def label(spoken: Spoken, units: Units) -> tuple[FloatArray, IntArray]:
    """Features and targets of an utterance. A pronunciation outside the inventory is left out of training (-1)."""
    segments: list[tuple[str, float, float]] = []
    for word, phones in _words(spoken):
        names = [phone for phone, _, _ in phones]
        if word in VOCABULARY:
            named = word_units(word, tuple(names))
        else:
            named = tuple(name if units.pdf(name) >= 0 else SPOKEN_NOISE for name in names)
        segments += [(unit, start_s, end_s) for unit, (_, start_s, end_s) in zip(named, phones, strict=True)]
    return spoken.features, units.labels(segments, len(spoken.features))
