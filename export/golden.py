"""Makes golden vectors: the torch step over some ticks. What they are, and how an engine is held to them: `runtime.golden`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from clcr_edge.export.step import OUTPUTS, STATES, StepGraph, initial_state
from clcr_edge.model.student import Student
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.golden import Golden, compare, load_golden, save_golden

__all__ = ["Golden", "compare", "load_golden", "make_golden", "save_golden"]


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
