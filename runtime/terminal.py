"""The live view on a terminal: what is predicted, from which modality and level, how old and how late. Fits 80 x 24."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clcr_edge.packets import Level, Modality, Prediction, Word

_REFRESH_S = 0.1  # a terminal need not be repainted 25 times a second
_ROWS = 13
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_COLOURS = {"language": "yellow", "vision": "cyan", "audio": "magenta"}
_SHORT = {"language": "lang.", "vision": "vision", "audio": "audio"}
_SOURCES = {Modality.LANGUAGE: "speech", Modality.VISION: "camera", Modality.AUDIO: "microphone"}
_SHORT_STATES = {"degraded": "degr.", "reconnecting": "reopens"}


def bar(share: float, width: int, colour: str) -> Text:
    """A horizontal bar of `share` (0..1) of `width` cells, to an eighth of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, part = divmod(eighths, 8)
    text = "█" * whole + (_EIGHTHS[part] if part else "")
    return Text(text.ljust(width), style=colour, no_wrap=True)


def _state_or_age(state: str, age_s: float | None) -> Text:
    """How old the newest of a modality is; in its place, what is wrong with its source."""
    if state in ("live", "starting"):
        return Text("   none" if age_s is None else _age(age_s))
    return Text(f"{_SHORT_STATES.get(state, state):>7}", style="bold red")


class TerminalView:
    """Repaints a few times a second; `title` stands in the head line."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._latencies: deque[float] = deque(maxlen=250)
        self._heard: deque[tuple[float, Word]] = deque(maxlen=12)
        self._notice = ""
        self._painted_s = 0.0
        self._begun_s = 0.0
        self._live = Live(console=console, screen=True, auto_refresh=False, transient=True)
        self._started = False

    def notice(self, text: str) -> None:
        """Show a line about a source until the next one comes."""
        self._notice = text

    def show(self, prediction: Prediction, words: list[Word]) -> None:
        """Take in a prediction and the words pushed for it; repaint if it is time to."""
        self._latencies.append(prediction.latency_ms)
        self._heard.extend((prediction.t_s, word) for word in words)
        now = time.monotonic()
        if now - self._painted_s < _REFRESH_S:
            return
        self._painted_s = now
        if not self._started:
            self._started = True
            self._begun_s = prediction.t_s  # live, stream time counts from the machine's start
            self._live.start()
        self._live.update(self.render(prediction), refresh=True)

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._started:
            self._live.stop()

    def render(self, p: Prediction) -> RenderableType:
        """The view of one prediction."""
        layout = Layout()
        layout.split_column(
            Layout(self._head(p), size=1),
            Layout(name="body", size=_ROWS + 2),
            Layout(self._foot(p), size=6),
        )
        layout["body"].split_row(Layout(self._classes(p), ratio=7), Layout(self._sources(p), ratio=10))
        return layout

    def _head(self, p: Prediction) -> RenderableType:
        grid = Table.grid(expand=True)
        minutes, seconds = divmod(p.t_s - self._begun_s, 60)
        state = "" if p.ready else "  warming up"
        elapsed = f"{state}  {int(minutes):02d}:{seconds:04.1f} "
        grid.add_column(no_wrap=True, ratio=1)
        grid.add_column(justify="right", no_wrap=True, min_width=len(elapsed))  # long names of sources give way, not the time
        grid.add_row(Text(f" clcr-edge  {self._title}", style="bold", overflow="ellipsis"), Text(elapsed))
        return grid

    def _classes(self, p: Prediction) -> RenderableType:
        shown = list(p.probs.items())
        if len(shown) > _ROWS:
            shown = sorted(shown, key=lambda item: -item[1])[:_ROWS]
        width = min(10, max(len(name) for name, _ in shown))
        table = Table.grid(padding=(0, 1))
        for name, prob in shown:
            best = name == p.label
            style = "bold green" if best else "dim"
            label = Text(name[:width].rjust(width), style="bold" if best else "")
            table.add_row(label, bar(prob, 21 - width, style), Text(f"{prob:4.2f}", style=style))
        return Panel(table, title=f"class: [bold]{p.label}[/bold]", title_align="left", border_style="dim")

    def _sources(self, p: Prediction) -> RenderableType:
        modalities = Table.grid(padding=(0, 1))
        modalities.add_row("", Text("weight", style="dim"), "", Text("gate", style="dim"), Text("    age", style="dim"))
        for m in Modality:
            age = p.age_s[m.key]
            weight = p.modality_weights[m.key]
            modalities.add_row(
                Text(m.key.ljust(8), style=_COLOURS[m.key]),
                bar(weight, 12, _COLOURS[m.key]),
                Text(f"{weight:4.2f}"),
                Text(f"{p.private_gates[m.key]:4.2f}"),
                _state_or_age(p.sources.get(_SOURCES[m], "live"), age),
            )
        levels = Table.grid(padding=(0, 1))
        heads = [Text(f"{_SHORT[m.key]:>6}", style=_COLOURS[m.key]) for m in Modality]
        levels.add_row("", Text("weight", style="dim"), "", *heads)
        for lv in Level:
            share = p.participation[lv.key]
            levels.add_row(
                Text(lv.key.ljust(8)),
                bar(p.level_weights[lv.key], 6, "blue"),
                Text(f"{p.level_weights[lv.key]:4.2f}"),
                *(Text(f"{share[m.key]:6.2f}") for m in Modality),
            )
        body = Group(
            modalities,
            Text(),
            Text("                     share in exchange", style="dim"),
            levels,
            Text(),
            Text(f"step  last {p.latency_ms:.1f} ms, median {median(self._latencies or [0.0]):.1f} ms").append(
                f"   rung {p.rung}" if p.rung else "", style="bold red"
            ),
            Text(_clocks(p), no_wrap=True),
        )
        return Panel(body, title="from where", title_align="left", border_style="dim")

    def _foot(self, p: Prediction) -> RenderableType:
        heard = Text(overflow="ellipsis", no_wrap=True)
        for t_s, word in self._heard:
            heard.append(word.text + " ", style="bold yellow" if p.t_s - t_s < 1.0 else "yellow")
        if not self._heard:
            heard = Text("nothing yet", style="dim")
        notice = Text(self._notice, style="red", overflow="ellipsis", no_wrap=True)
        panel = Panel(heard, title="heard", title_align="left", border_style="dim")
        return Group(panel, notice, Text(" Ctrl-C ends", style="dim"))


def _clocks(p: Prediction) -> str:
    parts = ["frame none" if p.frame_seq is None else f"frame {p.frame_seq}"]
    if p.skew_ms is not None:
        parts.append(f"skew {p.skew_ms:+.0f} ms")
    if p.drift_ppm is not None:
        parts.append(f"drift {p.drift_ppm:+.0f} ppm")
    return "  ".join(parts)


def _age(age_s: float) -> str:
    return f"{age_s * 1e3:4.0f} ms" if age_s < 0.9995 else f"{min(age_s, 9999):5.1f} s"
