"""What stands between sources and a session: a feed hands over, tick by tick, the media that belongs before its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from clcr_edge.packets import AudioChunk, Prediction, VideoFrame, Word
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.source_state import SourceState


@dataclass
class Batch:
    """What to push before the next step. restart_s: start the session anew at this time first (live, after a long halt)."""

    frames: list[VideoFrame] = field(default_factory=list)
    chunks: list[AudioChunk] = field(default_factory=list)
    restart_s: float | None = None


class Feed(Protocol):
    """A camera and a microphone, or files: the pipeline cannot tell them apart."""

    @property
    def start_s(self) -> float:
        """Media time at which tick 0 begins."""

    @property
    def frames_dropped(self) -> int:
        """Camera frames that were overwritten before the pipeline saw them."""

    @property
    def states(self) -> dict[str, SourceState]:
        """How each source is doing: "camera", "microphone", as far as there is one."""

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the microphone's clock runs than the monotonic one; None for files and until it is known."""

    @property
    def health(self) -> dict[str, SourceHealth]:
        """The same in numbers."""

    @property
    def audio_missed(self) -> int:
        """Ticks that went on without the audio of a living microphone."""

    @property
    def problem(self) -> str | None:
        """What was wrong with media that has ended, in one line; None if nothing."""

    def collect(self, end_s: float) -> Batch | None:
        """Media for the tick that ends at `end_s`. Blocks until it is there, or given up. None: the media has ended."""

    def close(self) -> None:
        """Free the sources."""


def _ignore(_what: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """What a display may want to see of a pipeline besides predictions. The calls come from the pipeline's thread and must
    not block; notices (a source was lost, or came back; one line) come from any thread.

    on_start: the media time at which tick 0 begins, once at first and again at each restart of the session. All that is pushed
    into the session, and each of its steps, is told in order: that is what a recording needs. on_skip: a tick that made no
    prediction, and the rung under which it was passed over."""

    on_frame: Callable[[VideoFrame], None] = _ignore
    on_audio: Callable[[AudioChunk], None] = _ignore
    on_word: Callable[[Word], None] = _ignore
    on_notice: Callable[[str], None] = _ignore
    on_start: Callable[[float], None] = _ignore
    on_prediction: Callable[[Prediction], None] = _ignore
    on_skip: Callable[[int], None] = _ignore
