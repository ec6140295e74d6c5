"""clcr-edge: language, vision and audio in one small streaming network, live on the device.

The network is CLCR (Cross-Level Semantic Collaborative Representation, arXiv 2602.19605), shrunk to an exact stream. What a
program that embeds it needs stands here; importing this loads no torch and opens no device.

>>> import clcr_edge
>>> session = clcr_edge.open_session("out/digits-bundle")     # doctest: +SKIP
>>> session.push_frame(clcr_edge.VideoFrame(image, t_s, seq)); session.push_audio(clcr_edge.AudioChunk(samples, 16_000, t_s))
...                                                            # doctest: +SKIP
>>> session.step().label                                       # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clcr_edge.bundle import Bundle
    from clcr_edge.errors import ClcrEdgeError
    from clcr_edge.packets import AudioChunk, Level, Modality, Prediction, VideoFrame, Word
    from clcr_edge.runtime.engine import Engine
    from clcr_edge.runtime.onnx_engine import OnnxEngine
    from clcr_edge.runtime.session import Session

# Since 1.29 ONNX Runtime's own Linux wheels send telemetry to Microsoft and keep an identifier in ~/.cache/Microsoft; it looks
# here when it is first imported. Nothing is sent from here that nobody asked for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "AudioChunk",
    "Bundle",
    "ClcrEdgeError",
    "Level",
    "Modality",
    "OnnxEngine",
    "Prediction",
    "Session",
    "VideoFrame",
    "Word",
    "open_engine",
    "open_session",
    "read_bundle",
]


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle directory. Raises `BundleError` naming what is wrong with it."""
    from clcr_edge.bundle import read

    return read(path)


def open_session(path: str | os.PathLike[str], precision: str | None = None, engine: str = "onnxruntime") -> Session:
    """A session on a bundle, in the precision that its export chose or in another one it holds.

    engine: "onnxruntime", "native" (a C function for this CPU, built when first used) or "tensorrt". For several
    streams open one engine (`open_engine`) and make several `Session`s of it: the engine holds no stream.
    """
    from clcr_edge.runtime.session import Session

    return Session(open_engine(path, precision, engine))


def open_engine(path: str | os.PathLike[str], precision: str | None = None, engine: str = "onnxruntime") -> Engine:
    """An engine on a bundle: see `open_session`.

    Raises `BundleError`, `EngineError` or `MissingPartError` naming what is wrong or not there; `UsageError` for an unknown
    engine.
    """
    import logging

    from clcr_edge.commands import engines
    from clcr_edge.errors import UsageError

    known = [e.value for e in engines.EngineName]
    if engine not in known:
        raise UsageError(f"engine {engine!r}: one of {', '.join(known)}")
    note = logging.getLogger("clcr_edge").info
    return engines.open_engine(read_bundle(path), engines.EngineName(engine), precision, note)


# Loaded when used: the command line must set up BLAS before numpy loads, and a program may want the packets without an engine.
_HOMES = {
    "Bundle": "clcr_edge.bundle",
    "ClcrEdgeError": "clcr_edge.errors",
    "OnnxEngine": "clcr_edge.runtime.onnx_engine",
    "Session": "clcr_edge.runtime.session",
    **dict.fromkeys(("AudioChunk", "Level", "Modality", "Prediction", "VideoFrame", "Word"), "clcr_edge.packets"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
