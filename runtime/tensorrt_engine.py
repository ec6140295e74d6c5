"""TensorRT as an engine: one plan, one stream, states that stay on the GPU.

A state lives in a lane: two blocks of device memory. A step reads one and writes the other, then they change places: no state
is ever copied. A CUDA graph has its addresses baked in, therefore a lane has two, one for each direction. Many sessions share
one engine; each has its own lane.

    tick k      block 0 --graph 0--> block 1
    tick k + 1  block 1 --graph 1--> block 0
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from clcr_edge.config import StudentConfig
from clcr_edge.errors import EngineError, StreamError
from clcr_edge.packets import FloatArray
from clcr_edge.runtime.arena import Arena
from clcr_edge.runtime.cuda_device import CudaDevice
from clcr_edge.runtime.cuda_graph import CudaGraph
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs
from clcr_edge.runtime.tensorrt_api import first_line
from clcr_edge.runtime.tensorrt_log import make_log

if TYPE_CHECKING:
    import tensorrt as trt

_OUTPUTS = tuple(f.name for f in dataclasses.fields(StepOutputs))
_INPUTS = tuple(f.name for f in dataclasses.fields(StepInputs))
_WHOLE_NUMBERS = ("ngrams", "n_new")


class LaneMemory:
    """Two blocks, and the graphs that run from one to the other."""

    def __init__(self, device: CudaDevice, size: int) -> None:
        self.blocks = [device.memory(size), device.memory(size)]
        self.graphs: list[CudaGraph | None] = [None, None]
        self.warm = [False, False]


class Lane:
    """Where one stream's state lives. When the stream is gone, its memory goes back to `free`, for the next one.

    Kept and not freed: pycuda can free only in the thread that made the device, and a reset then costs no new capture.
    version counts the steps; the newest state is in block `version % 2`, the one before it still in the other.
    """

    def __init__(self, memory: LaneMemory, free: list[LaneMemory]) -> None:
        self.memory = memory
        self.version = 0
        weakref.finalize(self, free.append, memory)


class DeviceState(Mapping[str, FloatArray]):
    """A state on the GPU, by name as `Engine` asks; fetched when a value is read.

    It stays valid until the step after the next: then its block is written again, and reading or stepping it raises
    `StreamError`. A state that has been read keeps its values.
    """

    def __init__(self, engine: TensorRTEngine, lane: Lane, version: int) -> None:
        self._engine, self.lane, self.version = engine, lane, version
        self._read: dict[str, FloatArray] | None = None

    def belongs_to(self, engine: TensorRTEngine) -> bool:
        """Whether this engine's device holds it."""
        return self._engine is engine

    def fetched(self) -> dict[str, FloatArray]:
        """The values, float32, copied to the host."""
        if self._read is None:
            self._read = self._engine.fetch(self)
        return self._read

    def __getitem__(self, name: str) -> FloatArray:
        return self.fetched()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engine.state_names)

    def __len__(self) -> int:
        return len(self._engine.state_names)


