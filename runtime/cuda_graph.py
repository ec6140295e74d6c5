"""A CUDA graph: work recorded once from a stream and launched as one call. Where there is none, the caller runs it plainly.

pycuda has no call for this, so the driver's own are used. Errors inside a capture must not be raised there: the capture has to
be ended first, or the stream stays unusable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_void_p
from typing import Any

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, as trtexec uses: other threads' calls do not spoil the capture


class CudaGraph:
    """An instantiated graph. Addresses are baked in: what it reads and writes must stay allocated while it lives."""

    def __init__(self, library: Any, executable: int) -> None:
        self._library, self._executable = library, executable

    def launch(self, stream: int) -> bool:
        """Queue the recorded work; False if the driver refuses."""
        return int(self._library.cuGraphLaunch(self._executable, stream)) == 0

    def __del__(self) -> None:
        self._library.cuGraphExecDestroy(self._executable)


def capture(library: Any, stream: int, work: Callable[[], bool]) -> CudaGraph | None:
    """Record what `work` queues on the (non-default) stream. None if work returns False or the driver cannot record it."""
    if library.cuStreamBeginCapture_v2(stream, _THREAD_LOCAL):
        return None
    graph, executable = c_void_p(), c_void_p()
    try:
        queued = work()
    except Exception:  # any failure here means "no graph": the plain execution that follows shows the real error
        queued = False
    ended = int(library.cuStreamEndCapture(stream, ctypes.byref(graph))) == 0
    if not ended or graph.value is None:
        return None
    try:
        if not queued or library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, 0):
            return None
    finally:
        library.cuGraphDestroy(graph)
    return None if executable.value is None else CudaGraph(library, executable.value)
