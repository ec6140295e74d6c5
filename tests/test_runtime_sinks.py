"""What a person and a program get to see of a prediction."""

from __future__ import annotations

import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from clcr_edge.packets import Level, Modality, Prediction, Word
from clcr_edge.runtime.json_lines import JsonLines
from clcr_edge.runtime.plain import PlainLines
from clcr_edge.runtime.terminal import TerminalView, bar


def prediction(
    label: str = "7", tick: int = 10, classes: tuple[str, ...] = (*"0123456789", "none"), **changes: object
) -> Prediction:
    rest = 0.2 / (len(classes) - 1)
    values: dict[str, object] = {
        "t_s": (tick + 1) / 25,
        "tick": tick,
        "label": label,
        "probs": {c: 0.8 if c == label else rest for c in classes},
        "ready": True,
        "level_weights": {"shallow": 0.2, "mid": 0.5, "deep": 0.3},
        "modality_weights": {"language": 0.1, "vision": 0.6, "audio": 0.3},
        "private_gates": {"language": 0.25, "vision": 0.5, "audio": 0.75},
        "participation": {lv.key: {m.key: 1 / 3 for m in Modality} for lv in Level},
        "age_s": {"language": None, "vision": 0.021, "audio": 0.0},
        "latency_ms": 2.34567,
        "frame_seq": 12,
        "skew_ms": -21.04,
        "drift_ppm": 12.3456789,
        "sources": {"camera": "live", "microphone": "lost"},
    }
    return Prediction(**{**values, **changes})  # type: ignore[arg-type]


def test_json_lines_hold_every_key_and_only_valid_json() -> None:
    out = io.StringIO()
    sink = JsonLines(out)
    sink.show(prediction(), [Word("seven", 0.0, 0.3)])
    sink.show(prediction(frame_seq=None, latency_ms=math.inf, t_s=0.1 + 0.2, skew_ms=None, drift_ppm=None), [])
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert set(first) == {
        *("t_s", "tick", "label", "probs", "ready", "level_weights", "modality_weights", "private_gates"),
        *("participation", "age_s", "latency_ms", "frame_seq", "skew_ms", "drift_ppm", "sources", "rung", "words"),
    }
    assert list(first["level_weights"]) == ["shallow", "mid", "deep"]
    assert list(first["modality_weights"]) == ["language", "vision", "audio"]
    assert first["age_s"] == {"language": None, "vision": 0.021, "audio": 0.0}
    assert first["participation"]["mid"]["audio"] == 0.333333
    assert first["sources"] == {"camera": "live", "microphone": "lost"}
    assert first["words"] == ["seven"]
    assert (first["skew_ms"], first["drift_ppm"]) == (-21.04, 12.345679)
    assert (second["skew_ms"], second["drift_ppm"]) == (None, None)
    assert (second["t_s"], second["latency_ms"], second["frame_seq"]) == (0.3, None, None)


def test_each_json_line_is_flushed() -> None:
    raw = io.BytesIO()
    text = io.TextIOWrapper(io.BufferedWriter(raw), write_through=False)
    JsonLines(text).show(prediction(), [])
    assert raw.getvalue().endswith(b"}\n")


def test_plain_lines_only_when_the_label_changes() -> None:
    out = io.StringIO()
    sink = PlainLines(out)
    for tick, label in enumerate(("none", "none", "7", "7", "7", "none")):
        sink.show(prediction(label, tick), [Word("seven", 0.1, 0.2, 0.9)] if tick == 3 else [])
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["none", "7", "heard", "none"]
    assert lines[1].split() == ["0.12", "s", "7", "0.80"]


def painted(view: TerminalView, console: Console, p: Prediction) -> list[str]:
    with console.capture() as capture:
        console.print(view.render(p))
    return capture.get().rstrip("\n").splitlines()


@pytest.mark.parametrize(
    "classes", [(*"0123456789", "none"), tuple(f"a class with a long name {k}" for k in range(40)), ("a", "b")]
)
def test_the_view_fits_80_by_24_and_shows_everything(classes: tuple[str, ...]) -> None:
    console = Console(width=80, height=24, force_terminal=True, color_system=None, file=io.StringIO())
    view = TerminalView(console, "digits-bundle  int8  camera 0  mic default")
    view._heard.extend((0.1 * k, Word(f"word{k}", 0, 1)) for k in range(12))
    view.notice("microphone 'a device with a rather long name' is gone; predictions go on without it while it is looked for")
    lines = painted(view, console, prediction(classes[1], classes=classes, frame_seq=1_234_567))
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for part in (
        "0.80",
        "language",
        "0.60",
        "21 ms",
        "none",
        "shallow",
        "0.33",
        "last 2.3 ms",
        "frame 1234567  skew -21 ms  drift +12 ppm",
        "word0",
        "Ctrl-C",
        "is gone",
    ):
        assert part in text


@pytest.mark.parametrize("title", ["digits-bundle  int8  camera 0  mic default", "bundle  int8  camera " + "long/" * 20])
@pytest.mark.parametrize("ready", [True, False])
def test_the_elapsed_time_is_whole_however_long_the_title(title: str, ready: bool) -> None:
    console = Console(width=80, height=24, force_terminal=True, color_system=None, file=io.StringIO())
    view = TerminalView(console, title)
    head = painted(view, console, dataclasses.replace(prediction(), t_s=754.3, ready=ready))[0]
    assert head.rstrip().endswith("12:34.3")
    assert ("warming up" in head) is not ready
    assert head.startswith(" clcr-edge  " + title[:20])


def test_a_bar_is_true_to_an_eighth_of_a_cell() -> None:
    assert bar(0.0, 8, "red").plain == " " * 8
    assert bar(1.0, 8, "red").plain == "█" * 8
    assert bar(0.5, 8, "red").plain == "█" * 4 + " " * 4
    assert bar(0.5 + 1 / 64, 8, "red").plain == "█" * 4 + "▏" + " " * 3
    assert bar(7.0, 8, "red").plain == "█" * 8


def test_the_view_gives_the_terminal_back() -> None:
    out = io.StringIO()
    console = Console(width=80, height=24, force_terminal=True, file=out)
    view = TerminalView(console, "x")
    view.show(prediction(), [])
    view.close()
    assert "\x1b[?1049h" in out.getvalue()
    assert out.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in out.getvalue()


def test_the_terminal_says_what_is_wrong_with_a_source_and_stays_whole_under_load() -> None:
    console = Console(width=80, height=24, force_terminal=True, color_system=None, file=io.StringIO())
    shown = prediction(sources={"camera": "reconnecting", "microphone": "stalled"}, rung=3)
    text = "\n".join(painted(TerminalView(console, "bundle"), console, shown))
    assert "reopens" in text
    assert "stalled" in text
    assert "rung 3" in text
    assert "frame 12" in text, "the line of clocks was pushed out"
