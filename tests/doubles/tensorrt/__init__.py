"""A double of TensorRT whose plans run in ONNX Runtime, on the addresses that the engine binds, on the stream that it names.

It proves the bookkeeping around TensorRT (buffers, states, caches, errors), not TensorRT. Its names are held to the real
bindings by test_tensorrt_names.py. The environment sets what it does: DOUBLE_VERSION; DOUBLE_REFUSES=strong (strong typing
fails), parse, build; DOUBLE_BUILD_S: how long a build lasts.
"""

from __future__ import annotations

import ctypes
import os
import time
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import onnxruntime as ort
import pycuda.driver as cuda

__version__ = os.environ.get("DOUBLE_VERSION", "10.3.0")
_ELEVEN = __version__.startswith("11.")


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self) -> None: ...

    def log(self, severity: ILogger.Severity, msg: str) -> None: ...


class Logger(ILogger): ...


class IProgressMonitor:
    def __init__(self) -> None: ...


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 0 if _ELEVEN else 1


class MemoryPoolType(Enum):
    WORKSPACE = 0


class ProfilingVerbosity(Enum):
    DETAILED = 1


BuilderFlag = Enum("BuilderFlag", ["TF32"] if _ELEVEN else ["TF32", "FP16", "INT8"])  # type: ignore[misc]


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    FLOAT = 0
    INT32 = 3


def nptype(dtype: DataType) -> type:
    return {DataType.FLOAT: np.float32, DataType.INT32: np.int32}[dtype]


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data)


class ParserError:
    def desc(self) -> str:
        return "Unsupported operator Unique"

    def node(self) -> int:
        return 7

    def node_name(self) -> str:
        return "node_7"

    def node_operator(self) -> str:
        return "Unique"


class INetworkDefinition:
    def __init__(self, strong: bool) -> None:
        self.strong, self.onnx = strong, b""


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        if os.environ.get("DOUBLE_REFUSES") == "parse" or not model.startswith(b"\x08"):  # how every ONNX file begins
            self.num_errors = 1
            return False
        self._network.onnx = model
        return True

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags: set[Any] = set()
        self.workspace = 0
        self.cache: ITimingCache | None = None
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.profiling_verbosity: Any = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.workspace = pool_size

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.data and not cache.data.startswith(b"timings"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(bool(flags & (1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED)))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        refused = os.environ.get("DOUBLE_REFUSES", "")
        if refused == "build" or (refused == "strong" and network.strong):
            self._logger.log(ILogger.Severity.ERROR, "Error Code 10: Could not find\n any implementation for node X.")
            return None
        monitor, steps = config.progress_monitor, 10
        monitor.phase_start("Build Engine", None, 1)
        monitor.phase_start("Tactics", "Build Engine", steps)
        for step in range(steps):
            time.sleep(float(os.environ.get("DOUBLE_BUILD_S", "0")) / steps)
            if not monitor.step_complete("Tactics", step):
                return None
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Build Engine")
        assert config.cache is not None
        config.cache.data = b"timings" + config.cache.data[-1:] + b"."
        flags = ",".join(sorted(f.name for f in config.flags))
        return IHostMemory(f"{__version__};{flags};{config.cache.data.decode()};".encode() + network.onnx)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        version = plan.split(b";", 1)[0].decode(errors="replace")
        if version != __version__:
            self._logger.log(ILogger.Severity.ERROR, f"plan not compatible, expecting {__version__} got {version}")
            return None
        return ICudaEngine(plan.split(b";", 3)[3])


class ICudaEngine:
    def __init__(self, onnx: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._inputs = {i.name: i for i in self.session.get_inputs()}
        self._outputs = {o.name: o for o in self.session.get_outputs()}
        self._names: list[str] = [*self._inputs, *self._outputs]
        self.num_io_tensors = len(self._names)

    def _about(self, name: str) -> Any:
        return self._inputs.get(name) or self._outputs[name]

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._about(name).shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.INT32 if self._about(name).type == "tensor(int32)" else DataType.FLOAT

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 256:
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        addresses = dict(self._addresses)  # as they are now: what a graph bakes in
        if len(addresses) != self._engine.num_io_tensors:
            return False
        cuda.counts["captured" if cuda.capturing is not None else "executed"] += 1
        cuda.streams[stream_handle].add(lambda: self._work(addresses))
        return True

    def _work(self, addresses: dict[str, int]) -> None:
        def array(name: str) -> np.ndarray[Any, Any]:
            shape = self._engine.get_tensor_shape(name)
            kind = nptype(self._engine.get_tensor_dtype(name))
            memory: Any = (ctypes.c_char * (int(np.prod(shape)) * 4)).from_address(addresses[name])
            return np.asarray(np.frombuffer(memory, kind).reshape(shape))

        inputs = {i.name: array(i.name) for i in self._engine.session.get_inputs()}
        names = [o.name for o in self._engine.session.get_outputs()]
        for name, value in zip(names, self._engine.session.run(names, inputs), strict=True):
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
