"""A double of the CUDA driver's calls for graphs: it records what the pycuda double queues, and launches it again."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


class DriverDouble:
    """refuses: the name of a call that fails."""

    def __init__(self, cuda: Any, refuses: str = "") -> None:
        self._cuda, self._refuses = cuda, refuses
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.launched = 0
        self.destroyed = 0
        self._next = 1

    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:  # noqa: N802 - the driver's name
        if self._refuses == "cuStreamBeginCapture_v2":
            return 900
        assert self._cuda.capturing is None
        self._cuda.capturing = []
        return 0

    def cuStreamEndCapture(self, stream: int, graph: Any) -> int:  # noqa: N802
        work, self._cuda.capturing = self._cuda.capturing, None
        if self._refuses == "cuStreamEndCapture":
            return 901
        ctypes.cast(graph, ctypes.POINTER(ctypes.c_void_p))[0] = self._keep(work)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> int:  # noqa: N802
        if self._refuses == "cuGraphInstantiateWithFlags":
            return 801
        ctypes.cast(executable, ctypes.POINTER(ctypes.c_void_p))[0] = self._keep(self.graphs[graph.value])
        return 0

    def cuGraphLaunch(self, executable: int, stream: int) -> int:  # noqa: N802
        if self._refuses == "cuGraphLaunch":
            return 719
        self.launched += 1
        for work in self.graphs[executable]:
            self._cuda.streams[stream].add(work)
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        del self.graphs[graph.value]
        return 0

    def cuGraphExecDestroy(self, executable: int) -> int:  # noqa: N802
        del self.graphs[executable]
        self.destroyed += 1
        return 0

    def _keep(self, work: list[Callable[[], object]]) -> int:
        self._next += 1
        self.graphs[self._next] = work
        return self._next