class TensorRTEngine:
    """A built plan. See `Engine`.

    api: the tensorrt module. plan: the serialized engine. Raises `EngineError` if it cannot be loaded or is no step graph.
    """

    def __init__(self, api: Any, plan: bytes, config: StudentConfig, precision: str, device: CudaDevice) -> None:
        self.config = config
        self.precision = precision
        self.cuda_graph: bool | None = None  # known after some ticks: None until then
        self._device = device
        self._lock = threading.Lock()
        self._free: list[LaneMemory] = []  # of streams that have ended
        self._log = make_log(api)
        with device.current():
            runtime: trt.Runtime = api.Runtime(self._log)
            engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise EngineError(
                    f"TensorRT {api.__version__} cannot load the {precision} engine ({self._log.reason()}); "
                    "build it on this device: clcr-edge build BUNDLE --force"
                )
            self._runtime, self._engine = runtime, engine  # the engine needs its runtime for as long as it lives
            inputs, outputs = _tensors(api, engine)
            self._states = _checked(inputs, outputs, precision)
            context: trt.IExecutionContext | None = engine.create_execution_context()
            if context is None:
                raise EngineError(
                    f"TensorRT has no memory for the {precision} engine ({self._log.reason()}); close other programs on the GPU"
                )
            self._context: trt.IExecutionContext = context
            self._in = Arena({n: inputs[n] for n in _INPUTS})
            self._out = Arena({n: outputs[n] for n in _OUTPUTS})
            self._state = Arena(self._states)
            self._in_memory, self._out_memory = device.shared(self._in.size), device.shared(self._out.size)
            self._in_views, self._out_views = self._in.views(self._in_memory.host), self._out.views(self._out_memory.host)
            for arena, memory in ((self._in, self._in_memory), (self._out, self._out_memory)):
                for name, tensor in arena.tensors.items():
                    self._bind(name, memory.address + tensor.offset)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self._states)

    def initial_state(self) -> State:
        """All zeros, in memory of its own on the device."""
        with self._lock, self._device.current():
            return DeviceState(self, self._new_lane(), 0)

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """One tick. state: one of this engine's, or arrays by name (they are copied to the device).

        Raises `EngineError` if the GPU fails, `StreamError` if the state's memory has been used again since.
        """
        with self._lock, self._device.current():
            lane, version = self._lane_of(state)
            for name in _INPUTS:
                np.copyto(self._in_views[name], getattr(inputs, name), casting="no")
            try:
                self._in_memory.to_device()
                self._run(lane.memory, version % 2)
                self._out_memory.to_host()
                self._device.synchronize()
            except self._device.api.Error as e:
                raise EngineError(f"the GPU failed in a step ({first_line(e)}); start the program again") from None
            lane.version = version + 1
            # Copies: the next step writes over these.
            outputs = StepOutputs(*(self._out_views[name].copy() for name in _OUTPUTS))
        return outputs, DeviceState(self, lane, version + 1)

    def fetch(self, state: DeviceState) -> dict[str, FloatArray]:
        """The values of a state of this engine. Raises `StreamError` if its memory has been used again since."""
        with self._lock, self._device.current():
            _refuse_old(state)
            block = self._device.read(state.lane.memory.blocks[state.version % 2])
        return dict(self._state.views(block))

    def _lane_of(self, state: State) -> tuple[Lane, int]:
        """The lane and version to step from. Anything but a lane's newest state gets a lane of its own."""
        if isinstance(state, DeviceState) and state.belongs_to(self):
            if state.version == state.lane.version:
                return state.lane, state.version
            _refuse_old(state)
            block = self._device.read(state.lane.memory.blocks[state.version % 2])
        else:
            block = np.zeros(self._state.size, np.uint8)
            for name, view in self._state.views(block).items():
                given = np.asarray(state[name]) if name in state else np.empty(0, np.float32)
                if given.shape != view.shape:
                    raise StreamError(f"state {name}: {list(given.shape)} given, this engine's is {list(view.shape)}")
                view[...] = given
        lane = self._new_lane()
        self._device.write(lane.memory.blocks[0], block)
        return lane, 0

    def _new_lane(self) -> Lane:
        """A lane whose first block is zero."""
        if not self._free:
            return Lane(LaneMemory(self._device, self._state.size), self._free)
        memory = self._free.pop()
        self._device.zero(memory.blocks[0])
        return Lane(memory, self._free)

    def _run(self, lane: LaneMemory, turn: int) -> None:
        """Queue one step from block `turn` to the other: as a graph when one can be had, plainly otherwise."""
        graph = lane.graphs[turn]
        # TensorRT wants one plain step before a capture: it may allocate or update in it.
        if graph is None and lane.warm[turn] and self.cuda_graph is not False:
            graph = lane.graphs[turn] = self._device.graph(lambda: self._enqueue(lane, turn))
            self.cuda_graph = graph is not None
        if graph is not None:
            if graph.launch(self._device.stream_handle):
                return
            self.cuda_graph, lane.graphs = False, [None, None]
        if not self._enqueue(lane, turn):
            raise EngineError(f"TensorRT refuses to run the {self.precision} engine ({self._log.reason()}); build it again")
        lane.warm[turn] = True

    def _enqueue(self, lane: LaneMemory, turn: int) -> bool:
        source, target = lane.blocks[turn].address, lane.blocks[1 - turn].address
        for name, tensor in self._state.tensors.items():
            self._bind(name, source + tensor.offset)
            self._bind(f"next_{name}", target + tensor.offset)
        return bool(self._context.execute_async_v3(self._device.stream_handle))

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the address of {name} ({self._log.reason()}); please report this")


def _refuse_old(state: DeviceState) -> None:
    if state.version < state.lane.version - 1:
        raise StreamError(
            f"this state is {state.lane.version - state.version} steps old and its memory has been used again; "
            "read it (dict(state)) before stepping on, if it is needed later"
        )


def _tensors(api: Any, engine: trt.ICudaEngine) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, outputs) of a plan, each name -> (shape, dtype)."""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for index in range(engine.num_io_tensors):
        name: str = engine.get_tensor_name(index)
        shape = tuple(int(n) for n in engine.get_tensor_shape(name))
        about = (shape, np.dtype(api.nptype(engine.get_tensor_dtype(name))))
        (inputs if engine.get_tensor_mode(name) == api.TensorIOMode.INPUT else outputs)[name] = about
    return inputs, outputs


def _checked(inputs: dict[str, Any], outputs: dict[str, Any], precision: str) -> dict[str, Any]:
    """The states of a step graph, name -> (shape, dtype). Raises `EngineError` if the plan is none of this version."""
    states = {n: about for n, about in inputs.items() if n not in _INPUTS}
    wrong = (set(_INPUTS) - set(inputs)) | (set(outputs) ^ {*_OUTPUTS, *(f"next_{n}" for n in states)})
    for name, (shape, dtype) in (*inputs.items(), *outputs.items()):
        if min(shape, default=1) < 0 or dtype != (np.int32 if name in _WHOLE_NUMBERS else np.float32):
            wrong.add(name)
    wrong |= {n for n, about in states.items() if outputs.get(f"next_{n}") != about}
    if wrong:
        raise EngineError(
            f"the {precision} engine is not a step graph of this version (see {', '.join(sorted(wrong)[:4])}); "
            "export the bundle again, then: clcr-edge build BUNDLE"
        )
    return states
