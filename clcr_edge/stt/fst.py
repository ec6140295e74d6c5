"""OpenFst files ("vector", "standard" arcs) written and read with struct: no OpenFst needed.

Layout: magic, "vector", "standard", version 2, flags 0, properties, start, number of states, number of arcs; then per
state its final cost (infinite: not final), its number of arcs, and per arc input label, output label, cost, next state.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clcr_edge.errors import SpeechModelError

_MAGIC = 2125659606
_PROPERTIES = 3  # expanded, mutable: claims nothing about the contents


@dataclass(frozen=True)
class Arc:
    """From a state: consume `label` (0: nothing), emit `word` (0: nothing), at `cost` (-log), go to `next`."""

    label: int
    word: int
    cost: float
    next: int


@dataclass
class Fst:
    """States are numbered from 0 in the order they were added; state 0 is the start."""

    arcs: list[list[Arc]] = field(default_factory=list)
    finals: list[float] = field(default_factory=list)

    def add_state(self, final: float = math.inf) -> int:
        """Add a state; `final` is the cost of ending there."""
        self.arcs.append([])
        self.finals.append(final)
        return len(self.arcs) - 1

    def to_bytes(self) -> bytes:
        """The file's contents; the same for the same states and arcs."""
        out = bytearray(struct.pack("<i", _MAGIC))
        for name in (b"vector", b"standard"):
            out += struct.pack("<i", len(name)) + name
        total = sum(map(len, self.arcs))
        out += struct.pack("<iiQqqq", 2, 0, _PROPERTIES, 0, len(self.arcs), total)
        for arcs, final in zip(self.arcs, self.finals, strict=True):
            out += struct.pack("<fq", final, len(arcs))
            for arc in arcs:
                out += struct.pack("<iifi", arc.label, arc.word, arc.cost, arc.next)
        return bytes(out)


def read_fst(path: Path) -> Fst:
    """Read what `Fst.to_bytes` writes (and what OpenFst writes of the same type). SpeechModelError for anything else."""
    data = path.read_bytes()

    def bad(what: str) -> SpeechModelError:
        return SpeechModelError(f"{path} is not a vector FST with standard arcs: {what}")

    at = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        size = struct.calcsize(form)
        if at + size > len(data):
            raise bad(f"it ends at byte {len(data)}")
        values = struct.unpack_from(form, data, at)
        at += size
        return values

    if take("<i")[0] != _MAGIC:
        raise bad("wrong magic number")
    for expected in (b"vector", b"standard"):
        (length,) = take("<i")
        if data[at : at + length] != expected:
            raise bad(f"no {expected.decode()!r} in its header")
        at += length
    version, flags, _, start, n_states, _ = take("<iiQqqq")
    if version != 2 or flags & 3 or start != 0:
        raise bad(f"version {version}, flags {flags}, start {start}; expected 2, 0, 0")
    fst = Fst()
    for _ in range(n_states):
        final, n_arcs = take("<fq")
        state = fst.add_state(final)
        for _ in range(n_arcs):
            label, word, cost, following = take("<iifi")
            fst.arcs[state].append(Arc(label, word, cost, following))
    if at != len(data):
        raise bad(f"{len(data) - at} bytes too many")
    return fst
