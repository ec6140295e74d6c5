"""An address as it may be shown: logs, terminals and files are read by others, and addresses of cameras hold passwords."""

from __future__ import annotations

import re

from clcr_edge.runtime.gstreamer import is_pipeline

_USER = re.compile(r"//[^/@\s]*@")
_SECRET_PROPERTY = re.compile(r"""\b((?:user|proxy)-pw=)("[^"]*"|'[^']*'|[^\s!]+)""")  # of rtspsrc and souphttpsrc


def shown_address(source: str) -> str:
    """`source` without user, password and query of a URL, and without the passwords of a GStreamer pipeline.

    What is no address (a name, an index, a path) comes back as it is.
    """
    if is_pipeline(source):
        return _SECRET_PROPERTY.sub(r"\1...", _USER.sub("//", source))
    return _USER.sub("//", source).partition("?")[0] if "://" in source else source
