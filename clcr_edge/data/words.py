"""Single words with what they say: a dense diet for the audio encoder, before the streams.

A stream says a digit every few seconds; here nearly every clip of a second and a bit does. Clips pass the same rooms,
microphones, noise and filter bank as the streams' sound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.conditions import draw_training_conditions
from clcr_edge.data.plan import AFTERMATH, TICK, other_speech, say
from clcr_edge.data.sound import Utterance, mix
from clcr_edge.features import fbank_of_ticks
from clcr_edge.packets import FloatArray

TICKS = 30
_OTHER = 0.4
_ROOM = 8  # ticks left after a word, at least


class Words(NamedTuple):
    """fbank: float32 `[count, TICKS, F, n_mels]`. said: int64 `[count, TICKS]`, the digit just said, 10 for none."""

    fbank: FloatArray
    said: npt.NDArray[np.int64]


def known_by(start: int, length: int) -> slice:
    """The ticks in which a digit spoken in samples [start, start + length) was "just said": from its last third (nobody knows
    a word at its first sound) for as long as its event is labelled. The encoder has to remember that long: InterCAD reads means
    over whole windows, in which a word alone is a small part."""
    return slice((start + length * 2 // 3) // TICK, (start + length) // TICK + AFTERMATH)


def make_words(bank: DigitBank, config: TickConfig, count: int, seed: int) -> Words:
    """`count` clips of one word each, three fifths of them digits. Deterministic in (bank, config, count, seed)."""
    rng = np.random.default_rng([seed, 8])
    fbank = np.empty((count, TICKS, config.fbank_frames, config.n_mels), np.float32)
    said = np.full((count, TICKS), NONE, np.int64)
    everything = np.ones(TICKS, bool)
    for row in range(count):
        conditions = draw_training_conditions(rng)
        digit = NONE
        if rng.random() >= _OTHER:
            digit = int(rng.integers(10))
            choice = int(rng.choice(bank.recordings_of(digit)))
            word = say("digit", bank.recordings[choice], None, 0, rng, False, choice)
        else:
            word = other_speech(bank, 0, rng, False)
        start = int(rng.integers(0, max((TICKS - _ROOM) * TICK - word.length, 1)))
        audio = mix([Utterance(word.samples, start, word.speed, word.level_db)], TICKS * TICK, bank, conditions, rng)
        fbank[row] = fbank_of_ticks(audio, everything, config)
        if digit != NONE:
            said[row, known_by(start, word.length)] = digit
    return Words(fbank, said)
