"""Decoded clips on disk: decoded once, in parallel, and read back on demand.

A clip's key is a hash of its files' paths, sizes and times of change, of the span, and of how it is decoded: whatever changes,
the clip is decoded anew. A clip is written beside its place and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clcr_edge.data.sets.decode import Decoded, MediaConfig, Span, decode
from clcr_edge.data.sets.paths import CACHE_FOLDER
from clcr_edge.data.sets.sample import Clip
from clcr_edge.errors import DataError, OutputError, SourceError
from clcr_edge.outputs import check_folder

_VERSION = 1  # raise it when decoding changes
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """Where a clip comes from. video, audio: the same file for both, or one each, or None. span: the part of it."""

    video: Path | None
    audio: Path | None
    span: Span = field(default_factory=Span)

    @property
    def main(self) -> Path:
        """The film, or the sound where there is none."""
        path = self.video or self.audio
        assert path is not None
        return path

    @property
    def files(self) -> tuple[Path | None, Path | None]:
        """What one pass of decoding reads."""
        return self.video, self.audio


class ClipCache:
    """The cache of one data set.

    folder: where; None is `.clcr-edge-cache` below the root. Raises `DataError` if it cannot be written.
    """

    def __init__(self, root: Path, folder: Path | None, config: MediaConfig) -> None:
        self.folder = root / CACHE_FOLDER if folder is None else folder
        self.config = config
        try:
            # Made with the first clip, so that a mistyped root is left as it was.
            check_folder(self.folder, remedy="name another cache folder")
        except OutputError as e:
            raise DataError(str(e)) from None

    def path_of(self, source: Source) -> Path:
        """Where a clip lies or would lie; `DataError` if a file is not there."""
        parts = [str(_VERSION), self.config.text, repr(source.span)]
        for path in source.files:
            if path is None:
                parts.append("-")
                continue
            try:
                stat = path.stat()
            except OSError as e:
                raise DataError(f"{path}: cannot be read ({e.strerror}); put the file there") from None
            parts += [str(path), str(stat.st_size), str(stat.st_mtime_ns)]
        digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / digest[:2] / f"{digest}.npz"

    def get(self, source: Source) -> Decoded:
        """A clip from the cache, or decoded now and kept. Raises `DataError` or `SourceError`."""
        found = self._load(self.path_of(source))
        if found is not None:
            return found
        (outcome,) = [result for _, result in decode(source.video, source.audio, [source.span], self.config)]
        if isinstance(outcome, DataError):
            raise outcome
        self._save(self.path_of(source), outcome)
        return outcome

    def prepare(
        self, sources: Sequence[Source], workers: int, progress: Progress | None = None
    ) -> list[tuple[str, ...] | DataError]:
        """Decode whatever is not there yet, `workers` files at a time. Per source its notes, or what is wrong with it.

        progress: called with (done, of how many) from this thread. Errors that are no fault of the data are raised.
        """
        outcome: list[tuple[str, ...] | DataError | None] = [None] * len(sources)
        by_file: dict[tuple[Path | None, Path | None], list[int]] = {}
        for place, source in enumerate(sources):
            by_file.setdefault(source.files, []).append(place)
        done = 0
        with ThreadPoolExecutor(max_workers=max(workers, 1), thread_name_prefix="decode") as pool:
            # Threads do: PyAV and numpy let go of the interpreter's lock where the time goes.
            tasks = pool.map(lambda places: self._one_file([sources[p] for p in places]), by_file.values())
            for places, results in zip(by_file.values(), tasks, strict=True):
                for place, result in zip(places, results, strict=True):
                    outcome[place] = result
                done += len(places)
                if progress is not None:
                    progress(done, len(sources))
        assert all(o is not None for o in outcome)
        return [o for o in outcome if o is not None]

    def _one_file(self, sources: list[Source]) -> list[tuple[str, ...] | DataError]:
        results: list[tuple[str, ...] | DataError] = [()] * len(sources)
        todo = []
        for at, source in enumerate(sources):
            try:
                found = self._load(self.path_of(source))
            except DataError as e:
                results[at] = e
                continue
            if found is None:
                todo.append(at)
            else:
                results[at] = found.notes
        if todo:
            video, audio = sources[0].files
            try:
                for at, result in decode(video, audio, [sources[t].span for t in todo], self.config):
                    place = todo[at]
                    if isinstance(result, DataError):
                        results[place] = result
                    else:
                        self._save(self.path_of(sources[place]), result)
                        results[place] = result.notes
            except (SourceError, DataError) as e:
                for place in todo:
                    results[place] = DataError(str(e))
        return results

    def _load(self, path: Path) -> Decoded | None:
        try:
            if path.stat().st_size > self.config.bytes_per_clip + (1 << 20):
                return None  # none of ours: decode again
            # Opened here: np.load leaves its own file open when the content is damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                frames, audio = data["frames"], data["audio"]
                notes = tuple(str(n) for n in data["notes"])
            if frames.shape[1:] != (self.config.image_size, self.config.image_size, 3):
                return None
            return Decoded(Clip(frames, self.config.frames_per_s, audio, self.config.sample_rate_hz), notes)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, DataError):
            return None  # absent or damaged: decoding again mends it

    def _save(self, path: Path, decoded: Decoded) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as out:
                    np.savez(
                        out, frames=decoded.clip.frames, audio=decoded.clip.audio, notes=np.asarray(decoded.notes, dtype="U")
                    )
                os.replace(name, path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as e:
            raise DataError(f"{path}: a decoded clip cannot be kept ({e.strerror}); free space or name another cache") from None
