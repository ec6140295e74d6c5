"""Shows how far a TensorRT build is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clcr_edge.export.build_progress import BuildProgress
    from clcr_edge.export.tensorrt_ready import Teller

_EVERY_S = 10.0


def clock(seconds: float) -> str:
    """Seconds as "0:42" or "12:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def line(precision: str, progress: BuildProgress) -> str:
    """A build in one line: share, time so far, time left once it can be told, and what is being done."""
    left = progress.left_s
    rest = "" if left is None else f", about {clock(left)} left"
    return f"building {precision}: {progress.fraction:4.0%}  {clock(progress.elapsed_s)}{rest}  {progress.phase}"


@contextmanager
def telling() -> Iterator[Teller]:
    """A teller that writes to stderr, so that stdout stays for the result."""
    from rich.console import Console

    from clcr_edge.export.tensorrt_ready import Teller

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("") as status:
            yield Teller(
                lambda note: console.print(f"clcr-edge: {note}", markup=False),
                lambda precision, progress: status.update(line(precision, progress).replace("[", "\\[")),
            )
        return
    told_s = time.monotonic()

    def now_and_then(precision: str, progress: BuildProgress) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _EVERY_S:
            told_s = time.monotonic()
            print(f"clcr-edge: {line(precision, progress)}", file=sys.stderr, flush=True)

    yield Teller(lambda note: print(f"clcr-edge: {note}", file=sys.stderr, flush=True), now_and_then)
