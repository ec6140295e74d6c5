"""Media files as a feed: both modalities on one clock that starts at 0, in real time or as fast as they can be read."""

from __future__ import annotations

import time
from pathlib import Path

from clcr_edge.runtime.feed import Batch
from clcr_edge.runtime.health import SourceHealth
from clcr_edge.runtime.media_file import MediaFile
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import StageTimes

_EDGE_S = 1e-4  # media that ends this little after a tick began does not make another tick


class FileFeed:
    """Replays one file, or one for vision and one for audio.

    camera, mic: the files; None leaves the modality out. A file named for both is opened and demuxed once; two files both
    start at 0. fast: do not wait for the wall clock; predictions are the same either way, because media time decides.
    times: where to count how long a tick's media took to decode.
    Raises `SourceError` for a file that is missing, broken, or lacks the modality.
    """

    start_s = 0.0
    frames_dropped = 0
    drift_ppm = None
    audio_missed = 0

    def __init__(
        self,
        camera: Path | None,
        mic: Path | None,
        *,
        tick_s: float = 0.04,
        fast: bool = False,
        times: StageTimes | None = None,
    ) -> None:
        self._decoding = (times or StageTimes()).decode
        self._tick_s = tick_s
        self._fast = fast
        self._begun: float | None = None
        self._files: list[MediaFile] = []
        try:
            if camera is not None and mic is not None and _same(camera, mic):
                self._files.append(MediaFile(camera, video=True, audio=True))
            else:
                if camera is not None:
                    self._files.append(MediaFile(camera, video=True, audio=False))
                if mic is not None:
                    self._files.append(MediaFile(mic, video=False, audio=True))
        except BaseException:
            self.close()
            raise

    @property
    def states(self) -> dict[str, SourceState]:
        """A file is there or it is not."""
        kinds = {"camera": any(f.video for f in self._files), "microphone": any(f.audio for f in self._files)}
        return {name: SourceState.LIVE for name, there in kinds.items() if there}

    @property
    def health(self) -> dict[str, SourceHealth]:
        """Nothing of a file is lost."""
        return {name: SourceHealth(state, self.start_s) for name, state in self.states.items()}

    def collect(self, end_s: float) -> Batch | None:
        """The file's media before `end_s`; None once nothing of it reaches into this tick."""
        batch = Batch()
        over = True
        for file in self._files:
            if file.video is not None:
                begun = time.perf_counter()
                batch.frames += file.video.until(end_s)
                self._decoding["camera"].add(time.perf_counter() - begun)
                over &= file.video.exhausted and file.video.end_s <= end_s - self._tick_s + _EDGE_S
            if file.audio is not None:
                begun = time.perf_counter()
                batch.chunks += file.audio.until(end_s)
                self._decoding["microphone"].add(time.perf_counter() - begun)
                over &= file.audio.exhausted and file.audio.end_s <= end_s - self._tick_s + _EDGE_S
        if over and not batch.frames and not batch.chunks:
            return None
        if not self._fast:
            now = time.monotonic()
            if self._begun is None:
                self._begun = now - (end_s - self._tick_s)
            time.sleep(max(0.0, self._begun + end_s - now))
        return batch

    @property
    def now_s(self) -> float | None:
        """Where the wall clock stands in the media; None with `fast`, and before the first tick."""
        return None if self._begun is None else time.monotonic() - self._begun

    @property
    def problem(self) -> str | None:
        """What was wrong with the files, in one line, once they have been read; None if nothing."""
        return next((p for p in (file.problem for file in self._files) if p is not None), None)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def _same(a: Path, b: Path) -> bool:
    return a == b or (a.exists() and b.exists() and a.samefile(b))
