"""How a data set is to be read; one object for all sets, each reads what concerns it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clcr_edge.data.sets.cache import Progress
from clcr_edge.data.sets.dataset import Protocol
from clcr_edge.data.sets.decode import MediaConfig
from clcr_edge.errors import ConfigError


def _workers() -> int:
    return min(os.cpu_count() or 1, 8)


@dataclass(frozen=True)
class Options:
    """protocol: "strict" (default) lets no speaker and no video into two splits; "published" takes the literature's split as it
    is, for comparable figures, and the data set's `crossing` says who is in two.
    media, cache, workers, progress: for sets of media files. cache None is `.clcr-edge-cache` below the root.
    variant: which MMSA file. split_number: which of UCF101's three. table: the `clips` file. task: of `clips`.
    """

    protocol: Protocol = "strict"
    media: MediaConfig = field(default_factory=MediaConfig)
    cache: Path | None = None
    workers: int = field(default_factory=_workers)
    progress: Progress | None = field(default=None, compare=False, repr=False)
    variant: Literal["aligned", "unaligned"] = "unaligned"
    split_number: int = 1
    table: str = "clips.csv"
    task: Literal["classification", "regression"] = "classification"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("protocol", self.protocol, ("strict", "published")),
            ("variant", self.variant, ("aligned", "unaligned")),
            ("split_number", self.split_number, (1, 2, 3)),
            ("task", self.task, ("classification", "regression")),
        ):
            if value not in allowed:
                raise ConfigError(f"{name} = {value!r}: choose one of {', '.join(map(str, allowed))}")
        if not 1 <= self.workers <= 256:
            raise ConfigError(f"workers = {self.workers!r}: choose 1 to 256")
