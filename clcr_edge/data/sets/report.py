"""What a loader read, what it refused and why: nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass

from clcr_edge.errors import DataError


@dataclass(frozen=True)
class Remark:
    """One line about one sample or file. name: which; reason: what is the matter, in words for a person."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """The outcome of reading one data set.

    listed: samples that the lists or the folder name. read: those that can be used. refused: the rest, each with its reason.
    notes: what was read but deserves to be known (no sound, a count other than the published one).
    """

    name: str
    listed: int
    read: int
    refused: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()

    def __post_init__(self) -> None:
        # A sample that is neither read nor refused was lost on the way: our mistake, not the user's.
        assert self.listed == self.read + len(self.refused), (self.listed, self.read, len(self.refused))
        if not self.listed:
            raise DataError(f"{self.name}: found no sample at all; see if --root is the right folder")
        if not self.read:
            why = f"; the first: {self.refused[0]}" if self.refused else ""
            raise DataError(f"{self.name}: none of {self.listed} samples can be read{why}; see if --root is the right folder")

    def __str__(self) -> str:
        counts = f"{self.read} of {self.listed} samples read, {len(self.refused)} refused, {len(self.notes)} notes"
        lines = [f"{self.name}: {counts}"]
        lines += [f"  refused {remark}" for remark in self.refused]
        lines += [f"  note {remark}" for remark in self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The same as plain values: name, listed, read, refused and notes as lists of [name, reason]."""
        return {
            "name": self.name,
            "listed": self.listed,
            "read": self.read,
            "refused": [[r.name, r.reason] for r in self.refused],
            "notes": [[r.name, r.reason] for r in self.notes],
        }
