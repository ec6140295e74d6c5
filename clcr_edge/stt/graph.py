"""The decoding graph: which units make which word, as numbers that Kaldi and Vosk agree on.

Numbering: a *phone* is a unit at a position in a word (begin, internal, end, or alone), because word boundaries are read off
phone numbers. A *transition state* is (phone, state, output column), sorted; the k-th has transition ids 2k - 1 (stay) and
2k (leave).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from clcr_edge.stt.fst import Arc, Fst
from clcr_edge.stt.units import SILENCE, SPOKEN_NOISE, Units, states_of
from clcr_edge.stt.vocabulary import UNKNOWN

_HALF = math.log(2.0)


@dataclass(frozen=True)
class Penalties:
    """Costs (-log) that decide between words and `[unk]`; tuned on voices of the training set."""

    word: float = 1.0
    unknown: float = 5.0
    unknown_phone: float = 0.7


class Phones:
    """Phone numbers (from 1; silence is 1), their positions, and the transition ids of their states."""

    def __init__(self, units: Units) -> None:
        self.units = units
        keys = [(SILENCE, "nonword")]
        self.unknown = (SPOKEN_NOISE, *units.plain)
        keys += [(unit, place) for unit in self.unknown for place in ("begin", "internal", "end")]
        keys += sorted(
            {
                key
                for entries in units.pronunciations.values()
                for pronunciation, _ in entries
                for key in self.positions(pronunciation)
            }
        )
        self.keys: list[tuple[str, str]] = keys
        self.number = {key: i + 1 for i, key in enumerate(keys)}
        self.triples = sorted(
            (self.number[unit, place], state, units.pdf(unit, state))
            for unit, place in keys
            for state in range(states_of(unit))
        )
        self._stay = {(phone, state): 2 * k + 1 for k, (phone, state, _) in enumerate(self.triples)}

    @staticmethod
    def positions(pronunciation: tuple[str, ...]) -> list[tuple[str, str]]:
        """Each unit of a word with its place."""
        if len(pronunciation) == 1:
            return [(pronunciation[0], "singleton")]
        places = ["begin", *["internal"] * (len(pronunciation) - 2), "end"]
        return list(zip(pronunciation, places, strict=True))

    def ids(self, unit: str, place: str) -> list[tuple[int, int]]:
        """(stay, leave) transition ids of each state."""
        stays = [self._stay[self.number[unit, place], state] for state in range(states_of(unit))]
        return [(stay, stay + 1) for stay in stays]


def _chain(fst: Fst, start: int, phones: list[list[tuple[int, int]]], word: int, cost: float) -> int:
    """Add a chain in Kaldi's reordered form (leave the state's arc first, its loop on the arc's destination)."""
    at = start
    for stay, leave in (state for phone in phones for state in phone):
        following = fst.add_state()
        fst.arcs[at].append(Arc(leave, word, cost + _HALF, following))
        fst.arcs[following].append(Arc(stay, 0, _HALF, following))
        at, word, cost = following, 0, 0.0
    return at


def lexicon_fst(phones: Phones, penalties: Penalties) -> Fst:
    """`HCLr.fst`: any sequence of words, `[unk]` and silence, without the words' own probabilities."""
    fst = Fst()
    fst.add_state(0.0)
    for number, entries in enumerate(phones.units.pronunciations.values(), start=1):
        for pronunciation, probability in entries:
            path = [phones.ids(unit, place) for unit, place in phones.positions(pronunciation)]
            end = _chain(fst, 0, path, number, penalties.word - math.log(probability))
            fst.arcs[end].append(Arc(0, 0, 0.0, 0))
    silence = _chain(fst, 0, [phones.ids(SILENCE, "nonword")], 0, 0.0)
    fst.arcs[silence].append(Arc(0, 0, 0.0, 0))
    unknown = len(phones.units.pronunciations) + 1
    middle = fst.add_state()
    for unit in phones.unknown:
        begin = _chain(fst, 0, [phones.ids(unit, "begin")], unknown, penalties.unknown + penalties.unknown_phone)
        fst.arcs[begin].append(Arc(0, 0, 0.0, middle))
        inner = _chain(fst, middle, [phones.ids(unit, "internal")], 0, penalties.unknown_phone)
        fst.arcs[inner].append(Arc(0, 0, 0.0, middle))
        end = _chain(fst, middle, [phones.ids(unit, "end")], 0, penalties.unknown_phone)
        fst.arcs[end].append(Arc(0, 0, 0.0, 0))
    for arcs in fst.arcs:
        arcs.sort(key=lambda arc: arc.word)  # composition with a grammar looks words up
    return fst


def word_loop_fst(phones: Phones) -> Fst:
    """`Gr.fst`: every word as likely as every other, in any order."""
    fst = Fst()
    fst.add_state(0.0)
    count = len(phones.units.pronunciations) + 1
    for number in range(1, count + 1):
        fst.arcs[0].append(Arc(number, number, math.log(count), 0))
    return fst


def words_txt(phones: Phones) -> str:
    """`words.txt`: number of each word."""
    words = ["<eps>", *phones.units.pronunciations, UNKNOWN]
    return "".join(f"{word} {number}\n" for number, word in enumerate(words))


def word_boundary_int(phones: Phones) -> str:
    """`word_boundary.int`: place of each phone; without it, word times are wrong."""
    return "".join(f"{phones.number[key]} {key[1]}\n" for key in phones.keys)
