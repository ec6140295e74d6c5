"""Golden vectors: the inputs of some ticks and what the reference made of them, so that any engine can prove itself anywhere.

The reference is the step in torch, float32, itself held to the offline student (law 1; `clcr_edge.export.golden` makes them).
Reading and comparing need no torch: a device that verifies its own engine has none.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clcr_edge.errors import BundleError, StreamError
from clcr_edge.packets import FloatArray
from clcr_edge.runtime.engine import Engine, StepInputs, StepOutputs

FILE = "golden.npz"
_MAX_BYTES = 64 << 20
_OUTPUTS = tuple(f.name for f in fields(StepOutputs))


@dataclass(frozen=True)
class Golden:
    """inputs of T ticks; outputs by name, float32 `[T, ...]`; final states by name."""

    inputs: tuple[StepInputs, ...]
    outputs: dict[str, FloatArray]
    states: dict[str, FloatArray]


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
        with path.open("rb") as f, np.load(f, allow_pickle=False) as data:  # numpy leaves a broken file open
            arrays = {k: data[k] for k in data.files}
        frames = arrays["in.frame"].astype(np.float32) / np.float32(255.0)
        columns = {f.name: arrays[f"in.{f.name}"] for f in fields(StepInputs)} | {"frame": frames}
        inputs = tuple(StepInputs(**{k: v[t] for k, v in columns.items()}) for t in range(len(frames)))
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error, StreamError) as e:
        raise BundleError(f"{path}: not readable as golden vectors ({e}); export the bundle again") from None
    outputs = {k[4:]: v for k, v in arrays.items() if k.startswith("out.")}
    return Golden(inputs, outputs, {k[6:]: v for k, v in arrays.items() if k.startswith("state.")})


def rolled_out(engine: Engine, golden: Golden) -> dict[str, FloatArray]:
    """What an engine makes of the golden ticks: outputs by name, float32 `[T, ...]`, states rolled out from the start."""
    state = engine.initial_state()
    rows: list[StepOutputs] = []
    for inputs in golden.inputs:
        outputs, state = engine.step(inputs, state)
        rows.append(outputs)
    return {name: np.stack([np.asarray(getattr(r, name)) for r in rows]) for name in _OUTPUTS}


def compare(engine: Engine, golden: Golden) -> dict[str, dict[str, float]]:
    """Run the golden ticks through an engine: per output the largest absolute difference and the SQNR in dB."""
    return differences(rolled_out(engine, golden), golden)


def differences(made: dict[str, FloatArray], golden: Golden) -> dict[str, dict[str, float]]:
    """Per output the largest absolute difference from the golden outputs, and the SQNR in dB.

    SQNR = 10 log10(signal power / error power), capped at 150 dB for outputs that are equal. An output that is not finite has
    an infinite difference and -150 dB: NaN would pass every comparison with a limit.
    """
    result = {}
    for name in _OUTPUTS:
        wanted, got = golden.outputs[name].astype(np.float64), made[name].astype(np.float64)
        if not np.isfinite(got).all():
            result[name] = {"max_abs": float("inf"), "sqnr_db": -150.0}
            continue
        error = got - wanted
        noise, signal = float((error**2).mean()), float((wanted**2).mean())
        sqnr = 150.0 if noise == 0 else min(150.0, 10.0 * float(np.log10(max(signal, 1e-30) / noise)))
        result[name] = {"max_abs": float(np.abs(error).max()), "sqnr_db": round(sqnr, 1)}
    return result
