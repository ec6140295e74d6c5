"""Keeps what TensorRT has to say, so that an error of ours can carry its reason in one line."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt as trt

_KEPT = 50


def make_log(api: Any) -> Any:
    """A TensorRT logger that prints nothing. `errors` and `warnings` hold the newest messages, oldest first."""

    class Log(api.ILogger):  # type: ignore[misc]  # a base class that exists only when TensorRT is there
        def __init__(self) -> None:
            api.ILogger.__init__(self)  # pybind wants the base named, not super()
            self.errors: deque[str] = deque(maxlen=_KEPT)
            self.warnings: deque[str] = deque(maxlen=_KEPT)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            line = " ".join(msg.split())
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(line)
            elif severity == api.ILogger.Severity.WARNING:
                self.warnings.append(line)

        def reason(self) -> str:
            """The first error since the last call, for a message in brackets."""
            said = self.errors[0][:300] if self.errors else "it gave no reason"
            self.errors.clear()
            return said

    return Log()
