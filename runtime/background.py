"""A pipeline in a thread of its own, for programs that have a loop already: a robot's controller, a user interface."""

from __future__ import annotations

import threading

from clcr_edge.packets import Prediction
from clcr_edge.runtime.pipeline import Pipeline


class LiveRunner:
    """Runs `pipeline` until it ends or `stop` is called; `latest` never blocks.

    >>> with LiveRunner(pipeline) as runner:         # doctest: +SKIP
    ...     while controlling():
    ...         prediction = runner.latest
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._latest: Prediction | None = None
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._ended = False
        self._new = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="clcr-edge", daemon=True)

    def __enter__(self) -> LiveRunner:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    @property
    def latest(self) -> Prediction | None:
        """The newest prediction, None before the first. Live, its age is `time.monotonic() - latest.t_s`."""
        return self._latest

    @property
    def running(self) -> bool:
        """False before `start`, and after the media has ended, an error, or `stop`."""
        return self._thread.is_alive() and not self._ended

    @property
    def error(self) -> Exception | None:
        """What ended the run, if it was an error."""
        return self._error

    def next(self, after: Prediction | None, timeout_s: float) -> Prediction | None:
        """Wait for a newer prediction than `after`; None when the time is up or the run has ended."""
        with self._new:
            self._new.wait_for(lambda: self._latest is not after or self._ended, timeout_s)
            return self._latest if self._latest is not after else None

    def _run(self) -> None:
        try:
            for prediction in self._pipeline:
                with self._new:
                    self._latest = prediction
                    self._new.notify_all()
                if self._stop.is_set():
                    break
        except Exception as e:  # kept for the owner, who asks when it suits
            self._error = e
        finally:
            self._pipeline.close()
            with self._new:
                self._ended = True
                self._new.notify_all()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the run and free its sources."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
