"""Predictions as JSON, one object a line, for another program to read."""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

from clcr_edge.packets import Prediction, Word


def as_json(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain JSON values. Shares and times are rounded to six digits; what is unknown is null."""
    return {
        "t_s": _rounded(prediction.t_s),
        "tick": prediction.tick,
        "label": prediction.label,
        "probs": _rounded(prediction.probs),
        "ready": prediction.ready,
        "level_weights": _rounded(prediction.level_weights),
        "modality_weights": _rounded(prediction.modality_weights),
        "private_gates": _rounded(prediction.private_gates),
        "participation": _rounded(prediction.participation),
        "age_s": _rounded(prediction.age_s),
        "latency_ms": _rounded(prediction.latency_ms),
        "frame_seq": prediction.frame_seq,
        "skew_ms": _rounded(prediction.skew_ms),
        "drift_ppm": _rounded(prediction.drift_ppm),
        "sources": prediction.sources,
        "rung": prediction.rung,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


class JsonLines:
    """Writes each prediction to a text stream and flushes it, so that a reader gets it in its tick."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, prediction: Prediction, words: list[Word]) -> None:
        """Write one line. Raises `BrokenPipeError` when the reader has gone."""
        line = as_json(prediction)
        line["words"] = [w.text for w in words]
        self._out.write(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing to free."""
