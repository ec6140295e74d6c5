"""Golden vectors: the inputs of some ticks and what the reference made of them, so that any engine can prove itself anywhere.

The reference is the step in torch, float32, itself held to the offline student (law 1). Frames are kept as the bytes they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clcr_edge.errors import BundleError
from clcr_edge.export.step import OUTPUTS, STATES, StepGraph, initial_state
from clcr_edge.model.student import Student
from clcr_edge.packets import FloatArray
from clcr_edge.runtime.engine import Engine, StepInputs

_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Golden:
    """inputs of T ticks; outputs by name, float32 `[T, ...]`; final states by name."""

    inputs: tuple[StepInputs, ...]
    outputs: dict[str, FloatArray]
    states: dict[str, FloatArray]


@torch.no_grad()
def make_golden(student: Student, ticks: Iterable[StepInputs]) -> Golden:
    """Run the torch step over ticks, from the initial state."""
    graph = StepGraph(student).eval()
    state: tuple[torch.Tensor, ...] = initial_state(student.config)
    kept, rows = [], []
    for inputs in ticks:
        # What golden.npz can hold exactly: frames in whole 255ths.
        frame = np.round(inputs.frame * 255.0).astype(np.uint8).astype(np.float32) / np.float32(255.0)
        exact = StepInputs(**{**vars(inputs), "frame": frame})
        results = graph(*(torch.from_numpy(np.ascontiguousarray(v)) for v in vars(exact).values()), *state)
        state = results[len(OUTPUTS) :]
        kept.append(exact)
        rows.append([r.numpy() for r in results[: len(OUTPUTS)]])
    outputs = {name: np.stack([row[i] for row in rows]) for i, name in enumerate(OUTPUTS)}
    return Golden(tuple(kept), outputs, {n: s.numpy() for n, s in zip(STATES, state, strict=True)})


def save_golden(golden: Golden, path: Path) -> None:
    """Write as a compressed npz without pickle."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for field in fields(StepInputs):
        stacked = np.stack([getattr(i, field.name) for i in golden.inputs])
        arrays[f"in.{field.name}"] = np.round(stacked * 255.0).astype(np.uint8) if field.name == "frame" else stacked
    arrays |= {f"out.{k}": v for k, v in golden.outputs.items()} | {f"state.{k}": v for k, v in golden.states.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_golden(path: Path) -> Golden:
    """Read golden.npz; `BundleError` if it is not one. Pickled content is refused."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        with np.load(path, allow_pickle=False) as data:
            arrays = {k: data[k] for k in data.files}
        frames = arrays["in.frame"].astype(np.float32) / np.float32(255.0)
        columns = {f.name: arrays[f"in.{f.name}"] for f in fields(StepInputs)} | {"frame": frames}
        inputs = tuple(StepInputs(**{k: v[t] for k, v in columns.items()}) for t in range(len(frames)))
    except (OSError, ValueError, KeyError) as e:
        raise BundleError(f"{path}: not readable as golden vectors ({e}); export the bundle again") from None
    outputs = {k[4:]: v for k, v in arrays.items() if k.startswith("out.")}
    return Golden(inputs, outputs, {k[6:]: v for k, v in arrays.items() if k.startswith("state.")})


def compare(engine: Engine, golden: Golden) -> dict[str, dict[str, float]]:
    """Run the golden ticks through an engine: per output the largest absolute difference and the SQNR in dB.

    SQNR = 10 log10(signal power / error power), capped at 150 dB for outputs that are equal.
    """
    state = engine.initial_state()
    rows: list[dict[str, FloatArray]] = []
    for inputs in golden.inputs:
        outputs, state = engine.step(inputs, state)
        rows.append({name: np.asarray(getattr(outputs, name)) for name in OUTPUTS})
    result = {}
    for name in OUTPUTS:
        wanted, got = golden.outputs[name].astype(np.float64), np.stack([r[name] for r in rows]).astype(np.float64)
        error = got - wanted
        noise, signal = float((error**2).mean()), float((wanted**2).mean())
        sqnr = 150.0 if noise == 0 else min(150.0, 10.0 * float(np.log10(max(signal, 1e-30) / noise)))
        result[name] = {"max_abs": float(np.abs(error).max()), "sqnr_db": round(sqnr, 1)}
    return result
