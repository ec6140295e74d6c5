"""Where built engines lie, and whether one of them fits this device: plan and record in the bundle's `tensorrt` folder.

    step.int8.toml            the record: what it was built with, and the plan's name, size and SHA-256
    step.int8.<hash>.plan     the engine itself, without a prefix, so that trtexec can load it
    timing.<...>.cache        TensorRT's timings, which make the next build shorter

The plan is written first, under a name that its content gives; then the record is renamed into place. A kill in the middle
leaves the old record and the old plan.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from clcr_edge import toml_io
from clcr_edge.bundle import Bundle
from clcr_edge.errors import EngineError

FOLDER = "tensorrt"
_SCHEMA = 1


@dataclass(frozen=True)
class EngineKey:
    """What an engine is good for; a difference in any of these means another build.

    multiprocessors is in it because every Orin calls itself "Orin" with compute capability 8.7, from Nano to AGX.
    """

    gpu: str
    compute_capability: str
    multiprocessors: int
    tensorrt: str
    onnx_sha256: str

    def differences(self, now: EngineKey) -> str:
        """"built with X, found Y" for every difference; "" if there is none."""
        said = []
        for field, label in _LABELS.items():
            built, found = getattr(self, field), getattr(now, field)
            if built != found:
                short = 12 if field == "onnx_sha256" else None
                said.append(f"{label} {str(built)[:short]}, found {str(found)[:short]}")
        return "built with " + "; ".join(said) if said else ""


_LABELS = {
    "tensorrt": "TensorRT",
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "multiprocessors": "multiprocessors",
    "onnx_sha256": "ONNX",
}


@dataclass(frozen=True)
class StoredEngine:
    """An engine on disk. typing: strong or weak. seconds: how long its build took."""

    key: EngineKey
    typing: str
    workspace_mib: int
    seconds: float
    plan: bytes


def folder_of(bundle: Bundle) -> Path:
    """The folder of a bundle's engines; it need not exist."""
    return bundle.path / FOLDER


def load_engine(bundle: Bundle, precision: str) -> StoredEngine | None:
    """The stored engine of a precision, None if there is none. Raises `EngineError` saying what is broken about it."""
    record = _record(bundle, precision)
    try:
        table = toml_io.loads(record.read_text("utf-8"))
        if table["schema"] != _SCHEMA:
            raise ValueError(f"schema {table['schema']!r}, this version reads {_SCHEMA}")
        key = EngineKey(**{f.name: table["key"][f.name] for f in fields(EngineKey)})
        name = str(table["plan"])
        if Path(name).name != name:
            raise ValueError(f"its plan {name!r} lies elsewhere")
        plan = (record.parent / name).read_bytes()
        if hashlib.sha256(plan).hexdigest() != table["sha256"]:
            raise ValueError(f"{name} does not match its SHA-256")
        return StoredEngine(key, str(table["typing"]), int(table["workspace_mib"]), float(table["seconds"]), plan)
    except FileNotFoundError as e:
        if not record.is_file():
            return None
        raise EngineError(f"{record}: its plan {Path(str(e.filename)).name} is gone") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EngineError(f"{record}: not readable ({e})") from None


def save_engine(bundle: Bundle, precision: str, engine: StoredEngine) -> Path:
    """Store an engine in place of the old one of this precision; returns the plan's path. Raises `EngineError` if it cannot."""
    record = _record(bundle, precision)
    digest = hashlib.sha256(engine.plan).hexdigest()
    plan = record.parent / f"step.{precision}.{digest[:12]}.plan"
    table: dict[str, Any] = {
        "schema": _SCHEMA,
        "plan": plan.name,
        "sha256": digest,
        "typing": engine.typing,
        "workspace_mib": engine.workspace_mib,
        "seconds": round(engine.seconds, 1),
        "key": asdict(engine.key),
    }
    write_beside(plan, engine.plan)
    write_beside(record, toml_io.dumps(table).encode("utf-8"))
    for old in record.parent.glob(f"step.{precision}.*.plan"):
        if old != plan:
            old.unlink(missing_ok=True)
    return plan


def timing_file(bundle: Bundle, key: EngineKey) -> Path:
    """Where this device and TensorRT keep their timings: others' would be refused."""
    gpu = "".join(c if c.isalnum() else "-" for c in key.gpu)
    return folder_of(bundle) / f"timing.{gpu}.{key.compute_capability}.{key.multiprocessors}.{key.tensorrt}.cache"


def write_beside(path: Path, data: bytes) -> None:
    """Write a file beside `path`, flush it to the disk, then rename it. Raises `EngineError` if it cannot."""
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except OSError as e:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
        raise EngineError(
            f"{path}: cannot be written ({e.strerror or e}); make room, or copy the bundle to a folder that you may write to"
        ) from None
    except BaseException:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
        raise


def _record(bundle: Bundle, precision: str) -> Path:
    return folder_of(bundle) / f"step.{precision}.toml"
