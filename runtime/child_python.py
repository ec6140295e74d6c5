"""Another Python that finds modules exactly where this one does."""

from __future__ import annotations

import sys


def child_python(code: str) -> list[str]:
    """The command that runs `code` in another process; arguments may follow it.

    `python -m` and `python -c` look into the working directory first, which this process may not do: a stray `json.py` there
    would be run. So the other one takes over our own search path before it imports anything.
    """
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"]
