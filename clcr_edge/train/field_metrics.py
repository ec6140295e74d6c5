"""Scores as the field reports them, under names that say which convention. numpy only.

Papers on CMU-MOSI and MOSEI mix two kinds of Acc-2 under one name; here both are given, each under its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clcr_edge.train.metrics import macro_f1

Numbers = npt.NDArray[np.floating] | Sequence[float]
Labels = npt.NDArray[np.integer] | Sequence[int]
Scores = dict[str, float | int]
_NAN = float("nan")


def sentiment_scores(truth: Numbers, predicted: Numbers) -> Scores:
    """Scores of sentiment regression, truth in -3..3; float `[n]` each, finite.

    mae: mean absolute error of the numbers as they are. pearson: correlation, NaN where either side is constant.
    acc7, acc5: both sides clipped to +-3 (+-2) and rounded, halves to even as in numpy.
    acc2_negative_vs_nonnegative ("Has0"): all samples, both sides `>= 0`. acc2_negative_vs_positive ("Non0"): without the
    samples whose truth is 0, both sides `> 0`. f1_weighted_...: F1 of both classes, weighted by their share of the truth.
    n, n_nonzero: samples, and those whose truth is not 0. Raises `ValueError` for shapes that differ and for NaN.
    As in MMSA (github.com/thuiar/MMSA, metricsTop) and MulT (Tsai et al., ACL 2019).
    """
    y, p = _pair(np.asarray(truth, np.float64), np.asarray(predicted, np.float64))
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise ValueError("sentiments that are not finite cannot be scored")
    there = y != 0
    return {
        "mae": float(np.abs(y - p).mean()) if len(y) else _NAN,
        "pearson": _pearson(y, p),
        "acc7": _share(np.rint(np.clip(y, -3, 3)) == np.rint(np.clip(p, -3, 3))),
        "acc5": _share(np.rint(np.clip(y, -2, 2)) == np.rint(np.clip(p, -2, 2))),
        "acc2_negative_vs_nonnegative": _share((y >= 0) == (p >= 0)),
        "f1_weighted_negative_vs_nonnegative": weighted_f1(y >= 0, p >= 0),
        "acc2_negative_vs_positive": _share((y[there] > 0) == (p[there] > 0)),
        "f1_weighted_negative_vs_positive": weighted_f1(y[there] > 0, p[there] > 0),
        "n": len(y),
        "n_nonzero": int(there.sum()),
    }


def classification_scores(truth: Labels, predicted: Labels) -> Scores:
    """accuracy; macro_f1: mean F1 over the classes that occur in truth or prediction; f1_weighted: weighted by their share of
    the truth; n. Classes 0, 1, ..., int `[n]` each. NaN where there is nothing to score."""
    y, p = _pair(np.asarray(truth, np.int64), np.asarray(predicted, np.int64))
    return {"accuracy": _share(y == p), "macro_f1": macro_f1(y, p), "f1_weighted": weighted_f1(y, p), "n": len(y)}


def segment_scores(truth: Sequence[Labels], predicted: Sequence[Labels], background: int | None = None) -> Scores:
    """Scores of one class per segment; one sequence of classes per sample, of equal lengths in truth and prediction.

    segment_accuracy: the share of all segments with the right class, background being a class like the others (Tian et al.,
    ECCV 2018). macro_f1: over segments. event_accuracy, with `background`: the same share over the segments whose truth is not
    background. n: segments; n_samples: the samples that they are of. `accuracy` is segment_accuracy under the name that every
    task has.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true sequences, {len(predicted)} predicted ones: give one each")
    pairs = [_pair(np.asarray(t, np.int64), np.asarray(p, np.int64)) for t, p in zip(truth, predicted, strict=True)]
    y = np.concatenate([np.empty(0, np.int64), *(t for t, _ in pairs)])
    p = np.concatenate([np.empty(0, np.int64), *(q for _, q in pairs)])
    scores: Scores = {"accuracy": _share(y == p), "segment_accuracy": _share(y == p), "macro_f1": macro_f1(y, p)}
    if background is not None:
        events = y != background
        scores["event_accuracy"] = _share(y[events] == p[events])
    return {**scores, "n": len(y), "n_samples": len(pairs)}


def weighted_f1(truth: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]) -> float:
    """F1 of each class, weighted by its share of the truth (as scikit-learn's `average="weighted"`); NaN for nothing."""
    if not len(truth):
        return _NAN
    total = 0.0
    for label in np.unique(truth):
        true, said = truth == label, predicted == label
        total += float(true.sum()) * 2.0 * float((true & said).sum()) / float(true.sum() + said.sum())
    return total / len(truth)


def _pair(truth: npt.NDArray[np.generic], predicted: npt.NDArray[np.generic]) -> tuple[npt.NDArray, npt.NDArray]:  # type: ignore[type-arg]
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape}: give one number per sample, alike")
    return truth, predicted


def _share(right: npt.NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else _NAN


def _pearson(y: npt.NDArray[np.float64], p: npt.NDArray[np.float64]) -> float:
    if len(y) < 2 or np.ptp(y) == 0 or np.ptp(p) == 0:
        return _NAN
    a, b = y - y.mean(), p - p.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
