"""Whether an MPEG program stream (.mpg, .vob) was cut off. Its header says no length, but each of its packets does."""

from __future__ import annotations

from pathlib import Path

_PACK = b"\x00\x00\x01\xba"
_WINDOW = 1 << 18  # the end of the file that is looked at; a pack is 2 KB as a rule, and at most 64 KB and a little


def is_cut(path: Path) -> bool:
    """True if the last packet goes on where the file has ended. A cut that falls between two packets cannot be told."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _WINDOW))
        tail = file.read(_WINDOW)
    at = tail.rfind(_PACK)
    if at < 0 or len(tail) - at < 5:
        return at >= 0
    if tail[at + 4] >> 6 == 0b01:  # MPEG-2: stuffing follows, as much as the last byte says
        at += 14 + (tail[at + 13] & 7 if at + 13 < len(tail) else 0)
    elif tail[at + 4] >> 4 == 0b0010:  # MPEG-1
        at += 12
    else:
        return False
    while at < len(tail):
        left = tail[at : at + 6]
        if len(left) < 6 and b"\x00\x00\x01".startswith(left[:3]) and left != b"\x00\x00\x01\xb9":
            return any(left)  # half a packet's head; zeros only are padding
        if left[:3] != b"\x00\x00\x01" or left[3] < 0xBB:
            return False  # the end code, or padding
        at += 6 + int.from_bytes(left[4:6], "big")
    return at > len(tail)
