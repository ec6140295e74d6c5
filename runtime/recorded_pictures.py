"""Pictures of a recording: what the network can see of a frame, losslessly, in a file that any player shows.

Kept is the luma of the centre square at the camera's own resolution: the network input of any student, of any image size, is
made from exactly that, so a replay is exact; it costs a third of the time of the whole colour frame (docs/record_cost.md); and
nothing is kept that no student could have used. Read back as R = G = B = luma, whose luma is the same number again
(77 + 150 + 29 = 256). FFV1 keeps every bit; NUT puts each frame on the disk at once and needs no index, so a file that was cut
off is good up to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from clcr_edge.errors import RecordingError
from clcr_edge.features.image import luma
from clcr_edge.packets import ByteArray

MOST_SIDE = 8_192
_OPTIONS = {"write_index": "0", "flush_packets": "1"}  # an index would grow in memory until the end


def luma_of(image: ByteArray) -> ByteArray:
    """uint8 `[H, W, 3]` RGB -> uint8 `[S, S]`, the `luma` of the centre square."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return luma(image[top : top + side, left : left + side])


class _File:
    """A file that libav writes to. Keeps the first error instead of raising it inside libav, and swallows what follows."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self.problem: OSError | None = None

    def write(self, data: bytes) -> int:
        """Everything, or note why not."""
        left = memoryview(data)
        try:
            while self.problem is None and len(left):
                left = left[os.write(self._fd, left) :]
        except OSError as e:
            self.problem = e
        return len(data)

    def close(self) -> None:
        os.close(self._fd)


class PictureWriter:
    """Writes lumas of one side into one file."""

    def __init__(self, path: Path, side: int) -> None:
        self.side = side
        self._file = _File(path)
        self._out: Any = av.open(self._file, "w", format="nut", options=_OPTIONS)
        stream = self._out.add_stream("ffv1", rate=1_000)
        stream.width, stream.height, stream.pix_fmt = side, side, "gray"
        stream.codec_context.thread_count = 1  # more would hold frames back
        stream.codec_context.gop_size = 1
        self._stream = stream
        self._pts = -1

    def add(self, luma: ByteArray, t_s: float) -> None:
        """One picture; it is in the file when this returns. t_s: for players, to the millisecond. Raises `OSError`."""
        frame = av.VideoFrame.from_ndarray(luma, format="gray")
        self._pts = max(self._pts + 1, round(t_s * 1e3))
        frame.pts = self._pts
        for packet in self._stream.encode(frame):
            self._out.mux_one(packet)
        if self._file.problem is not None:
            raise self._file.problem

    def close(self) -> None:
        """Close the file; nothing is left to write."""
        try:
            self._out.close()
        finally:
            self._file.close()


def read_pictures(path: Path, side: int) -> Iterator[ByteArray]:
    """The pictures of a file, uint8 `[S, S]`, until it ends or is cut off. `RecordingError`: another size or codec."""
    try:
        with av.open(f"file:{path}", format="nut", container_options={"protocol_whitelist": "file"}) as container:
            if len(container.streams.video) != 1:
                raise RecordingError(f"{path}: holds no pictures; copy the recording again")
            codec = container.streams.video[0].codec_context
            if codec.name != "ffv1" or (codec.width, codec.height) != (side, side) or codec.pix_fmt != "gray":
                raise RecordingError(
                    f"{path}: {codec.name} {codec.width} x {codec.height} {codec.pix_fmt}, but ffv1 {side} x {side} gray was "
                    "recorded; copy the recording again"
                )
            codec.thread_count = 1
            for frame in container.decode(video=0):
                if (frame.width, frame.height) != (side, side):
                    raise RecordingError(f"{path}: a picture of {frame.width} x {frame.height}; copy the recording again")
                yield np.ascontiguousarray(frame.to_ndarray())
    except (av.error.FFmpegError, OSError):
        return  # cut off here; the caller knows how many there should have been
