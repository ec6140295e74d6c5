"""GStreamer pipelines for OpenCV: `csi://0` becomes the Jetson camera's usual one, `gst:PIPELINE` gets its end.

OpenCV can open neither unless it was built with GStreamer: JetPack's own and Debian's python3-opencv are, the pip wheel is not.
"""

from __future__ import annotations

import platform
from urllib.parse import parse_qsl

from clcr_edge.errors import SourceError, UsageError

_CSI_DEFAULTS = {"width": 1280, "height": 720, "fps": 30, "flip": 0}
_CSI_RANGES = {"width": (16, 8192), "height": (16, 8192), "fps": (1, 240), "flip": (0, 7)}
# BGR frames, no waiting for presentation time, and never more than one old frame in the queue.
_END = "appsink drop=true max-buffers=1 sync=false"


def is_pipeline(source: int | str) -> bool:
    """Whether a camera's name is for GStreamer."""
    return isinstance(source, str) and (source.startswith(("csi://", "gst:")) or " ! " in source)


def pipeline_of(source: str) -> str:
    """What OpenCV is given. source: `csi://N?width=W&height=H&fps=F&flip=0..7`, `gst:PIPELINE`, or a bare pipeline with " ! ".

    Raises `UsageError` for an option of csi:// that does not exist or is out of range.
    """
    if source.startswith("csi://"):
        return _csi(source)
    pipeline = source.removeprefix("gst:").strip().rstrip("!").strip()
    if not pipeline:
        raise UsageError(f"camera {source!r}: no pipeline; give one, as in gst:videotestsrc")
    if "appsink" in pipeline:
        return pipeline
    return f"{pipeline} ! videoconvert ! video/x-raw,format=BGR ! {_END}"


def check_machine(source: str) -> None:
    """Raise `SourceError` where csi:// cannot work: OpenCV would wait for ever for a source that does not exist."""
    if source.startswith("csi://") and platform.machine() != "aarch64":
        raise SourceError(
            f"camera {source}: a Jetson's camera connector, and this machine ({platform.machine()}) is none; "
            "name another camera (clcr-edge devices lists them)",
            part="camera",
        )


def _csi(source: str) -> str:
    sensor, _, query = source.removeprefix("csi://").partition("?")
    if not (sensor.isascii() and sensor.isdigit()):
        raise UsageError(f"camera {source}: {sensor!r} is no sensor; give its number, as in csi://0")
    options = dict(_CSI_DEFAULTS)
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            raise UsageError(f"camera {source}: no option {key!r}; there are {', '.join(options)}")
        low, high = _CSI_RANGES[key]
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise UsageError(f"camera {source}: {key}={text}; give a whole number from {low} to {high}")
        options[key] = int(text)
    size = f"width=(int){options['width']},height=(int){options['height']}"
    # The sensor's buffers stay in the GPU's memory until nvvidconv; only the CPU can make BGR of what leaves it.
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),{size},framerate=(fraction){options['fps']}/1 ! "
        f"nvvidconv flip-method={options['flip']} ! video/x-raw,{size},format=(string)BGRx ! "
        f"videoconvert ! video/x-raw,format=(string)BGR ! {_END}"
    )
