"""How a pipeline and its sources are doing, as numbers: what was lost on the way is counted, never passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from clcr_edge.runtime.source_state import SourceState


@dataclass(frozen=True)
class SourceHealth:
    """One source. Times are seconds on the monotonic clock; counts begin with the source.

    since_s: when it came into this state. drops: frames, blocks or chunks that came and were never used. gaps: holes in the
    audio; pauses between frames far longer than usual. reconnects: times it was opened again. last_media_s: when media last
    came, None if it never did. reason: why it is not live, "" if there is nothing to say. damaged: frames that could not
    be decoded, chunks of samples that are no numbers. overflows: times the sound card said that it threw samples away.
    """

    state: SourceState
    since_s: float
    drops: int = 0
    gaps: int = 0
    reconnects: int = 0
    last_media_s: float | None = None
    reason: str = ""
    damaged: int = 0
    overflows: int = 0


@dataclass(frozen=True)
class Health:
    """A pipeline.

    sources: as `Pipeline.states` names them. audio_missed: ticks that went on without the audio of a living microphone.
    ticks_without_audio: all ticks that had none, for whatever reason. restarts: times the session began anew after the process
    had stood still. engine_retries: steps computed a second time because the engine failed. words_dropped: words that found
    the queue full.
    """

    sources: dict[str, SourceHealth] = field(default_factory=dict)
    audio_missed: int = 0
    ticks_without_audio: int = 0
    restarts: int = 0
    engine_retries: int = 0
    words_dropped: int = 0
