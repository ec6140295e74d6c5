"""The sounds the network tells apart, and how words are made of them.

Every phoneme of every vocabulary word has outputs of its own (`seven/v/0`: word, phoneme, which occurrence of it), so the
network learns words, not only sounds. All other words share plain phonemes (`v`), and `[unk]` is any chain of those and of
`spn`, speech that nobody could label. A long vowel or diphthong has two states.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from clcr_edge.stt.arrays import IntArray
from clcr_edge.stt.vocabulary import VOCABULARY

SILENCE, SPOKEN_NOISE = "sil", "spn"
_VOWELS = "aeiouAEIOUVQ0@3"


def states_of(unit: str) -> int:
    """HMM states of a unit: 2 for long vowels and diphthongs, else 1. Each state lasts at least 30 ms."""
    if unit in (SILENCE, SPOKEN_NOISE):
        return 1
    phone = unit.split("/")[1] if "/" in unit else unit
    return 2 if len(phone) > 1 and phone[0] in _VOWELS and phone not in ("a#", "I2", "O2", "02", "i2") else 1


def word_units(word: str, phones: tuple[str, ...]) -> tuple[str, ...]:
    """Units of a pronunciation of a vocabulary word."""
    seen: Counter[str] = Counter()
    units = []
    for phone in phones:
        units.append(f"{word}/{phone}/{seen[phone]}")
        seen[phone] += 1
    return tuple(units)


@dataclass(frozen=True)
class Units:
    """The inventory: `plain` units, and each word's pronunciations with their probabilities (they sum to 1)."""

    plain: tuple[str, ...]
    pronunciations: dict[str, tuple[tuple[tuple[str, ...], float], ...]]

    def __post_init__(self) -> None:
        names = [SILENCE, SPOKEN_NOISE, *self.plain]
        names += sorted({unit for entries in self.pronunciations.values() for units, _ in entries for unit in units})
        first, index = 0, {}
        for name in names:
            index[name] = first
            first += states_of(name)
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "n_pdfs", first)

    n_pdfs = 0

    def pdf(self, unit: str, state: int = 0) -> int:
        """Output column of the network for a unit's state; -1 for a unit that is not in the inventory."""
        index: dict[str, int] = self.__dict__["_index"]
        return index[unit] + state if unit in index else -1

    def labels(self, segments: list[tuple[str, float, float]], n_frames: int) -> IntArray:
        """Output columns per 10 ms frame, int16 `[n_frames]`: `segments` are (unit, start_s, end_s); gaps are silence."""
        track = np.zeros(n_frames, np.int16)
        centre = np.arange(n_frames) * 0.01 + 0.0125
        for unit, start_s, end_s in segments:
            n_states = states_of(unit)
            for state in range(n_states):
                low = start_s + (end_s - start_s) * state / n_states
                high = start_s + (end_s - start_s) * (state + 1) / n_states
                track[(centre >= low) & (centre < high)] = self.pdf(unit, state)
        return track


def inventory(words: Counter[tuple[str, tuple[str, ...]]], plain: Counter[str], rare: float = 0.02) -> Units:
    """Units from counts of (word, phones) and of plain phonemes; what is rarer than `rare` of its word is dropped."""
    pronunciations = {}
    for word in VOCABULARY:
        found = {phones: count for (w, phones), count in words.items() if w == word}
        total = sum(found.values())
        kept = {phones: count for phones, count in found.items() if count >= rare * total}
        pronunciations[word] = tuple(
            (word_units(word, phones), count / sum(kept.values())) for phones, count in sorted(kept.items())
        )
    least = 0.0005 * sum(plain.values())
    return Units(tuple(sorted(phone for phone, count in plain.items() if count >= least)), pronunciations)
