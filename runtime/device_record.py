"""What `verify` found on this machine, kept beside the manifest in `device.toml`: which engine and precision to run.

It is no part of the bundle's proof (the manifest does not list it) and is only followed where it was made: the same machine,
the same versions, the same bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

from clcr_edge import toml_io
from clcr_edge.bundle import MANIFEST, Bundle
from clcr_edge.runtime.tensorrt_store import write_beside

FILE = "device.toml"
_SCHEMA = 1


@dataclass(frozen=True)
class Verified:
    """The choice for one engine. machine: what it holds for; manifest_sha256: of the bundle that was verified."""

    engine: str
    precision: str
    why: str
    p50_ms: float
    machine: str
    manifest_sha256: str


def manifest_hash(bundle: Bundle) -> str:
    """SHA-256 of the bundle's manifest, which holds the hashes of all else."""
    return hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest()


def read_verified(bundle: Bundle, note: Callable[[str], None] = lambda text: None) -> dict[str, Verified]:
    """Choices by engine name, as far as they are of this bundle. A file that cannot be read counts as none: it is a hint.

    note: is told in one line if there is such a file.
    """
    path = bundle.path / FILE
    try:
        table = toml_io.loads(path.read_text("utf-8"))
        if table["schema"] != _SCHEMA:
            raise ValueError(f"schema {table['schema']!r}, this version reads {_SCHEMA}")
        found = [Verified(**{f.name: entry[f.name] for f in fields(Verified)}) for entry in table["verified"].values()]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        why = str(e).splitlines()[0] if str(e) else type(e).__name__
        note(f"{path}: not readable ({why}), so nothing is chosen by it; make it anew: clcr-edge verify {bundle.path}")
        return {}
    now = manifest_hash(bundle)
    return {v.engine: v for v in found if v.manifest_sha256 == now}


def write_verified(bundle: Bundle, choice: Verified) -> None:
    """Add or replace an engine's choice. Raises `EngineError` if the folder cannot be written to."""
    kept = {**read_verified(bundle), choice.engine: choice}
    table = {"schema": _SCHEMA, "verified": {name: asdict(v) for name, v in kept.items()}}
    write_beside(bundle.path / FILE, toml_io.dumps(table).encode("utf-8"))


def forget_verified(bundle: Bundle, engine: str) -> None:
    """Take an engine's choice back: it no longer holds. Raises `EngineError` if the folder cannot be written to."""
    kept = read_verified(bundle)
    if kept.pop(engine, None) is not None:
        table = {"schema": _SCHEMA, "verified": {name: asdict(v) for name, v in kept.items()}}
        write_beside(bundle.path / FILE, toml_io.dumps(table).encode("utf-8"))
