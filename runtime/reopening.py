"""Opens a live source, reads it until it fails, and opens it again: one loop for cameras, microphones and streams."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clcr_edge.errors import SourceError
from clcr_edge.runtime.source_monitor import SourceMonitor

_FIRST_S = 0.5
_LONGEST_S = 15.0
_SOUND_S = 10.0  # a source that gave media for so long is worth trying at once when it fails


class Backoff:
    """How long to wait before the next try: 0.5, 1, 2, 4, 8, 15, 15, ... seconds, always the same (one device, no crowd)."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._next_s = _FIRST_S

    def next_s(self) -> float:
        """The wait before the next try, seconds."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_S)
        return wait_s


class Reopening:
    """A source's thread.

    read: opens the source, reads it until it fails or `closed` is set, frees it; raises to say why it failed. It calls
    `ready()` once the first try has succeeded. The source's handles live and die in this thread.
    """

    def __init__(self, read: Callable[[], None], monitor: SourceMonitor) -> None:
        self.closed = threading.Event()
        self._read = read
        self._monitor = monitor
        self._settled = threading.Event()
        self._good = False
        self._thread = threading.Thread(target=self._run, name=monitor.name, daemon=True)

    def ready(self) -> None:
        """The source works."""
        self._good = True
        self._settled.set()

    def start(self, within_s: float) -> Exception | None:
        """Begin, and wait for the first try: None if it succeeded, what it raised if not. Then the thread has ended."""
        self._error: Exception = TimeoutError("did not answer")
        self._thread.start()
        if self._settled.wait(within_s) and self._good:
            return None
        self.closed.set()
        return self._error

    def _run(self) -> None:
        backoff = Backoff()
        while not self.closed.is_set():
            self._monitor.trying()
            reason = "it ended"
            self._error = SourceError("it ended")
            try:
                self._read()
            except Exception as e:  # whatever it was: the next try may find the source again
                self._error = e
                reason = next(iter(str(e).splitlines()), "") or type(e).__name__
            if not self._good:
                self._settled.set()
                return
            if self.closed.is_set():
                return
            if self._monitor.lasted_s >= _SOUND_S:
                backoff.reset()
            self._monitor.failed(reason)
            self.closed.wait(backoff.next_s())

    def close(self, within_s: float) -> None:
        """Ask it to end. A driver that hangs is left to its daemon thread."""
        self.closed.set()
        self._thread.join(within_s)
