"""Predictions as plain text for a log or a pipe: one line whenever the label changes."""

from __future__ import annotations

from typing import TextIO

from clcr_edge.packets import Prediction, Word


class PlainLines:
    """Writes time, label and probability when the label changes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._label: str | None = None

    def show(self, prediction: Prediction, words: list[Word]) -> None:
        """Write a line if the label is a new one, or a word has been heard."""
        lines = [f"{prediction.t_s:9.2f} s  heard {word.text!r} ({word.confidence:.2f})\n" for word in words]
        if prediction.label != self._label:
            self._label = prediction.label
            lines.append(f"{prediction.t_s:9.2f} s  {prediction.label:<8} {prediction.probs[prediction.label]:.2f}\n")
        if lines:
            self._out.write("".join(lines))
            self._out.flush()

    def close(self) -> None:
        """Nothing to free."""
