"""Forced alignment finds what was put there."""

from __future__ import annotations

import numpy as np
import pytest

from clcr_edge.stt.align import align, dense_scores
from clcr_edge.stt.units import Units


@pytest.fixture
def units() -> Units:
    yes = (("yes/j/0", "yes/E/0", "yes/s/0"), 0.5), (("yes/E/0", "yes/s/0"), 0.5)
    return Units(("a", "oU"), {"yes": yes, "no": ((("no/n/0", "no/oU/0"), 1.0),)})


def _scores(units: Units, track: list[tuple[str, int, int]]) -> np.ndarray:
    """Log-posteriors that favour (unit, state) for so many frames."""
    rng = np.random.default_rng(0)
    columns = [units.pdf(unit, state) for unit, state, count in track for _ in range(count)]
    scores = rng.normal(-6.0, 0.5, (len(columns), units.n_pdfs))
    scores[np.arange(len(columns)), columns] = -0.2
    return scores


def test_words_are_found_where_they_are(units: Units) -> None:
    track = [
        ("sil", 0, 10),
        ("yes/E/0", 0, 8),
        ("yes/s/0", 0, 12),
        ("sil", 0, 5),
        ("no/n/0", 0, 6),
        ("no/oU/0", 0, 4),
        ("no/oU/0", 1, 5),
    ]
    spellings = [[p for p, _ in units.pronunciations[word]] for word in ("yes", "no")]
    found = align(_scores(units, track), spellings, units)
    assert found is not None
    yes, no = found[1]
    assert [unit for unit, _, _ in yes] == ["yes/E/0", "yes/s/0"]  # the pronunciation that fits better
    assert yes[0][1:] == pytest.approx((0.1075, 0.1875))
    assert no[0][1] == pytest.approx(0.3575)
    assert no[-1][2] == pytest.approx(0.5075)


def test_too_short_a_recording_gives_nothing(units: Units) -> None:
    assert align(_scores(units, [("sil", 0, 3)]), [[("yes/j/0", "yes/E/0", "yes/s/0")]], units) is None


def test_dense_scores_interleave_the_three_phases() -> None:
    mel = np.arange(10, dtype=np.float32)[:, None].repeat(2, axis=1)
    np.testing.assert_array_equal(dense_scores(lambda x: x[::3], mel), mel)
