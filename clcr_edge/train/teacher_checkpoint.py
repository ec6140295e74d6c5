"""A trained teacher (or any network of its kind) in a folder. safetensors and TOML, no pickle.

    OUT/teacher.toml        its configuration, what it was trained on and how
    OUT/best.safetensors    the weights that did best on val (absent where there is no val)
    OUT/last.safetensors    the weights of the last finished epoch

A frozen transformer is not in them: teacher.toml has its name and a hash of its weights, which loading checks.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clcr_edge import toml_io
from clcr_edge.errors import ConfigError, DataError
from clcr_edge.model.teacher.config import TeacherConfig, teacher_from_table, teacher_to_table
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.train.checkpoint import load_tensors, save_tensors
from clcr_edge.train.loop import load_learned

CONFIG, BEST, LAST = "teacher.toml", "best.safetensors", "last.safetensors"


def save_description(out: Path, teacher: Teacher, about: dict[str, Any]) -> None:
    """Write teacher.toml. about: further tables, "training" among them."""
    out.mkdir(parents=True, exist_ok=True)
    frozen = frozen_hashes(teacher)
    table = {"teacher": teacher_to_table(teacher.config)} | about | ({"frozen": frozen} if frozen else {})
    scratch = out / f".{CONFIG}.{os.getpid()}"
    scratch.write_text(toml_io.dumps(table), "utf-8")
    scratch.replace(out / CONFIG)


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write weights; a kill leaves the old file whole. Raises `DataError` instead of keeping what is not finite."""
    wrong = next((k for k, v in weights.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
    if wrong is not None:
        raise DataError(f"{path}: {wrong} is no longer finite; the file was left as it was (lower the learning rate)")
    save_tensors(path, weights, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """What was written beside the weights; empty where there is no readable file."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as f:
            return dict(f.metadata() or {})
    except SafetensorError:
        return {}


def read_description(folder: Path) -> tuple[TeacherConfig, dict[str, Any]]:
    """teacher.toml -> the configuration and the whole table. Raises `DataError` naming what is wrong."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: no teacher there ({CONFIG} is needed); train one with clcr-edge train")
    try:
        table = toml_io.loads(path.read_text("utf-8"))
        return teacher_from_table(table["teacher"]), table
    except (toml_io.TOMLDecodeError, UnicodeDecodeError, KeyError, ConfigError) as e:
        raise DataError(f"{path}: not a teacher's description ({e})") from None


def load_teacher(folder: Path, which: str | None = None) -> tuple[Teacher, dict[str, Any]]:
    """A teacher in eval mode and the tables of its teacher.toml.

    which: "best" or "last"; None is the best where there is one. Raises `DataError` naming what is wrong.
    """
    config, table = read_description(folder)
    name = {"best": BEST, "last": LAST, None: BEST if (folder / BEST).is_file() else LAST}[which]
    weights = load_tensors(folder / name)
    if any(not torch.isfinite(v).all() for v in weights.values() if v.is_floating_point()):
        raise DataError(f"{folder / name}: holds NaN or infinite weights; use an earlier checkpoint")
    teacher = Teacher(config)
    for modality, wanted in table.get("frozen", {}).items():
        if frozen_hashes(teacher).get(modality) != wanted:
            raise DataError(f"{folder}: the transformer of {modality} is not the one of its training; put that one back")
    try:
        load_learned(teacher, weights)
    except (KeyError, RuntimeError) as e:
        raise DataError(f"{folder / name}: does not fit {CONFIG} (first difference: {str(e)[:120]})") from None
    return teacher.eval(), table


def frozen_hashes(teacher: Teacher) -> dict[str, str]:
    """Modality -> SHA-256 of the weights of its frozen transformer, over names, shapes and bytes."""
    found = {}
    for name, encoder in teacher.encoders.items():
        body = getattr(getattr(encoder, "text", None), "body", None)
        if isinstance(body, nn.Module) and not any(p.requires_grad for p in body.parameters()):
            digest = hashlib.sha256()
            for key, p in sorted(body.named_parameters()):
                digest.update(f"{key} {tuple(p.shape)}\n".encode())
                digest.update(p.detach().cpu().float().numpy().tobytes())
            found[name] = digest.hexdigest()
    return found


