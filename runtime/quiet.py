"""Keeps what C libraries write to file descriptor 2 (PortAudio, OpenCV, Kaldi) away from the person's terminal.

For command lines only: the redirection holds for the whole process, which a library must not decide.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def c_stderr_silenced() -> Iterator[None]:
    """Inside, Python's `sys.stderr` still reaches the person; what C code writes to descriptor 2 does not."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started with stderr closed: nothing to keep quiet
        yield
        return
    before = sys.stderr
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
