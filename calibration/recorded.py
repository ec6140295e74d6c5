"""A calibration folder: what a device's camera, microphone and words became as step inputs, and for which model.

    calibration.toml     schema, hashes of the configuration, what was recorded, size and SHA-256 of every part
    inputs-0000.npz      up to 250 ticks of one stream: frames as bytes, filter banks, hashed words; no pickle

No sound that can be played and no text is in it. Frames are kept as bytes, half a step of 255 off at most. Written beside, then
renamed: a recording that was broken off never looks whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clcr_edge import toml_io
from clcr_edge.config import StudentConfig, TickConfig, to_table
from clcr_edge.errors import DataError
from clcr_edge.outputs import put_in_place
from clcr_edge.packets import Level, Modality
from clcr_edge.runtime.engine import StepInputs

MANIFEST = "calibration.toml"
SCHEMA = 1
LEAST_TICKS = 250
PART_TICKS = 250
_MOST_PART_BYTES = 64 << 20
_FIELDS = tuple(f.name for f in fields(StepInputs))


def config_hashes(config: StudentConfig) -> dict[str, str]:
    """What a recording depends on: SHA-256 of how media become inputs, and of the model's shape and classes."""
    table = to_table(config)
    tick = table.pop("tick")

    def digest(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    return {"preprocessing": digest(tick), "model": digest(table)}


def bytes_per_tick(config: StudentConfig) -> int:
    """What one tick takes at most, before compression."""
    t = config.tick
    words = t.words_per_tick * 4 * (t.ngrams_per_word + 2)
    return t.image_size**2 + 4 * t.fbank_frames * t.n_mels + words + 64


class CalibrationWriter:
    """Writes a calibration folder. Use as a context: leaving it by an error, or without `finish`, leaves nothing behind.

    Holds one part's ticks in memory, however long the recording. An existing calibration folder is replaced when all is done;
    any other folder that is not empty is refused with `DataError`.
    """

    def __init__(self, out: Path, config: StudentConfig) -> None:
        if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
            raise DataError(f"{out}: exists and is no calibration folder; choose another --out, or remove it")
        self._out, self._config = out, config
        self._waiting: list[StepInputs] = []
        self._parts: list[dict[str, Any]] = []
        self._stream = 0
        self.ticks = 0

    def __enter__(self) -> CalibrationWriter:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix=f".{self._out.name}.", dir=self._out.parent))
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # after `finish` it is gone already

    def new_stream(self) -> None:
        """What comes next does not go on where the last tick ended."""
        if self._waiting or self.ticks:
            self._flush()
            self._stream += 1

    def add(self, inputs: StepInputs) -> None:
        """One tick."""
        self._waiting.append(inputs)
        self.ticks += 1
        if len(self._waiting) == PART_TICKS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        name = f"inputs-{len(self._parts):04d}.npz"
        columns = {f: np.stack([getattr(i, f) for i in self._waiting]) for f in _FIELDS}
        columns["frame"] = np.round(np.clip(columns["frame"], 0.0, 1.0) * 255.0).astype(np.uint8)
        try:
            np.savez_compressed(self._scratch / name, allow_pickle=False, **columns)
            content = (self._scratch / name).read_bytes()
        except OSError as e:
            raise DataError(
                f"{self._out}: cannot be written ({e.strerror}); free some space, or choose another --out"
            ) from None
        self._parts.append(
            {
                "file": name,
                "stream": self._stream,
                "ticks": len(self._waiting),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        self._waiting = []

    def finish(self, about: dict[str, Any]) -> int:
        """Write the manifest and put the folder in place. about: more for its [recorded] table. Returns the bytes written."""
        self._flush()
        manifest = {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "config_sha256": config_hashes(self._config),
            "recorded": {"ticks": self.ticks, "seconds": round(self.ticks * self._config.tick.seconds, 3), **about},
            "parts": {p["file"]: {k: v for k, v in p.items() if k != "file"} for p in self._parts},
        }
        (self._scratch / MANIFEST).write_text(toml_io.dumps(manifest), "utf-8")
        self._scratch.chmod(0o700)  # pictures of a room: nobody else's business
        put_in_place(self._scratch, self._out)
        return sum(int(p["bytes"]) for p in self._parts)


def is_recorded(folder: Path) -> bool:
    """Whether this is a calibration folder, as opposed to a folder of media files."""
    return (folder / MANIFEST).is_file()


class RecordedInputs:
    """A calibration folder, verified. Raises `DataError` naming the file and what is wrong with it."""

    def __init__(self, folder: Path) -> None:
        path = folder / MANIFEST
        self.folder = folder
        try:
            self.manifest = toml_io.loads(path.read_text("utf-8"))
        except (OSError, toml_io.TOMLDecodeError, UnicodeDecodeError) as e:
            raise DataError(f"{path}: not readable as TOML ({e}); record again with clcr-edge calibrate") from None
        schema = self.manifest.get("schema")
        if schema != SCHEMA:
            raise DataError(f"{path}: schema {schema!r}, but this version reads {SCHEMA}; update clcr-edge, or record again")
        try:
            hashes = self.manifest["config_sha256"]
            self.hashes = {k: str(hashes[k]) for k in ("preprocessing", "model")}
            self.ticks = int(self.manifest["recorded"]["ticks"])
            self._parts = [
                (str(n), int(p["stream"]), int(p["ticks"]), int(p["bytes"]), str(p["sha256"]))
                for n, p in sorted(self.manifest["parts"].items())
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise DataError(f"{path}: not a calibration's manifest ({e!r}); record again with clcr-edge calibrate") from None
        if self.ticks < LEAST_TICKS or sum(p[2] for p in self._parts) != self.ticks:
            raise DataError(f"{path}: {self.ticks} ticks, but at least {LEAST_TICKS}, all of them in its parts, are needed")
        for part in self._parts:
            self._content(part)

    def check(self, config: StudentConfig) -> None:
        """Raises `DataError` unless it was recorded for this preprocessing and model."""
        for what, wanted in config_hashes(config).items():
            if self.hashes[what] != wanted:
                raise DataError(
                    f"{self.folder}: recorded for another {what} (hash {self.hashes[what][:12]}, this student's is "
                    f"{wanted[:12]}); record again: clcr-edge calibrate CHECKPOINT_OR_BUNDLE"
                )

    def streams(self, config: StudentConfig) -> Iterator[Iterator[StepInputs]]:
        """The streams, each as its ticks; one part in memory at a time."""
        self.check(config)
        for number in dict.fromkeys(p[1] for p in self._parts):
            yield self._ticks([p for p in self._parts if p[1] == number], config)

    def _ticks(self, parts: list[tuple[str, int, int, int, str]], config: StudentConfig) -> Iterator[StepInputs]:
        for part in parts:
            columns = self._columns(part, config)
            for at in range(part[2]):
                yield StepInputs(**{k: v[at] for k, v in columns.items()})

    def _content(self, part: tuple[str, int, int, int, str]) -> Path:
        name, _, _, size, sha256 = part
        path = self.folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise DataError(f"{path}: named by the manifest but not there (or a link); copy or record the calibration again")
        if path.stat().st_size != size or size > _MOST_PART_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, but the manifest says {size}; copy or record it again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DataError(f"{path}: does not match its SHA-256 in the manifest; copy or record the calibration again")
        return path

    def _columns(
        self, part: tuple[str, int, int, int, str], config: StudentConfig
    ) -> dict[str, npt.NDArray[Any]]:
        path, wanted = self._content(part), _layout(config.tick, part[2])
        try:
            with path.open("rb") as f, np.load(f, allow_pickle=False) as data:  # numpy leaves a broken file open
                columns = {f: data[f] for f in _FIELDS}
        # The last three: an archive that is damaged inside, which numpy does not turn into an error of its own.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
            raise DataError(f"{path}: not readable as step inputs ({e}); record the calibration again") from None
        for name, (shape, dtype) in wanted.items():
            found = columns[name]
            if found.shape != shape or found.dtype != dtype:
                raise DataError(
                    f"{path}: {name} is {found.dtype} of shape {found.shape}, not {np.dtype(dtype)} of {shape}; record it again"
                )
            if found.dtype == np.float32 and not np.isfinite(found).all():
                raise DataError(f"{path}: NaN or infinity in {name}; record the calibration again")
        ngrams = columns["ngrams"]
        if ngrams.min() < 0 or ngrams.max() >= config.tick.ngram_buckets:
            raise DataError(f"{path}: ngrams outside of 0 to {config.tick.ngram_buckets - 1}; record the calibration again")
        columns["frame"] = columns["frame"].astype(np.float32) / np.float32(255.0)
        return columns


def _layout(t: TickConfig, n: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of every column of `n` ticks, as they are kept: frames as bytes."""
    return {
        "frame": ((n, 1, 1, t.image_size, t.image_size), np.uint8),
        "fbank": ((n, t.fbank_frames, t.n_mels), np.float32),
        "ngrams": ((n, t.words_per_tick, t.ngrams_per_word), np.int32),
        "confidence": ((n, t.words_per_tick), np.float32),
        "word_age": ((n, t.words_per_tick), np.float32),
        "present": ((n, 2), np.float32),
        "n_new": ((n, len(Level), len(Modality)), np.int32),
    }
