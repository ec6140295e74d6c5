"""The report as one page that needs nothing else: no script, no font, no picture, no network. Made from `report.json` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from clcr_edge.calibration.ranges import METHODS
from clcr_edge.export import drawing

_STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--line:#d9dee3;--paper:#fff;--panel:#f6f8fa;--bar:#3b7dd8;--bad:#c2410c;--good:#15803d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa4ae;--line:#353c44;--paper:#14181c;--panel:#1c2227;
--bar:#5b9bf0;--bad:#fb923c;--good:#4ade80}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2.2rem 0 .4rem}p{margin:.3rem 0}
.soft,figcaption,small{color:var(--soft)}.bad{color:var(--bad)}.good{color:var(--good)}
.verdict{background:var(--panel);border-left:4px solid var(--bar);padding:.6rem .9rem;margin:1rem 0}
.verdict.failed{border-color:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;vertical-align:bottom}th:first-child,td:first-child,.left{text-align:left}td.text{white-space:normal}
figure{display:inline-block;margin:.4rem 1.2rem .4rem 0}figcaption{font-size:.85rem}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}td svg{vertical-align:middle}
.bar{fill:var(--bar)}.few{opacity:.35}.rest,.frame{fill:var(--panel)}.warm{fill:var(--bad)}
.axis{stroke:var(--soft)}.even{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
.mark{stroke:var(--soft);stroke-dasharray:3 3}
"""
Cell = tuple[str, str]  # html, class


