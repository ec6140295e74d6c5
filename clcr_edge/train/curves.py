"""Learning curves as a picture: metrics.jsonl -> curves.svg. Written by hand: a few lines need no plotting package.

One panel for each kind of number (losses, scores, each on its own scale), every phase's steps one after the other.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from xml.sax.saxutils import escape

FILE = "curves.svg"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _GAP = 900, 240, 70, 220, 34, 56
_COLOURS = ("#1f6fb4", "#d9541e", "#2c8a3d", "#8a4fb0", "#a8761a", "#c03a6b", "#4a5a68", "#0f8f8f")
Series = dict[str, list[tuple[float, float]]]


def read_series(path: Path) -> Series:
    """Every number of a metrics file by name: (step, value) pairs. Phases follow each other on one axis."""
    series: Series = {}
    base, phase, last = 0, None, 0
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        if phase is not None and record["phase"] != phase:
            base = last
        phase = record["phase"]
        last = base + record["step"] + 1
        for key, value in record.items():
            if key not in ("phase", "step", "seconds") and isinstance(value, (int, float)) and math.isfinite(value):
                series.setdefault(key, []).append((float(last), float(value)))
    return series


def draw_curves(metrics: Path, out: Path) -> None:
    """Write the picture; a metrics file that is empty or not there leaves none."""
    series = read_series(metrics) if metrics.is_file() else {}
    if not series:
        return
    draw_panels([(title, chosen) for title, chosen in _panels(series) if chosen], out)


def draw_panels(panels: list[tuple[str, Series]], out: Path, axis: str = "step") -> None:
    """Write a picture of titled panels, each with lines by name: (x, y) pairs. axis: what x is, the same in all of them."""
    places = [x for _, chosen in panels for line in chosen.values() for x, _ in line]
    span = min(places), max(places)
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for place, (title, chosen) in enumerate(panels):
        parts += _panel(title, chosen, axis, span, _TOP + place * (_HEIGHT + _GAP))
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    scratch.write_text("\n".join([*parts, "</svg>"]) + "\n", "utf-8")
    scratch.replace(out)


def _panels(series: Series) -> list[tuple[str, Series]]:
    def is_score(name: str) -> bool:
        return any(word in name for word in ("accuracy", "acc", "f1", "pearson"))

    scores = {k: v for k, v in series.items() if is_score(k)}
    counts = {"val_n", "val_n_nonzero", "val_n_samples"}
    elsewhere = scores.keys() | counts | {"total"}
    return [
        ("loss", {k: v for k, v in series.items() if k == "total"}),
        ("its terms, before their weights", {k: v for k, v in series.items() if k not in elsewhere}),
        ("scores", scores),
    ]


def _panel(title: str, series: Series, axis: str, span: tuple[float, float], top: int) -> list[str]:
    points = [p for line in series.values() for p in line]
    first, last = span
    low, high = min(y for _, y in points), max(y for _, y in points)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    inner = _WIDTH - _LEFT - _RIGHT

    def x(step: float) -> float:
        return _LEFT + inner * (step - first) / max(last - first, 1e-9)

    def y(value: float) -> float:
        return top + _HEIGHT * (1.0 - (value - low) / (high - low))

    parts = [f'<text x="{_LEFT}" y="{top - 10}" font-weight="bold">{escape(title)}</text>']
    for value in _marks(low, high):
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + inner}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    below = top + _HEIGHT + 18
    parts += [f'<text x="{x(s):.1f}" y="{below}" text-anchor="middle">{s:.6g}</text>' for s in _marks(first, last)]
    place_x, place_y = _LEFT + inner / 2, top + _HEIGHT + 34
    parts.append(f'<text x="{place_x}" y="{place_y}" text-anchor="middle" fill="#666666">{escape(axis)}</text>')
    for place, (name, line) in enumerate(series.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        dash = ' stroke-dasharray="5 3"' if place >= len(_COLOURS) else ""
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        if len(line) == 1:
            parts.append(f'<circle cx="{x(line[0][0]):.1f}" cy="{y(line[0][1]):.1f}" r="3" fill="{colour}"/>')
        beside, label = _LEFT + inner + 14, top + 8 + 17 * place
        parts.append(f'<line x1="{beside}" x2="{beside + 18}" y1="{label - 4}" y2="{label - 4}" stroke="{colour}"{dash}/>')
        parts.append(f'<text x="{beside + 24}" y="{label}">{escape(name)}</text>')
    return parts


def _marks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
