"""Keeps freed memory in the process, so that a training step does not pay for fresh pages again and again.

A step allocates and frees hundreds of megabytes. glibc gives large blocks back to the kernel at once; on virtual machines whose
memory is lazily backed, fetching them again can cost more than the computation.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_memory() -> bool:
    """Tell glibc's allocator to keep what it has. False where there is no glibc; nothing is lost then but speed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 for key, value in settings])
