"""Scores of the field against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clcr_edge.train.field_metrics import classification_scores, segment_scores, sentiment_scores, weighted_f1

TRUTH = [-3.0, -1.2, 0.0, 0.0, 0.4, 2.6]
SAID = [-3.4, 0.1, -0.2, 0.3, 1.5, 2.5]


def test_sentiment_by_hand() -> None:
    scores = sentiment_scores(TRUTH, SAID)
    # |errors| 0.4 1.3 0.2 0.3 1.1 0.1
    assert scores["mae"] == pytest.approx(3.4 / 6)
    # clipped to +-3 and rounded: -3 -1 0 0 0 3 against -3 0 0 0 2 2 (1.5 and 2.5 go to the even 2)
    assert scores["acc7"] == pytest.approx(3 / 6)
    # clipped to +-2: -2 -1 0 0 0 2 against -2 0 0 0 2 2
    assert scores["acc5"] == pytest.approx(4 / 6)
    # >= 0: - - + + + + against - + - + + +
    assert scores["acc2_negative_vs_nonnegative"] == pytest.approx(4 / 6)
    # negative: 1 of (2 true, 2 said): F1 1/2, share 2/6; others: 3 of (4 true, 4 said): 3/4, share 4/6
    assert scores["f1_weighted_negative_vs_nonnegative"] == pytest.approx(0.5 * 2 / 6 + 0.75 * 4 / 6)
    # without the zeros, > 0: - - + + against - + + +
    assert scores["acc2_negative_vs_positive"] == pytest.approx(3 / 4)
    # negative: 2 * 1 / (2 + 1), share 1/2; positive: 2 * 2 / (2 + 3), share 1/2
    assert scores["f1_weighted_negative_vs_positive"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 4 / 5)
    assert (scores["n"], scores["n_nonzero"]) == (6, 4)


def test_pearson_by_hand() -> None:
    # Deviations -1 0 1 and -2 1 1: 3 / sqrt(2 * 6)
    assert sentiment_scores([1.0, 2.0, 3.0], [0.0, 3.0, 3.0])["pearson"] == pytest.approx(3 / math.sqrt(12))
    assert sentiment_scores([1.0, 2.0, 3.0], [6.0, 4.0, 2.0])["pearson"] == pytest.approx(-1.0)
    assert math.isnan(sentiment_scores([1.0, 2.0], [1.0, 1.0])["pearson"])


def test_the_two_conventions_differ_where_they_should() -> None:
    # A prediction of exactly 0 is not negative in the one and not positive in the other.
    scores = sentiment_scores([1.0, -1.0], [0.0, 0.0])
    assert scores["acc2_negative_vs_nonnegative"] == 0.5
    assert scores["acc2_negative_vs_positive"] == 0.5
    scores = sentiment_scores([1.0, 1.0], [0.0, 0.0])
    assert scores["acc2_negative_vs_nonnegative"] == 1.0
    assert scores["acc2_negative_vs_positive"] == 0.0
    # Halves are rounded to even on both sides, beyond the scale is clipped.
    assert sentiment_scores([0.5, 3.0], [-0.5, 9.0])["acc7"] == 1.0
    assert sentiment_scores([3.0], [9.0])["mae"] == 6.0


def test_classification_by_hand() -> None:
    scores = classification_scores([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 3, 2])
    assert scores["accuracy"] == pytest.approx(4 / 6)
    f1 = [2 * 2 / (3 + 2), 2 * 1 / (2 + 2), 1.0, 0.0]
    assert scores["macro_f1"] == pytest.approx(sum(f1) / 4)  # class 3 was never true: it counts, as in scikit-learn
    assert scores["f1_weighted"] == pytest.approx(3 / 6 * f1[0] + 2 / 6 * f1[1] + 1 / 6 * f1[2])
    assert scores["n"] == 6
    assert weighted_f1(np.array([1, 1]), np.array([0, 0])) == 0.0


def test_segments_by_hand() -> None:
    truth = [[28, 2, 2, 28], [5, 5]]
    said = [[28, 2, 28, 2], [5, 28]]
    scores = segment_scores(truth, said, background=28)
    assert scores["segment_accuracy"] == scores["accuracy"] == pytest.approx(3 / 6)
    assert scores["event_accuracy"] == pytest.approx(2 / 4)
    # 28: 1 of (2 true, 3 said); 2: 1 of (2, 2); 5: 1 of (2, 1)
    assert scores["macro_f1"] == pytest.approx((2 / 5 + 2 / 4 + 2 / 3) / 3)
    assert (scores["n"], scores["n_samples"]) == (6, 2)
    assert "event_accuracy" not in segment_scores(truth, said)


def test_nothing_to_score_is_nan_and_nonsense_is_an_error() -> None:
    assert math.isnan(sentiment_scores([], [])["mae"])
    assert math.isnan(sentiment_scores([0.0], [1.0])["acc2_negative_vs_positive"])
    assert math.isnan(classification_scores([], [])["macro_f1"])
    assert math.isnan(segment_scores([], [])["segment_accuracy"])
    with pytest.raises(ValueError, match="one number per sample"):
        sentiment_scores([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        sentiment_scores([1.0], [float("nan")])
    with pytest.raises(ValueError, match="2 true sequences, 1 predicted"):
        segment_scores([[1], [1]], [[1]])
    with pytest.raises(ValueError, match="one number per sample"):
        segment_scores([[1, 2]], [[1]])
