"""Calls into C libraries that may never return (PortAudio on a stalled sound server, a camera driver), with a deadline.

Such a call cannot be interrupted. It runs in a daemon thread; past the deadline the thread is abandoned and the caller
goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from clcr_edge.errors import SourceError

T = TypeVar("T")

_abandoned: list[tuple[str, threading.Thread]] = []


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Result of `call()`, or `SourceError` naming `what` when it has not returned after `seconds`."""
    result: list[T] = []
    error: list[BaseException] = []

    def work() -> None:
        try:
            result.append(call())
        except BaseException as e:  # carried over to the caller's thread
            error.append(e)

    thread = threading.Thread(target=work, name=f"within:{what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        give_up(what, thread)
        raise SourceError(f"{what} did not answer within {seconds:g} s; check that its server or driver still runs")
    if error:
        raise error[0]
    return result[0]


def give_up(what: str, thread: threading.Thread) -> None:
    """Count a daemon thread of the caller's own, hung in a call that cannot be interrupted, among the abandoned ones."""
    _abandoned[:] = [entry for entry in _abandoned if entry[1].is_alive()]
    _abandoned.append((what, thread))


def abandoned() -> tuple[str, ...]:
    """Names of the calls that were given up and still hang. If there are any, an ordinary interpreter exit may hang too."""
    return tuple(what for what, thread in _abandoned if thread.is_alive())
