"""Small drawings for the report, as inline SVG: no script, no font, nothing fetched. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_W, _H, _LEFT, _BOTTOM, _TOP = 300, 190, 34, 28, 8


def _svg(body: Sequence[str], title: str, width: int = _W, height: int = _H) -> str:
    label = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{label}">'
        + "".join(body)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" class="{kind}"/>'


def latency(title: str, low_ms: float, high_ms: float, counts: Sequence[int], marks: Sequence[tuple[str, float]]) -> str:
    """Histogram of step times. marks: (name, milliseconds) of the percentiles to draw."""
    right, base = _W - 10, _H - _BOTTOM
    span = max(high_ms - low_ms, 1e-9)

    def x(ms: float) -> float:
        return _LEFT + (min(max(ms, low_ms), high_ms) - low_ms) / span * (right - _LEFT)

    top = max([*counts, 1])
    width = (right - _LEFT) / len(counts)
    body = [
        _rect(_LEFT + i * width, base - n / top * (base - _TOP - 12), width - 0.6, n / top * (base - _TOP - 12), "bar")
        for i, n in enumerate(counts)
        if n
    ]
    body.append(_line(_LEFT, base, right, base, "axis"))
    # A name is left out where it would be written over the one before it.
    written = 0.0
    for name, ms in marks:
        body.append(_line(x(ms), _TOP + 12, x(ms), base, "mark"))
        anchor, half = ("end", 24.0) if x(ms) > right - 12 else ("middle", 12.0)
        if x(ms) - half > written:
            body.append(_text(x(ms), _TOP + 8, name, anchor))
            written = x(ms) + 12
    for at in range(3):
        ms = low_ms + span * at / 2
        body.append(_text(x(ms), base + 15, f"{ms:.2f} ms", ("start", "middle", "end")[at]))
    return _svg(body, title)


def reliability(title: str, found: dict[str, list[float | None]]) -> str:
    """Accuracy over confidence; on the diagonal a network is as right as it is sure. Bars as wide as a bin, faint where there
    are few ticks."""
    left, base, size = _LEFT, _H - _BOTTOM, _H - _BOTTOM - _TOP
    side = size * 1.3
    accuracy, ticks = found["accuracy"], [t or 0 for t in found["ticks"]]
    total = max(sum(ticks), 1)
    body = [_rect(left, base - size, side, size, "frame")]
    width = side / len(accuracy)
    for i, value in enumerate(accuracy):
        if value is not None:
            kind = "bar" if ticks[i] / total >= 0.005 else "bar few"
            body.append(_rect(left + i * width + 0.5, base - value * size, width - 1, value * size, kind))
    body.append(_line(left, base, left + side, base - size, "even"))
    for at in (0.0, 0.5, 1.0):
        body.append(_text(left + at * side, base + 15, f"{at:g}"))
        body.append(_text(left - 5, base - at * size + 4, f"{at:g}", "end"))
    body.append(_text(left + side / 2, base + 27, "confidence"))
    return _svg(body, title, round(left + side + 14), _H + 4)


def curves(
    title: str,
    across: Sequence[float],
    series: Sequence[tuple[str, Sequence[float]]],
    names: tuple[str, str],
    low: float = 0.0,
    high: float = 1.0,
) -> str:
    """Lines over one axis, logarithmic across. series: (name, values), drawn in the classes line0, line1, ...; names: of the
    two axes."""
    width, height, left, base, top = 560, 300, 46, 244, 16
    right, span = width - 150, math.log(across[-1] / across[0])

    def x(value: float) -> float:
        return left + math.log(value / across[0]) / span * (right - left)

    def y(value: float) -> float:
        return base - (min(max(value, low), high) - low) / (high - low) * (base - top)

    body = [_line(left, base, right, base, "axis"), _line(left, top, left, base, "axis")]
    for step in range(5):
        value = low + (high - low) * step / 4
        body += [_line(left, y(value), right, y(value), "even"), _text(left - 5, y(value) + 4, f"{value:.2f}", "end")]
    body += [_text(x(value), base + 16, f"{value:g}") for value in across]
    body += [_text((left + right) / 2, base + 38, names[0]), _text(left, top - 5, names[1], "start")]
    for index, (name, values) in enumerate(series):
        points = " ".join(f"{x(a):.1f},{y(v):.1f}" for a, v in zip(across, values, strict=True))
        body.append(f'<polyline points="{points}" fill="none" class="line{index}"/>')
        at = top + 12 + 20 * index
        body += [_line(right + 10, at - 4, right + 26, at - 4, f"line{index}"), _text(right + 31, at, name, "start")]
    return _svg(body, title, width, height)


def bar(share: float, width: int = 120, kind: str = "bar") -> str:
    """A bar within a table cell. share: 0..1 of the full width."""
    return _svg([_rect(0, 0, width, 10, "rest"), _rect(0, 0, width * min(max(share, 0.0), 1.0), 10, kind)], "", width, 10)
