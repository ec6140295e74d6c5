"""A data set: samples read on demand, what their labels mean, and splits that no speaker and no video crosses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from clcr_edge.data.sets.report import Report
from clcr_edge.data.sets.sample import IntArray, Sample, Task
from clcr_edge.errors import DataError
from clcr_edge.packets import Modality

Protocol = Literal["strict", "published"]
# One fixed order for everybody: a split must not depend on a run's seed, or runs would test on others' training data.
_SPLIT_SEED = 2602_19605


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples `0..len - 1`, fetched by `dataset[i]`.

    names, groups: one per sample; the names are unique. targets: `[n]` classes or numbers; for `Task.SEGMENTS` a tuple of
    int64 `[S_i]`. classes: names of the classes, empty for regression. splits: indices by name ("train", "val", "test").
    modalities: which can occur. protocol: "strict" lets no group into two splits, and that is checked here; "published" is the
    split of the literature as it is, whose crossing groups `crossing` names. report: what reading found.
    Raises `DataError` where names repeat, a split is no subset, or a group crosses splits under "strict".
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    targets: IntArray | np.ndarray[tuple[int], np.dtype[np.float32]] | tuple[IntArray, ...]
    splits: Mapping[str, IntArray]
    modalities: frozenset[Modality]
    report: Report
    fetch: Callable[[int], Sample] = field(repr=False)
    protocol: Protocol = "strict"

    def __post_init__(self) -> None:
        count = len(self.names)
        assert count == len(self.groups) == len(self.targets) == self.report.read
        if len(set(self.names)) != count:
            raise DataError(f"{self.name}: a sample's name occurs twice; every sample needs a name of its own")
        seen = np.zeros(count, bool)
        for part, rows in self.splits.items():
            if len(rows) and (rows.min() < 0 or rows.max() >= count):
                raise DataError(f"{self.name}: split {part!r} names sample {int(rows.max())} of {count}; make the split again")
            if seen[rows].any() or len(np.unique(rows)) != len(rows):
                raise DataError(f"{self.name}: split {part!r} holds a sample that is there already; make the split again")
            seen[rows] = True
        if self.protocol == "strict" and self.crossing:
            raise DataError(f"{self.name}: {self.crossing[0]!r} is in two splits; give each speaker and video to one")

    @property
    def crossing(self) -> tuple[str, ...]:
        """The groups that are in more than one split, sorted."""
        parts = [{self.groups[i] for i in rows} for rows in self.splits.values()]
        twice = {g for at, part in enumerate(parts) for other in parts[at + 1 :] for g in part & other}
        return tuple(sorted(twice))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.fetch(index % len(self))

    def __iter__(self) -> Iterator[Sample]:
        return (self.fetch(index) for index in range(len(self)))

    def split(self, part: str) -> IntArray:
        """The indices of one split; `DataError` if there is none of that name."""
        if part not in self.splits:
            raise DataError(f"{self.name} has no split {part!r}; choose {', '.join(self.splits)}")
        return self.splits[part]


def group_order(groups: Sequence[str]) -> list[str]:
    """The different groups in a fixed shuffled order that depends on nothing but their names."""
    names = sorted(set(groups))
    return [names[i] for i in np.random.default_rng(_SPLIT_SEED).permutation(len(names))]


def split_by_group(groups: Sequence[str], shares: Mapping[str, float]) -> dict[str, IntArray]:
    """Cut samples into parts of about these shares of the groups; no group is in two parts. The rest falls to the first part.

    groups: one per sample. shares: part -> share, 0..1, summing to at most 1. The cut depends on the groups' names only.
    """
    order, parts = group_order(groups), list(shares)
    owner: dict[str, str] = {}
    start = 0
    for part in parts[1:]:
        count = round(shares[part] * len(order))
        # A part that was asked for is not empty if that can be helped.
        count = max(count, 1) if shares[part] > 0 and len(order) - start > len(parts) - 1 else count
        owner.update(dict.fromkeys(order[start : start + count], part))
        start += count
    return {part: np.asarray([i for i, g in enumerate(groups) if owner.get(g, parts[0]) == part], np.int64) for part in parts}


def folds(dataset: DataSet, count: int, part: str | None = None) -> list[tuple[IntArray, IntArray]]:
    """`count` pairs (train, test) of sample indices: every sample is tested exactly once, no group is on both sides of a pair.

    Groups are dealt out from the largest down, each to the fold with the fewest steps so far, so that folds weigh alike.
    part: only the samples of that split. The folds depend on the groups' names and sizes only. Raises `DataError` for fewer
    groups than folds.
    """
    rows = np.arange(len(dataset)) if part is None else dataset.split(part)
    sizes: dict[str, int] = {}
    for i in rows.tolist():
        target = dataset.targets[i]
        sizes[dataset.groups[i]] = sizes.get(dataset.groups[i], 0) + (len(target) if isinstance(target, np.ndarray) else 1)
    if not 2 <= count <= len(sizes):
        raise DataError(f"{dataset.name}: {count} folds of {len(sizes)} speakers or videos; choose 2 to {len(sizes)}")
    load = [0] * count
    fold_of: dict[str, int] = {}
    for group in sorted(group_order(list(sizes)), key=lambda g: -sizes[g]):  # stable: equal sizes stay shuffled
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    place = np.asarray([fold_of[dataset.groups[i]] for i in rows.tolist()])
    return [(rows[place != k], rows[place == k]) for k in range(count)]
