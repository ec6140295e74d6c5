"""The report page: one file that needs nothing else, with the numbers of report.json in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from browser import browser

from clcr_edge.export import drawing
from clcr_edge.export.pipeline import PAGE
from clcr_edge.export.report_page import page


class TestPage:
    def test_it_needs_nothing_from_anywhere(self, tiny_bundle: Path) -> None:
        page = (tiny_bundle / PAGE).read_text()
        assert not re.findall(r"<script|<link|<img|<iframe|@import|url\(|https?:|src=|onload", page)
        assert page.count("<svg") == page.count("</svg>")
        for section in ("Precisions", "Gate", "Sensitivity", "Latency", "Reliability", "Memory", "Calibration"):
            assert re.search(f"<h2>{section}", page), section
        for unit in ("vision.encoder.conv1", "media.tcn.deep", "intraced", "head"):
            assert unit in page
        assert page.count("reliability of ") == 4, "one for each precision, before and after"

    def test_it_shows_the_numbers_of_the_report(self, tiny_bundle: Path) -> None:
        text, report = (tiny_bundle / PAGE).read_text(), json.loads((tiny_bundle / "report.json").read_text())
        for precision in ("fp32", "int8"):
            found = report["precisions"][precision]
            assert f"{found['latency']['p50_ms']:.3f}" in text
            assert sum(found["latency_histogram"]["counts"]) == found["latency"]["n"]
            assert found["memory"]["state_bytes"] > 10_000
            assert found["memory"]["resident"]["engine_bytes"] > 1e6
            assert sum(found["reliability"]["ticks"]) == found["accuracy"]["n_ticks"]
        assert report["precisions"]["trt-int8"]["latency"] is None

    def test_what_a_user_names_cannot_become_markup(self, tiny_bundle: Path) -> None:
        report = json.loads((tiny_bundle / "report.json").read_text())
        report["calibration"]["source"] = report["check"]["name"] = "<script>alert(1)</script>"
        assert "<script" not in page(report)

    def test_a_browser_shows_it_without_a_word_beyond_its_edge(self, tiny_bundle: Path) -> None:
        with browser() as shown:
            shown.open(f"file://{tiny_bundle / PAGE}", width=1150, height=900)
            shown.wait("document.readyState === 'complete' && document.querySelector('h1') !== null")
            assert shown.value("document.documentElement.scrollWidth <= window.innerWidth")
            assert shown.value("performance.getEntriesByType('resource').length") == 0
            # No two names of a drawing may lie on each other, and none may be cut off.
            overlaps = """[...document.querySelectorAll('svg')].filter(s => {
                const own = s.getBoundingClientRect();
                const boxes = [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect());
                return boxes.some((a, i) => a.left < own.left - 1 || a.right > own.right + 1 || a.bottom > own.bottom + 1
                    || boxes.some((b, j) => j > i && a.left < b.right - 1 && b.left < a.right - 1
                        && a.top < b.bottom - 3 && b.top < a.bottom - 3));
            }).length"""
            assert shown.value(overlaps) == 0


def test_percentiles_close_together_are_not_written_over_each_other() -> None:
    drawn = drawing.latency("t", 0.0, 1.0, [1] * 10, [("p50", 0.50), ("p90", 0.51), ("p99", 0.9)])
    assert "p50" in drawn
    assert "p90" not in drawn
    assert "p99" in drawn
    assert drawn.count('class="mark"') == 3
