"""The compiled step as an engine: one call of a C function a tick, over blocks of memory whose layout it was written for.

    clcr_step(in, state, out, next, weights, scratch)

A state is one block; a step reads it and writes a new one. Blocks begin at multiples of 64 bytes always, so that sums are
added in the same order and a replay gives the same bits. `clcr_edge.export.native` writes and builds the function.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clcr_edge.config import StudentConfig
from clcr_edge.errors import EngineError, StreamError
from clcr_edge.packets import FloatArray
from clcr_edge.runtime.arena import Arena
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.native_store import StoredStep

_OUTPUTS = tuple(f.name for f in dataclasses.fields(StepOutputs))
_INPUTS = tuple(f.name for f in dataclasses.fields(StepInputs))
_ALIGN = 64


class Block(NamedTuple):
    """Memory whose start is aligned: uint8 `[size]`, and where it lies."""

    memory: npt.NDArray[np.uint8]
    address: int


def new_block(size: int) -> Block:
    """Memory for a block; what it holds is left as it is."""
    raw = np.empty(size + _ALIGN, np.uint8)
    address = raw.ctypes.data
    start = -address % _ALIGN
    return Block(raw[start : start + size], address + start)


class Workspace:
    """What one call needs beside the state: the inputs' block and the scratch memory."""

    def __init__(self, inputs: Arena, scratch: int) -> None:
        self.block, self.scratch = new_block(inputs.size), new_block(scratch)
        self.block.memory[...] = 0
        self.scratch.memory[...] = 0  # borders of convolutions stay zero from now on
        self.views = inputs.views(self.block.memory)


class NativeStep:
    """A compiled step in this process. Raises `EngineError` if its library cannot be loaded."""

    def __init__(self, stored: StoredStep) -> None:
        self.inputs, self.states, self.outputs = Arena(stored.inputs), Arena(stored.states), Arena(stored.outputs)
        self._scratch = stored.scratch
        self._weights = new_block(len(stored.weights))
        self._weights.memory[...] = np.frombuffer(stored.weights, np.uint8)
        try:
            self._library = ctypes.CDLL(str(stored.library))
            self._step = self._library.clcr_step
        except (OSError, AttributeError) as e:
            again = "build it again: clcr-edge build --engine native --force"
            raise EngineError(f"{stored.library}: cannot be loaded ({e}); {again}") from None
        self._step.argtypes = [ctypes.c_void_p] * 6
        self._step.restype = ctypes.c_int
        self._read = [
            (t.offset // 4, t.offset // 4 + int(np.prod(t.shape)), t.shape) for t in self.outputs.tensors.values()
        ]  # all float32

    def workspace(self) -> Workspace:
        """Memory for calls, one at a time."""
        return Workspace(self.inputs, self._scratch)

    def first_state(self) -> Block:
        """The state before the first tick: zeros."""
        block = new_block(self.states.size)
        block.memory[...] = 0
        return block

    def __call__(self, work: Workspace, state: Block) -> tuple[list[FloatArray], Block]:
        """One tick over the inputs in `work`: the outputs in their order, float32, and the new state.

        Raises `EngineError` if an input names a row that a table does not have.
        """
        size = self.states.size
        made = new_block(size + self.outputs.size)  # the new state, then the outputs: one allocation
        failed = self._step(
            work.block.address, state.address, made.address + size, made.address, self._weights.address, work.scratch.address
        )
        if failed:
            raise EngineError(f"an input names a row that its table does not have (node {failed}): ngrams or n_new are wrong")
        values = made.memory[size:].view(np.float32)
        return [values[first:last].reshape(shape) for first, last, shape in self._read], made


class NativeState(Mapping[str, FloatArray]):
    """A state in one block, by name as `Engine` asks."""

    def __init__(self, block: Block, layout: Arena) -> None:
        self.block, self.layout = block, layout

    def __getitem__(self, name: str) -> FloatArray:
        t = self.layout.tensors[name]
        size = int(np.prod(t.shape)) * t.dtype.itemsize
        view: FloatArray = self.block.memory[t.offset : t.offset + size].view(t.dtype).reshape(t.shape)
        view.flags.writeable = False
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.tensors)

    def __len__(self) -> int:
        return len(self.layout.tensors)


class NativeEngine:
    """A compiled step graph on the CPU. Stateless: see `Engine`; many threads may step at once."""

    def __init__(self, stored: StoredStep, config: StudentConfig, precision: str = "fp32") -> None:
        self.config = config
        self.precision = precision
        self.compiler = stored.compiler
        self._step = NativeStep(stored)
        if tuple(stored.inputs) != _INPUTS or tuple(stored.outputs) != _OUTPUTS:
            raise EngineError(f"{stored.library.parent}: not a step graph of this version; export the bundle again")
        self._free: list[Workspace] = []

    def initial_state(self) -> State:
        """All zeros."""
        return NativeState(self._step.first_state(), self._step.states)

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """One tick. Raises `StreamError` for inputs or a state of another shape or type, `EngineError` for a wrong index."""
        block = state.block if isinstance(state, NativeState) and state.layout is self._step.states else self._packed(state)
        try:
            work = self._free.pop()
        except IndexError:
            work = self._step.workspace()
        for name, view in work.views.items():
            _fill(name, view, getattr(inputs, name))
        outputs, new = self._step(work, block)
        self._free.append(work)
        return StepOutputs(*outputs), NativeState(new, self._step.states)

    def _packed(self, state: State) -> Block:
        """Arrays by name as one block."""
        block = new_block(self._step.states.size)
        for name, view in self._step.states.views(block.memory).items():
            _fill(f"state {name}", view, state[name] if name in state else np.empty(0, np.float32))
        return block


def _fill(name: str, view: npt.NDArray[Any], given: npt.NDArray[Any]) -> None:
    """The C function reads raw memory: nothing of another shape or type may reach it."""
    if given.shape != view.shape or given.dtype != view.dtype:
        raise StreamError(f"{name}: {given.dtype} {list(given.shape)} given, this engine's is {view.dtype} {list(view.shape)}")
    view[...] = given
