"""Where commands write: that they can is asked before minutes of work, and a finished folder is put in place in one step."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from pathlib import Path

from clcr_edge.errors import OutputError


def check_folder(folder: Path, named: str | None = None, remedy: str = "name another --out") -> None:
    """Raise `OutputError` unless `folder` is, or can become, a folder with files in it. Makes nothing that stays.

    The folder itself is tried where it is there, else the nearest one above it. named: how the error calls it.
    """
    called = named or str(folder)
    place = folder
    try:
        while not place.exists() and not place.is_symlink() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            what = "is a file" if place.exists() else "is a link to nothing"
            raise OutputError(f"{called}: cannot be made, as {place} {what}; {remedy}")
        with tempfile.TemporaryDirectory(prefix=".clcr-edge-", dir=place):
            pass
    except OSError as e:
        raise OutputError(f"{called}: nothing can be written to {place} ({e.strerror or e}); {remedy}") from None


_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


def put_in_place(made: Path, place: Path) -> None:
    """Give a finished folder its name; a folder that bore it before is removed. Both lie on one file system.

    On Linux the two change names in one step: whenever the process is killed, the name stands for one of them, whole. Where a
    file system cannot do that, the old one is moved aside first, and back if the new one cannot follow.
    """
    if place.is_dir() and not place.is_symlink() and _exchanged(made, place):
        shutil.rmtree(made, ignore_errors=True)  # the old one, by now
    elif not place.exists():
        made.rename(place)
    else:
        retired = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent))
        place.rename(retired / "old")
        try:
            made.rename(place)
        except BaseException:
            (retired / "old").rename(place)
            retired.rmdir()
            raise
        shutil.rmtree(retired, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Change two names in one step; False where the system or the file system cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # no glibc of this decade; TypeError: Windows has no library called None
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return int(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)) == 0
