"""TensorRT's Python module: imported when used, its version held to what this code was written for.

In the files that use it the module is called `api`, and its objects are annotated with their classes (`trt.Runtime`):
tests/test_tensorrt_names.py walks those files and resolves every name against the real bindings of 10.3, 10.13, 10.16 and 11.4.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

from clcr_edge.errors import MissingPartError

OLDEST = (10, 3)  # JetPack 6.1; before it there is no strong typing that reads explicit Q/DQ
_STRONG_SINCE = (10, 12)  # NVIDIA calls strong typing fully available from here; 10.3 to 10.11 may need the weak fallback


def load_tensorrt() -> Any:
    """The tensorrt module. Raises `MissingPartError` if there is none, it cannot load its libraries, or it is too old."""
    try:
        api = importlib.import_module("tensorrt")
    except ModuleNotFoundError:
        raise MissingPartError(
            f"TensorRT is not installed for {sys.executable}; on a Jetson make the environment with "
            "python3 -m venv --system-site-packages, elsewhere: pip install 'clcr-edge[tensorrt]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as e:
        raise MissingPartError(f"TensorRT cannot load its libraries ({first_line(e)}); reinstall it for this machine") from None
    version = str(getattr(api, "__version__", "unknown"))
    if version_of(version) < OLDEST:
        raise MissingPartError(
            f"TensorRT {version} is too old: 10.3 or newer is needed (JetPack 6.1 or newer); or use --engine onnxruntime"
        )
    return api


def version_of(version: str) -> tuple[int, int]:
    """Major and minor of a version, (0, 0) if it has none."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def may_need_weak_typing(version: str) -> bool:
    """Whether a network that strong typing refuses may be tried again with weak typing."""
    return OLDEST <= version_of(version) < _STRONG_SINCE


def first_line(e: BaseException) -> str:
    """The first line of an error's text, short enough for one line of ours."""
    lines = str(e).strip().splitlines()
    return lines[0][:200] if lines else type(e).__name__
