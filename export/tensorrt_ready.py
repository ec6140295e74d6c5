"""A TensorRT engine that is ready for this device: the stored one if it fits, otherwise a new one, saying why."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clcr_edge.bundle import Bundle
from clcr_edge.errors import EngineError, OutputError
from clcr_edge.export.build_memory import MIB, needed_bytes, shortage
from clcr_edge.export.build_progress import BuildProgress
from clcr_edge.export.tensorrt_build import build_plan
from clcr_edge.outputs import check_folder
from clcr_edge.runtime.cuda_device import CudaDevice
from clcr_edge.runtime.machine import memory_bytes
from clcr_edge.runtime.tensorrt_api import load_tensorrt
from clcr_edge.runtime.tensorrt_engine import TensorRTEngine
from clcr_edge.runtime.tensorrt_graphs import tensorrt_graph
from clcr_edge.runtime.tensorrt_store import (
    EngineKey,
    StoredEngine,
    folder_of,
    load_engine,
    save_engine,
    timing_file,
    write_beside,
)

WORKSPACE_MIB = 256
LEVEL = 3


@dataclass(frozen=True)
class BuildSettings:
    """workspace_mib: TensorRT's scratch memory, at most. level: its effort, 0..5. force: build in any case."""

    workspace_mib: int = WORKSPACE_MIB
    level: int = LEVEL
    force: bool = False


@dataclass
class Teller:
    """Who hears about a build. note: one line worth keeping. progress: how far it is. All silent by default."""

    note: Callable[[str], None] = field(default=lambda _: None)
    progress: Callable[[str, BuildProgress], None] = field(default=lambda *_: None)


class TensorRTMachine:
    """TensorRT and the GPU of this machine, opened once. Raises `MissingPartError` naming what is not there."""

    def __init__(self, index: int = 0) -> None:
        self.api = load_tensorrt()
        self.device = CudaDevice(index)

    @property
    def line(self) -> str:
        """What it is, in one line."""
        d = self.device
        return f"{d.name} ({d.compute_capability}, {d.multiprocessors} multiprocessors), TensorRT {self.api.__version__}"

    def key(self, onnx: bytes) -> EngineKey:
        """What an engine of this graph, built here and now, is good for."""
        d, digest = self.device, hashlib.sha256(onnx).hexdigest()
        return EngineKey(d.name, d.compute_capability, d.multiprocessors, str(self.api.__version__), digest)

    def engine(self, bundle: Bundle, precision: str, stored: StoredEngine) -> TensorRTEngine:
        """The engine of a stored plan."""
        return TensorRTEngine(self.api, stored.plan, bundle.config, precision, self.device)


def ready_engine(
    machine: TensorRTMachine, bundle: Bundle, precision: str, settings: BuildSettings, teller: Teller
) -> tuple[StoredEngine, bool]:
    """The stored engine of a precision, built first where there is none that fits; and whether it was built.

    Raises `EngineError` if it cannot be built or kept, `KeyboardInterrupt` on Ctrl-C; the old engine then still lies there.
    """
    onnx = tensorrt_graph(bundle, precision).read_bytes()
    key = machine.key(onnx)
    stored = None
    try:
        stored = load_engine(bundle, precision)
    except EngineError as e:
        teller.note(f"{e}: building it again")
    if stored is not None:
        difference = stored.key.differences(key)
        if not difference and not settings.force:
            return stored, False
        if difference:
            teller.note(f"the stored {precision} engine was {difference}: building it again")
    return _build(machine, bundle, precision, key, onnx, settings, teller), True


def _build(
    machine: TensorRTMachine,
    bundle: Bundle,
    precision: str,
    key: EngineKey,
    onnx: bytes,
    settings: BuildSettings,
    teller: Teller,
) -> StoredEngine:
    needed = needed_bytes(len(onnx), settings.workspace_mib)
    # An integrated GPU has no memory of its own: what Linux can free for it is what counts, not what is free this moment.
    shared = memory_bytes() if machine.device.integrated else None
    available = machine.device.free_bytes() if shared is None else shared[0]
    teller.note(f"{precision}: building needs about {needed // MIB} MiB, {available // MIB} MiB are free")
    if not settings.force:
        short = shortage(needed, available, settings.workspace_mib)
        if short:
            raise EngineError(f"{precision}: {short}")
    try:
        check_folder(folder_of(bundle), remedy="copy the bundle to a folder that you may write to")
    except OutputError as e:
        raise EngineError(str(e)) from None
    timings = timing_file(bundle, key)
    with machine.device.current(), _interrupt_noted() as interrupted:
        built = build_plan(
            machine.api,
            onnx,
            precision,
            workspace_mib=settings.workspace_mib,
            level=settings.level,
            timings=_read(timings),
            tell=lambda progress: teller.progress(precision, progress),
            cancelled=interrupted.is_set,
        )
    for note in built.notes:
        teller.note(f"{precision}: {note}")
    stored = StoredEngine(key, built.typing, settings.workspace_mib, built.seconds, built.plan)
    save_engine(bundle, precision, stored)
    if built.timings:
        try:
            write_beside(timings, built.timings)
        except EngineError as e:  # they only make the next build shorter; the engine is there
            teller.note(f"{precision}: TensorRT's timings are not kept: {e}")
    return stored


def _read(path: Any) -> bytes:
    try:
        return bytes(path.read_bytes())
    except OSError:
        return b""


@contextmanager
def _interrupt_noted() -> Iterator[threading.Event]:
    """Inside, Ctrl-C sets the event instead of raising: an exception may not pass through TensorRT, which is asked to stop."""
    noted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGINT, lambda *_: noted.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
    if noted.is_set():  # it came after TensorRT's last step
        raise KeyboardInterrupt
