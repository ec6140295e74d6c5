"""The bundle: a directory that holds everything a device needs to run a student, and the proof that it is whole.

    manifest.toml     schema, classes, rates, windows, hashes, where it came from, what was measured
    step.fp32.onnx    the step graph, the reference of all others
    step.int8.onnx    for CPUs, where INT8 was asked for: u8 activations
    step.trt-int8.onnx, step.trt-fp16.onnx    for TensorRT, where that was asked for: symmetric s8 Q/DQ, and the FP16 twin
    golden.npz        inputs and outputs of some ticks, from the reference
    report.json       size, parity, accuracy and latency of every precision

Reading verifies size and SHA-256 of every file that the manifest names. Nothing in a bundle is pickled, and no name in it may
lead out of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clcr_edge import toml_io
from clcr_edge.config import StudentConfig, from_table, to_table
from clcr_edge.errors import BundleError, ConfigError, OutputError, UsageError
from clcr_edge.outputs import put_in_place

SCHEMA = 1
MANIFEST = "manifest.toml"
# What a precision's graph is for. u8 activations are what CPUs fuse best, and what TensorRT refuses.
_TARGETS = {"int8": ("cpu",), "trt-int8": ("tensorrt",), "trt-fp16": ("tensorrt",)}
PRECISIONS = ("fp32", "fp16", "int8", "trt-int8", "trt-fp16")  # fp16: what a TensorRT engine is asked for by
_MAX_MANIFEST = 1 << 20
_MAX_FILE = 1 << 30


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. config: what the student reads and tells apart. manifest: the whole table, as read."""

    path: Path
    config: StudentConfig
    manifest: dict[str, Any]

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions it holds, the chosen one first."""
        graphs = self.manifest["graphs"]
        chosen = str(self.manifest["chosen"]["precision"])
        return (chosen, *(p for p in graphs if p != chosen))

    def graphs_for(self, target: str) -> tuple[str, ...]:
        """The precisions whose graphs are meant for a target, "cpu" or "tensorrt". The plain fp32 graph is meant for both."""
        return tuple(p for p in self.precisions if target in _TARGETS.get(p, ("cpu", "tensorrt")))

    def graph(self, precision: str | None = None) -> Path:
        """Path of the step graph in a precision; None: the one that the export chose."""
        wanted = precision or self.precisions[0]
        if wanted not in self.manifest["graphs"]:
            check_precision(wanted)
            raise BundleError(f"{self.path}: no {wanted} graph; this bundle has {', '.join(self.precisions)}")
        return self.path / str(self.manifest["graphs"][wanted])


def check_precision(name: str) -> None:
    """Raises `UsageError` for a name that no bundle has a graph by."""
    if name not in PRECISIONS:
        raise UsageError(f"no precision called {name!r}; choose one of {', '.join(PRECISIONS)}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _inside(root: Path, name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) != 1 or "\\" in name:
        raise BundleError(f"{root / MANIFEST}: file name {name!r} leads out of the bundle; refuse it and export again")
    return root / path


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle. Raises `BundleError` naming the file and what is wrong with it."""
    root = Path(path)
    manifest_path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"{root}: no such bundle directory; make one with: clcr-edge export --int8 --out {root}")
    if not manifest_path.is_file():
        found = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        raise BundleError(f"{root}: not a bundle: no {MANIFEST} in it (found {found})")
    if manifest_path.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{manifest_path}: larger than {_MAX_MANIFEST} bytes; this is no manifest")
    try:
        manifest = toml_io.loads(manifest_path.read_text("utf-8"))
    except (toml_io.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BundleError(f"{manifest_path}: not readable as TOML ({e}); export again") from None
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA or schema < 1:
        raise BundleError(f"{manifest_path}: schema {schema!r}, but this version reads {SCHEMA}; update clcr-edge")
    for table in ("student", "graphs", "files", "chosen"):
        if not isinstance(manifest.get(table), dict):
            raise BundleError(f"{manifest_path}: table [{table}] is missing; export again")
    try:
        config = from_table(StudentConfig, manifest["student"])
    except ConfigError as e:
        raise BundleError(f"{manifest_path}: {e}") from None
    for name, entry in manifest["files"].items():
        _verify(_inside(root, name), entry)
    for precision, name in manifest["graphs"].items():
        if not isinstance(name, str) or name not in manifest["files"]:
            raise BundleError(f"{manifest_path}: graph {precision} names {name!r}, which [files] does not list; export again")
    chosen = manifest["chosen"].get("precision")
    if not isinstance(chosen, str) or chosen not in manifest["graphs"]:
        raise BundleError(
            f"{manifest_path}: the chosen precision {chosen!r} is not among the graphs {list(manifest['graphs'])}; export again"
        )
    return Bundle(root, config, manifest)


def _verify(path: Path, entry: Any) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int) or not isinstance(entry.get("sha256"), str):
        raise BundleError(f"{path.parent / MANIFEST}: [files] entry of {path.name} needs bytes and sha256; export again")
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path}: named by the manifest but not there (or a link); copy the bundle again")
    size = path.stat().st_size
    if size != entry["bytes"] or size > _MAX_FILE:
        raise BundleError(f"{path}: {size} bytes, but the manifest says {entry['bytes']}; copy the bundle again")
    if _sha256(path) != entry["sha256"]:
        raise BundleError(f"{path}: does not match its SHA-256 in the manifest; copy the bundle again")


def write(
    path: str | os.PathLike[str],
    config: StudentConfig,
    graphs: dict[str, str],
    fill: Callable[[Path], dict[str, Any]],
) -> Bundle:
    """Write a bundle beside `path`, then rename it into place: a killed export never leaves something that looks whole.

    Raises `OutputError` where it cannot be written; a bundle that was at `path` before is then still there, whole.

    graphs: precision -> file name. fill: writes every file but the manifest into the directory it is given, and returns the
    manifest's further tables ("chosen" among them). An existing bundle at `path` is replaced; any other directory is refused.
    """
    target = Path(path)
    check_target(target)
    try:
        return _write(target, config, graphs, fill)
    except OSError as e:
        raise OutputError(
            f"{target}: the bundle cannot be written ({e.strerror or e}); make room, or name another --out"
            + ("; the old one is as it was" if target.exists() else "")
        ) from None


def _write(target: Path, config: StudentConfig, graphs: dict[str, str], fill: Callable[[Path], dict[str, Any]]) -> Bundle:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        tables = fill(scratch)
        # fill may drop a precision that did not hold.
        kept = {p: n for p, n in graphs.items() if (scratch / n).is_file()}
        files = {
            p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(scratch.iterdir()) if p.is_file()
        }
        manifest = {"schema": SCHEMA, "student": to_table(config), "graphs": kept, "files": files, **tables}
        (scratch / MANIFEST).write_text(toml_io.dumps(manifest), "utf-8")
        scratch.chmod(0o755)
        read(scratch)
        put_in_place(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return read(target)


def check_target(path: Path) -> None:
    """Refuse to write over anything that is not a bundle (an empty directory will do)."""
    if path.exists() and not (path.is_dir() and ((path / MANIFEST).is_file() or not any(path.iterdir()))):
        raise BundleError(f"{path}: exists and is not a bundle; choose another --out, or remove it")
