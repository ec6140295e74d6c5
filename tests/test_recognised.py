"""Words that a real recogniser makes of a generated stream's sound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from live_rig import need_module

from clcr_edge.data.bank import DIGITS
from clcr_edge.data.conditions import CLEAN
from clcr_edge.data.streams import make_stream
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.runtime.speech import Recogniser
from clcr_edge.train.recognised import recognised


@pytest.mark.live
def test_the_words_are_those_that_were_said_and_come_after_they_were() -> None:
    need_module("vosk")
    model = default_speech_model()
    if model is None:
        pytest.skip("no speech model ships with this checkout")
    recogniser = Recogniser(model, check=False)
    stream = make_stream(synthetic_bank("check"), CLEAN, 40.0, 5)
    heard = recognised(stream, recogniser)
    assert heard.labels is stream.labels
    assert (np.diff(heard.word_ticks) >= 0).all()
    assert heard.word_ticks.max() < stream.ticks
    for word, tick in zip(heard.words, heard.word_ticks.tolist(), strict=True):
        assert word.end_s <= tick / 25 + 0.02, word
    digits = [w.text for w in heard.words if w.text in DIGITS]
    said = [DIGITS[e.label] for e in stream.events]
    assert len(said) >= 6
    assert len(set(digits) & set(said)) >= 0.7 * len(set(said))
    again = recognised(stream, recogniser)
    assert again.words == heard.words
    assert again.word_ticks.tolist() == heard.word_ticks.tolist()

    deaf = dataclasses.replace(stream, audio_present=np.zeros(stream.ticks, bool))
    assert recognised(deaf, recogniser).words == ()
