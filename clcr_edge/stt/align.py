"""Forced alignment: where each unit of known words lies in a recording, by Viterbi over a network's posteriors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.mel import HOP_S
from clcr_edge.stt.units import SILENCE, Units, states_of

_SHORTEST = 2  # frames (10 ms) that each state lasts at least

Unit = tuple[str, float, float]
"""(unit, start_s, end_s)"""


def dense_scores(posteriors: Callable[[FloatArray], FloatArray], mel: FloatArray) -> FloatArray:
    """Log-posteriors on every 10 ms frame `[T, n_pdfs]`: the 30 ms network is run at its three phases."""
    runs = [posteriors(mel[phase:]) for phase in range(min(3, len(mel)))]
    out = np.empty((len(mel), runs[0].shape[1]), np.float32)
    for phase, run in enumerate(runs):
        out[phase::3] = run
    return out


def _viterbi(scores: FloatArray, states: Sequence[int], skippable: Sequence[bool]) -> tuple[float, list[int]]:
    """Best path through `states` (columns of `scores`) from left to right; a skippable state may be passed over."""
    n_frames, n = len(scores), len(states)
    local = scores[:, list(states)]
    best = np.full(n, -np.inf)
    best[0] = local[0, 0]
    if skippable[0] and n > 1:
        best[1] = local[0, 1]
    back = np.zeros((n_frames, n), np.int64)
    skip = np.zeros(n, bool)  # state j may be entered from j - 2
    skip[2:] = np.asarray(skippable, bool)[1:-1]
    for t in range(1, n_frames):
        options = np.full((3, n), -np.inf)
        options[0] = best
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where(skip[2:], best[:-2], -np.inf)
        choice = options.argmax(axis=0)
        best = options[choice, np.arange(n)] + local[t]
        back[t] = np.arange(n) - choice
    end = n - 2 if n > 1 and skippable[-1] and best[-2] > best[-1] else n - 1
    path = [end]
    for t in range(n_frames - 1, 0, -1):
        path.append(int(back[t, path[-1]]))
    return float(best[end]), path[::-1]


def align(
    scores: FloatArray, words: Sequence[Sequence[tuple[str, ...]]], units: Units
) -> tuple[float, list[list[Unit]]] | None:
    """Units of each word with their times, and the mean score per frame of the best path.

    `scores`: log-likelihoods `[T, n_pdfs]` on 10 ms frames. `words[i]`: the possible pronunciations of word i (units); the
    combination that fits best is taken. Silence may stand before, between and after words. None where the recording is
    too short for its words.
    """
    best_score, best_words = -np.inf, None
    for choice in itertools.product(*words):
        owners: list[tuple[int, int]] = [(-1, 0)]  # (word, index of the unit in it) of each state; word -1: silence
        columns, skippable = [units.pdf(SILENCE)], [True]
        for w, pronunciation in enumerate(choice):
            for u, unit in enumerate(pronunciation):
                for state in [s for s in range(states_of(unit)) for _ in range(_SHORTEST)]:
                    owners.append((w, u))
                    columns.append(units.pdf(unit, state))
                    skippable.append(False)
            owners.append((-1, 0))
            columns.append(units.pdf(SILENCE))
            skippable.append(True)
        score, path = _viterbi(scores, columns, skippable)
        if score > best_score:
            best_score = score
            best_words = [[(unit, 0.0, 0.0) for unit in pronunciation] for pronunciation in choice]
            for w, word in enumerate(best_words):
                for u, (unit, _, _) in enumerate(word):
                    where = [t for t, s in enumerate(path) if owners[s] == (w, u)]
                    # A frame is centred 12.5 ms after its start; its label reaches half a hop to both sides.
                    word[u] = (unit, where[0] * HOP_S + 0.0075, (where[-1] + 1) * HOP_S + 0.0075)
    if best_words is None:
        return None
    return best_score / len(scores), best_words
