"""Which cameras the machine has, without switching one on."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from clcr_edge.errors import SourceError

_VIDIOC_QUERYCAP = 0x80685600
_CAPTURE = 0x1 | 0x1000  # single- and multi-planar video capture
_HAS_DEVICE_CAPS = 0x80000000


@dataclass(frozen=True)
class VideoDevice:
    """A camera: `--camera` takes its index, path or name."""

    index: int
    path: str
    name: str


def list_video_devices(dev: Path = Path("/dev"), sys_class: Path = Path("/sys/class/video4linux")) -> list[VideoDevice]:
    """Video capture devices of Linux, by index. Elsewhere, where only opening one would tell, the list is empty.

    A camera often shows a second node for metadata, and codecs show nodes too: the driver is asked, and those left out.
    """
    if sys.platform != "linux":
        return []
    found = []
    for path in dev.glob("video*"):
        number = path.name[len("video") :]
        if not number.isdigit() or not _captures(path):
            continue
        label = sys_class / path.name / "name"
        name = label.read_text("utf-8", "replace").strip() if label.is_file() else path.name
        found.append(VideoDevice(int(number), str(path), name))
    return sorted(found, key=lambda d: d.index)


def find_video_device(name: str) -> VideoDevice:
    """The camera of a name, or of a part of one. Raises `SourceError`, which names what there is."""
    devices = list_video_devices()
    match = [d for d in devices if d.name == name] or [d for d in devices if name.casefold() in d.name.casefold()]
    if not match:
        found = ", ".join(f"{d.index} {d.name!r}" for d in devices) or "none"
        raise SourceError(f"camera {name!r}: no such device or file; found {found}; see clcr-edge devices", part="camera")
    return match[0]


def _captures(path: Path) -> bool:
    import fcntl  # not on every system

    buffer = bytearray(104)  # struct v4l2_capability
    try:
        with path.open("rb", buffering=0) as f:
            fcntl.ioctl(f, _VIDIOC_QUERYCAP, buffer)
    except OSError as e:
        return isinstance(e, PermissionError)  # there, though not for this user: opening it will say so
    capabilities, device_caps = struct.unpack_from("<II", buffer, 84)
    return bool((device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities) & _CAPTURE)
