"""What is written on a card that is held up: in another hand each time, and still the same digit."""

from __future__ import annotations

import numpy as np

from clcr_edge.data.cards import bend


def test_a_bent_glyph_is_wider_or_narrower_and_slanted_but_stays_in_its_cell() -> None:
    bar = np.zeros((28, 28), np.float32)
    bar[5:23, 11:17] = 1.0
    widths, slants = [], []
    for seed in range(300):
        bent = bend(bar, np.random.default_rng(seed))
        assert bent.dtype == np.float32
        assert 0.0 <= bent.min() <= bent.max() <= 1.0
        assert 0.55 < bent.sum() / bar.sum() < 1.8
        rows, columns = np.nonzero(bent > 0.5)
        widths.append(np.bincount(rows)[8:20].mean())
        slants.append(np.polyfit(rows, columns, 1)[0])
    assert 0.08 < np.std(np.log(widths)) < 0.2
    assert 0.1 < np.std(slants) < 0.25
    assert abs(np.mean(slants)) < 0.03
    np.testing.assert_array_equal(bend(bar, np.random.default_rng(1)), bend(bar, np.random.default_rng(1)))
