"""Checkpoints: safetensors for every number, TOML for the configuration. No pickle.

    DIR/student.safetensors   the weights to use (their running average)
    DIR/student.toml          the configuration, and where the weights came from
    DIR/resume.safetensors    what a resumed run needs beside them; removed when the run is complete
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from clcr_edge import toml_io
from clcr_edge.config import StudentConfig, from_table, to_table
from clcr_edge.errors import ClcrEdgeError, ConfigError, DataError
from clcr_edge.model.student import Student

WEIGHTS, CONFIG, RESUME = "student.safetensors", "student.toml", "resume.safetensors"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write beside, then rename: a kill leaves the old file whole. The same tensors and metadata give the same bytes."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.touch()
    mode = scratch.stat().st_mode
    # A clone: parametrised weights may share storage, which safetensors refuses.
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, scratch, metadata)
    scratch.chmod(mode)  # safetensors lets the owner alone read it, unlike the files beside it
    _sort_metadata(scratch)
    scratch.replace(path)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: it is written in that of a hash map, which differs from run to run."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if len(header.get("__metadata__", ())) < 2:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8").ljust(size)
        assert len(text) == size, "the tensors begin after the header as it was"
        file.seek(8)
        file.write(text)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; `DataError` if it is not one."""
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint file")
    try:
        return load_file(path)
    except SafetensorError as e:
        raise DataError(f"{path}: not a readable safetensors file ({e}); train again or copy it again") from None


def save_student(out: Path, weights: dict[str, Tensor], config: StudentConfig, provenance: dict[str, Any]) -> None:
    """Write weights and configuration of a student into a directory."""
    out.mkdir(parents=True, exist_ok=True)
    save_tensors(out / WEIGHTS, weights)
    scratch = out / f".{CONFIG}.{os.getpid()}"
    scratch.write_text(toml_io.dumps({"student": to_table(config), "training": provenance}), "utf-8")
    scratch.replace(out / CONFIG)


def load_student(path: str | os.PathLike[str]) -> tuple[Student, dict[str, Any]]:
    """A student (eval mode) and its provenance from a checkpoint directory. Raises `DataError` naming what is wrong."""
    root = Path(path)
    config_path = root / CONFIG
    if not config_path.is_file():
        raise DataError(f"{root}: no checkpoint there ({CONFIG} and {WEIGHTS} are needed); train one with clcr-edge train")
    try:
        table = toml_io.loads(config_path.read_text("utf-8"))
        student = Student(from_table(StudentConfig, table["student"]))
    except (toml_io.TOMLDecodeError, UnicodeDecodeError, KeyError, ConfigError) as e:
        raise DataError(f"{config_path}: not a student's configuration ({e})") from None
    weights = load_tensors(root / WEIGHTS)
    expected = {k: v.shape for k, v in student.state_dict().items()}
    wrong = [k for k in expected if k not in weights or weights[k].shape != expected[k]]
    if wrong or len(weights) != len(expected):
        raise DataError(f"{root / WEIGHTS}: does not fit {config_path.name} (first difference: {(wrong or ['extra'])[0]})")
    if any(not torch.isfinite(v).all() for v in weights.values() if v.is_floating_point()):
        raise DataError(f"{root / WEIGHTS}: holds NaN or infinite weights; use an earlier checkpoint")
    student.load_state_dict(weights)
    provenance: dict[str, Any] = table.get("training", {})
    return student.eval(), provenance


def resume_step(path: Path, identity: str = "") -> int:
    """The step at which a resume file was written. Raises `ClcrEdgeError` if it was written for another identity."""
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
        if identity and metadata.get("identity") != identity:
            raise ClcrEdgeError(f"{path}: belongs to a run with another seed, data or configuration; remove it to start anew")
        return int(metadata["step"])
    except (SafetensorError, KeyError, ValueError) as e:
        raise ClcrEdgeError(f"{path}: cannot resume from it ({e}); remove it to start anew") from None
