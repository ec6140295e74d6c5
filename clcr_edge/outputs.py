"""Whether a command will be able to write where it is told to: asked before minutes of work, not after them."""

from __future__ import annotations

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
