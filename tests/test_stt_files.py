"""The writer of Vosk models: what it writes is consistent, repeatable and read back the same."""

from __future__ import annotations

import math
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clcr_edge.errors import SpeechModelError
from clcr_edge.stt.fst import Arc, Fst, read_fst
from clcr_edge.stt.graph import Penalties, Phones, lexicon_fst, word_boundary_int, word_loop_fst, words_txt
from clcr_edge.stt.kaldi_files import write_model
from clcr_edge.stt.units import Units, inventory, states_of, word_units
from clcr_edge.stt.vocabulary import DIGITS, NEAR_MISSES, TEST_FILLERS, TRAIN_FILLERS, UNKNOWN, VOCABULARY, pseudo_word


@pytest.fixture
def units() -> Units:
    words: Counter[tuple[str, tuple[str, ...]]] = Counter({(word, ("a", word[0], "oU")): 9 for word in VOCABULARY})
    words["seven", ("s", "E", "s")] = 3
    words["six", ("never",)] = 0
    return inventory(words, Counter({"a": 50, "s": 40, "oU": 10, "Z": 0}))


def test_fst_round_trip(tmp_path: Path) -> None:
    fst = Fst()
    start, end = fst.add_state(), fst.add_state(0.25)
    fst.arcs[start] += [Arc(3, 7, 1.5, end), Arc(0, 0, 0.0, start)]
    path = tmp_path / "a.fst"
    path.write_bytes(fst.to_bytes())
    again = read_fst(path)
    assert again == fst
    assert again.finals == [math.inf, 0.25]


@pytest.mark.parametrize("cut", [0, 3, 20, 60, -1])
def test_a_cut_fst_is_refused(tmp_path: Path, cut: int) -> None:
    fst = Fst()
    fst.add_state(0.0)
    fst.arcs[0].append(Arc(1, 1, 0.5, 0))
    path = tmp_path / "a.fst"
    path.write_bytes(fst.to_bytes()[:cut])
    with pytest.raises(SpeechModelError, match=r"a\.fst is not a vector FST"):
        read_fst(path)


def test_units_share_outputs_only_where_meant(units: Units) -> None:
    columns = [units.pdf(unit, state) for unit in ("sil", "spn", "a", "oU") for state in range(states_of(unit))]
    assert columns == sorted(set(columns))
    assert units.pdf("Z") == -1  # never used: no output of its own
    assert word_units("seven", ("s", "E", "s")) == ("seven/s/0", "seven/E/0", "seven/s/1")
    assert sum(probability for _, probability in units.pronunciations["seven"]) == pytest.approx(1.0)


def test_labels_follow_the_segments(units: Units) -> None:
    track = units.labels([("oU", 0.1, 0.2), ("nobody/x/0", 0.2, 0.25)], 40)
    assert track[0] == units.pdf("sil")
    assert track[9] == units.pdf("oU", 0)  # centred at 0.1025
    assert track[18] == units.pdf("oU", 1)
    assert track[19] == -1  # an unknown unit is left out of training
    assert track[30] == units.pdf("sil")


def test_transition_ids_are_sorted_and_complete(units: Units) -> None:
    phones = Phones(units)
    assert phones.triples == sorted(phones.triples)
    assert {phone for phone, _, _ in phones.triples} == set(range(1, len(phones.keys) + 1))
    used = {arc.label for arcs in lexicon_fst(phones, Penalties()).arcs for arc in arcs} - {0}
    assert used == set(range(1, 2 * len(phones.triples) + 1))


def test_lexicon_says_every_word_once_and_sorts_its_arcs(units: Units) -> None:
    phones = Phones(units)
    fst = lexicon_fst(phones, Penalties())
    assert fst.finals.count(0.0) == 1
    said = Counter(arc.word for arcs in fst.arcs for arc in arcs if arc.word)
    assert set(said) == set(range(1, len(VOCABULARY) + 2))
    assert said[VOCABULARY.index("seven") + 1] == 2  # two pronunciations
    for arcs in fst.arcs:
        assert [arc.word for arc in arcs] == sorted(arc.word for arc in arcs)
    loop = word_loop_fst(phones)
    assert {arc.word for arc in loop.arcs[0]} == set(said)


def test_tables(units: Units) -> None:
    phones = Phones(units)
    lines = words_txt(phones).split("\n")
    assert lines[0] == "<eps> 0"
    assert lines[-2] == f"{UNKNOWN} {len(VOCABULARY) + 1}"
    boundary = [line.split() for line in word_boundary_int(phones).splitlines()]
    assert boundary[0] == ["1", "nonword"]
    assert [int(number) for number, _ in boundary] == list(range(1, len(phones.keys) + 1))


def test_writer_is_deterministic(tmp_path: Path, units: Units) -> None:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(4, 120)), rng.normal(size=4)), (rng.normal(size=(units.n_pdfs, 4)), np.zeros(units.n_pdfs))]
    for name in ("a", "b"):
        write_model(tmp_path / name, Phones(units), layers, ((-1, 0, 1),), np.full(units.n_pdfs, 0.1), Penalties())
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 9
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    data = (tmp_path / "a/am/final.mdl").read_bytes()
    assert data.startswith(b"\0B<TransitionModel> <Topology> ")
    assert b"<Nnet3> \ninput-node name=input dim=40\n" in data
    size = struct.unpack_from("<i", data, data.index(b"<LogProbs> FV ") + 15)[0]
    assert size == 2 * len(Phones(units).triples) + 1  # any other number aborts vosk


def test_word_lists_keep_apart() -> None:
    assert not set(TRAIN_FILLERS) & set(VOCABULARY)
    assert not set(TEST_FILLERS) & (set(TRAIN_FILLERS) | set(NEAR_MISSES) | set(VOCABULARY))
    assert set(DIGITS) < set(VOCABULARY)
    rng = np.random.default_rng(1)
    made_up = {pseudo_word(rng) for _ in range(500)}
    assert not made_up & set(VOCABULARY)
    assert len(made_up) > 400