def page(report: Mapping[str, Any]) -> str:
    """`report.json`'s content -> the whole page."""
    body = [
        f"<h1>Export report</h1><p class=soft>{_words(report['created'])} &middot; {_words(report['machine']['cpu'])} &middot; "
        f"ONNX Runtime {_words(report['machine']['onnxruntime'])}</p>",
        _verdict(report),
        *_precisions(report),
        *_gate(report),
        *_sensitivity(report),
        *_latency(report),
        *_reliability(report),
        *_memory(report),
        *_ranges(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>clcr-edge export report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _words(text: object) -> str:
    return escape(str(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> str:
    """head: names of the columns; one that begins with < stands at the left of its column."""

    def cell(value: Cell | str) -> str:
        html, kind = value if isinstance(value, tuple) else (value, "")
        return f'<td class="{kind}">{html}</td>' if kind else f"<td>{html}</td>"

    top = "".join(f"<th class=left>{_words(h[1:])}</th>" if h[0] == "<" else f"<th>{_words(h)}</th>" for h in head)
    lines = "".join(f"<tr>{''.join(cell(c) for c in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _verdict(report: Mapping[str, Any]) -> str:
    failed = [p for p, r in report["gate"]["results"].items() if not r["held"]]
    chosen = report["chosen"]
    lines = [f"<strong>{_words(chosen['precision'])}</strong> runs on this machine: {_words(chosen['why'])}"]
    if "tensorrt" in report:
        lines.append(_words(report["tensorrt"]["why"]))
    return f'<div class="verdict{" failed" if failed else ""}">{"".join(f"<p>{line}</p>" for line in lines)}</div>'


def _precisions(report: Mapping[str, Any]) -> list[str]:
    found = report["precisions"]
    base = found["fp32"]["accuracy"]["event_accuracy"]
    rows = []
    for name, p in found.items():
        speed, scores = p["latency"], p["accuracy"]
        times = [f"{speed[k]:.3f}" for k in ("p50_ms", "p90_ms", "p99_ms")] if speed else ["on the device", "", ""]
        change = 100.0 * (scores["event_accuracy"] - base)
        parity = p["parity"]["probs"]
        rows.append(
            [
                _words(name) + (" <small>chosen</small>" if name == report["chosen"]["precision"] else ""),
                f"{p['bytes'] / 1e6:.2f}",
                f"{scores['event_accuracy']:.2%}",
                "" if name == "fp32" else (f"{change:+.2f}", "bad" if change < 0 else "good" if change > 0 else ""),
                f"{scores['tick_accuracy']:.2%}",
                f"{parity['sqnr_db']:.0f}",
                *times,
            ]
        )
    head = ["precision", "MB", "event accuracy", "points", "tick accuracy", "SQNR dB", "p50 ms", "p90 ms", "p99 ms"]
    n = found["fp32"]["accuracy"]
    return [
        "<h2>Precisions</h2>",
        _table(head, rows),
        f"<p class=soft>Measured on {_words(report['check']['name'])}: {n['n_events']} events, {n['n_ticks']} ticks; one event "
        f"is {100 / max(n['n_events'], 1):.2f} points. SQNR: of the probabilities, against torch.</p>",
    ]


def _gate(report: Mapping[str, Any]) -> list[str]:
    gate = report["gate"]
    if not gate["results"]:
        return []
    speed = "" if gate["min_speedup"] is None else f", and must run at {gate['min_speedup']:g}x the speed of fp32 on this CPU"
    out = ["<h2>Gate</h2>", f"<p>INT8 may lose {gate['max_drop']:g} points of event accuracy{speed}.</p>"]
    for name, result in gate["results"].items():
        word = "<span class=good>held</span>" if result["held"] else "<span class=bad>failed, not written</span>"
        out.append(f"<p><strong>{_words(name)}</strong> {word}: {_words(result['why'])}</p>")
        if result["reverted"]:
            back: list[list[Cell | str]] = [[_words(r["unit"]), (_words(r["why"]), "text left")] for r in result["reverted"]]
            out.append(_table(["back to float", "<why"], back))
        tries: list[list[Cell | str]] = [
            [str(t["int8_units"]), f"{t['points']:+.2f}", str(t["events_lost"]), str(t["events_gained"])]
            for t in result["tries"]
        ]
        out.append(_table(["units in INT8", "points lost", "events lost", "events gained"], tries))
    return out


def _sensitivity(report: Mapping[str, Any]) -> list[str]:
    out: list[str] = []
    for precision, found in report["sensitivity"].items():
        rows: list[list[Cell | str]] = []
        labelled = any(u["tick_accuracy_lost"] is not None for u in found["units"])
        for unit in found["units"]:
            lost, cost = unit["tick_accuracy_lost"], unit["latency_ms"]
            # 60 dB is far beyond what changes a label; the less is left of it, the longer the bar.
            harm = drawing.bar(1.0 - unit["sqnr_db"] / 60.0, kind="warm" if unit["shipped"] == "int8" else "bar few")
            rows.append(
                [
                    _words(unit["unit"]),
                    (_words(unit["shipped"]), "left"),
                    f"{unit['sqnr_db']:.1f}" if unit["sqnr_db"] < 150 else "no change",
                    (harm, "left"),
                    f"{unit['labels_changed']:.2f}",
                    *([f"{lost:+.2f}"] if labelled else []),
                    "" if cost is None else f"{1e3 * cost:+.0f}",
                ]
            )
        head = ["unit", "<shipped as", "SQNR dB", "<harm", "labels changed %", "tick accuracy lost", "INT8 adds us"]
        head = head if labelled else [h for h in head if h != "tick accuracy lost"]
        out += [
            f"<h2>Sensitivity of each unit, {_words(precision)}</h2>",
            _table(head, rows),
            f"<p class=soft>One unit at a time in 8 bit, most harmful first, over {found['ticks']} ticks of "
            f"{_words(found['source'])}. Units shipped as float were probed only: their rows say what keeping them float "
            "saves. Time: what 8 bit adds to a tick here (negative: saves), INT8 units beside the other INT8 units.</p>",
        ]
    return out


def _latency(report: Mapping[str, Any]) -> list[str]:
    out = ["<h2>Latency on this CPU</h2>"]
    for name, p in report["precisions"].items():
        shape, speed = p["latency_histogram"], p["latency"]
        if shape:
            marks = [("p50", speed["p50_ms"]), ("p90", speed["p90_ms"]), ("p99", speed["p99_ms"])]
            drawn = drawing.latency(f"latency of {name}", shape["low_ms"], shape["high_ms"], shape["counts"], marks)
            caption = f"{_words(name)}: p50 {speed['p50_ms']:.3f} ms, n = {speed['n']}"
            out.append(f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>")
    out.append(
        "<p class=soft>One thread, steps back to back, precisions interleaved; one axis for all; the last bar holds what is "
        "slower. At the stream's pace steps are slower. Graphs for TensorRT are timed on the device by "
        "<code>clcr-edge verify</code>.</p>"
    )
    return out


def _reliability(report: Mapping[str, Any]) -> list[str]:
    out = ["<h2>Reliability before and after</h2>"]
    for name, p in report["precisions"].items():
        found = p["reliability"]
        drawn = drawing.reliability(f"reliability of {name}", found)
        gap = f"{_words(name)}: expected calibration error {100 * found['expected_calibration_error']:.2f} points"
        out.append(f"<figure>{drawn}<figcaption>{gap}</figcaption></figure>")
    out.append(
        "<p class=soft>How often the label of a tick is right, by how sure the network is of it. On the dashed line it is as "
        "right as it is sure. Faint bars rest on less than 0.5 % of the ticks.</p>"
    )
    return out


def _memory(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, p in report["precisions"].items():
        memory = p["memory"]
        resident = memory["resident"]
        rows.append(
            [
                _words(name),
                f"{p['bytes'] / 1e6:.2f}",
                f"{memory['state_bytes'] / 1e3:.1f}",
                *([f"{resident[k] / 1e6:.1f}" for k in ("engine_bytes", "process_bytes")] if resident else ["", ""]),
                str(p["nodes"]),
            ]
        )
    head = ["precision", "graph MB", "state of a stream kB", "engine MB", "whole process MB", "nodes"]
    return [
        "<h2>Memory</h2>",
        _table(head, rows),
        "<p class=soft>Resident, of a process that holds nothing but Python, numpy, ONNX Runtime and this graph. More streams "
        "add their states only.</p>",
    ]


def _ranges(report: Mapping[str, Any]) -> list[str]:
    calibration = report["calibration"]
    if not calibration:
        return []
    out = [
        "<h2>Calibration</h2>",
        f"<p>{_words(calibration['source'])}; {calibration['ticks']} ticks, states rolled out.</p>",
    ]
    for precision, units in calibration["ranges"].items():
        rows: list[list[Cell | str]] = []
        for unit, r in units.items():
            db = [(f"{r['sqnr_db'][m]:.1f}", "good" if m == r["method"] else "") for m in METHODS]
            rows.append([_words(unit), f"{r['low']:.3g}", f"{r['high']:.3g}", (_words(r["method"]), "left"), *db])
        head = ["input of", "low", "high", "<chosen", *(f"{m} dB" for m in METHODS)]
        out += [f"<p><strong>{_words(precision)}</strong></p>", _table(head, rows)]
    out.append("<p class=soft>dB: SQNR of what the convolution makes of its input, by the method that found the range.</p>")
    return out
