"""Where compiled steps lie: a folder of this user's cache, one for each graph, machine and version of the writer.

    step.HASH.so   the library: one C function
    step.weights   its constants
    step.toml      the record: the layout of its blocks, sizes, hashes, what compiled it, how far it is from ONNX Runtime

Never in the bundle: a bundle may come from anybody, and a library is code that runs. A folder that others may write to is
refused. A folder is written beside its place and renamed, so a kill leaves nothing that looks whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge import toml_io
from clcr_edge.errors import EngineError
from clcr_edge.runtime.machine import cpu_name

_SCHEMA = 1
_RECORD, _WEIGHTS = "step.toml", "step.weights"
Tensors = dict[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


@dataclass(frozen=True)
class StoredStep:
    """A compiled step. library: its file; weights: its constants, as they lie in memory; scratch: bytes it needs beside.

    inputs, states, outputs (float32): shape and dtype by name, in the order of their blocks (`clcr_edge.runtime.arena.Arena`).
    compiler: in words. seconds: how long it took. difference: the largest from ONNX Runtime, over the bundle's golden ticks.
    """

    library: Path
    weights: bytes
    scratch: int
    inputs: Tensors
    states: Tensors
    outputs: Tensors
    compiler: str
    seconds: float
    difference: float


def cache_folder() -> Path:
    """`native` in $XDG_CACHE_HOME/clcr-edge (else ~/.cache/clcr-edge; on Windows %LOCALAPPDATA%). Raises `EngineError` where
    there is no home. A relative XDG_CACHE_HOME counts as none, as its specification has it."""
    named = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    try:
        cache = Path(named) if named and Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        raise EngineError("this user has no home folder to keep the native engine in; name one in XDG_CACHE_HOME") from None
    return cache / "clcr-edge" / "native"


def folder_of(graph: Path, writer: str) -> Path:
    """The folder of a graph's step on this machine. writer: names the version of what writes the C."""
    named = [_SCHEMA, hashlib.sha256(graph.read_bytes()).hexdigest(), writer, platform.machine(), cpu_name(), _features()]
    return cache_folder() / hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]


def _features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor can do: the same name may have less in a virtual machine, and would be killed by the rest."""
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def load_step(folder: Path) -> StoredStep | None:
    """The step in a folder; None if there is none, or it is damaged: then it is built again.

    Raises `EngineError` if others may write to the folder: what lies there would be run.
    """
    if not (folder / _RECORD).is_file():
        return None
    _refuse_shared(folder, *folder.glob("step.*"))
    try:
        table = toml_io.loads((folder / _RECORD).read_text("utf-8"))
        weights = (folder / _WEIGHTS).read_bytes()
        place = folder / _library_name(str(table["library_sha256"]))
        library = place.read_bytes()
        hashes = [hashlib.sha256(data).hexdigest() for data in (weights, library)]
        if table["schema"] != _SCHEMA or hashes != [table["weights_sha256"], table["library_sha256"]]:
            return None
        return StoredStep(
            library=place,
            weights=weights,
            scratch=int(table["scratch"]),
            inputs=_tensors(table, "inputs"),
            states=_tensors(table, "states"),
            outputs=_tensors(table, "outputs"),
            compiler=str(table["compiler"]),
            seconds=float(table["seconds"]),
            difference=float(table["difference"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _library_name(digest: str) -> str:
    """Of the content: a process that meets a path again gets the library that it loaded from there before."""
    return f"step.{Path(digest[:12]).name}.so"


def _tensors(table: dict[str, Any], block: str) -> Tensors:
    found = {}
    for name in table[f"{block}_order"]:
        about = table[block][name]
        found[str(name)] = (tuple(int(s) for s in about["shape"]), np.dtype(str(about["dtype"])))
    return found


def save_step(folder: Path, step: StoredStep) -> StoredStep:
    """Keep a step in a folder, in place of what is there. Raises `EngineError` if it cannot be written."""
    library = step.library.read_bytes()
    digest = hashlib.sha256(library).hexdigest()
    table: dict[str, Any] = {
        "schema": _SCHEMA,
        "library_sha256": digest,
        "weights_sha256": hashlib.sha256(step.weights).hexdigest(),
        "scratch": step.scratch,
        "compiler": step.compiler,
        "seconds": round(step.seconds, 2),
        "difference": float(step.difference),
    }
    for block in ("inputs", "states", "outputs"):
        tensors: Tensors = getattr(step, block)
        table[f"{block}_order"] = list(tensors)
        table[block] = {n: {"shape": list(shape), "dtype": str(dtype)} for n, (shape, dtype) in tensors.items()}
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_shared(folder.parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        (scratch / _library_name(digest)).write_bytes(library)
        (scratch / _WEIGHTS).write_bytes(step.weights)
        (scratch / _RECORD).write_text(toml_io.dumps(table), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    except OSError as e:
        raise EngineError(
            f"{folder}: cannot be written ({e.strerror or e}); make room, or name another cache in XDG_CACHE_HOME"
        ) from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    kept = load_step(folder)
    if kept is None:
        raise EngineError(f"{folder}: what was written there cannot be read back; is the disk full?")
    return kept


def _refuse_shared(folder: Path, *files: Path) -> None:
    """What lies in a folder of somebody else's, or in one that others may write to or rename, is not loaded; all folders above
    count. A sticky one, as /tmp is, does not: there nobody can rename what is another's."""
    if not hasattr(os, "geteuid"):
        return
    for path in (folder, *files, *folder.resolve().parents):
        about = path.stat()
        if about.st_uid not in (os.geteuid(), 0):
            raise EngineError(f"{path}: is another user's, and what lies there would be run; name a cache in XDG_CACHE_HOME")
        if about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX:
            raise EngineError(f"{path}: others may write to it, and what lies there would be run: chmod go-w {path}")
