"""Which samples make batch k: a function of (seed, k) alone, so that a resumed run sees what the unbroken one saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clcr_edge.data.sets import DataSet, collate
from clcr_edge.data.sets.sample import IntArray
from clcr_edge.errors import UsageError
from clcr_edge.train.absences import without_some
from clcr_edge.train.parallel import ALONE, Group
from clcr_edge.train.samples import Reader, Ready, labels_of


class SetBatches(Dataset[Ready]):
    """Batch k of one process. Every epoch is a new order of all rows, cut into even batches of at most `size` samples.

    Even, because a last batch of one sample would have no batch statistics. Process r takes every `world`-th sample of a batch.
    absent: how likely a modality of a sample is taken away. Raises `UsageError` where a batch cannot give each process two
    samples.
    """

    def __init__(
        self, dataset: DataSet, rows: IntArray, reader: Reader, seed: int, size: int, group: Group = ALONE, absent: float = 0.0
    ) -> None:
        self.dataset, self.rows, self.reader, self.seed, self.absent = dataset, rows, reader, seed, absent
        self.rank, self.world = group.rank, group.world
        self.per_epoch = max(1, -(-len(rows) // size))
        if len(rows) // self.per_epoch < 2 * self.world:
            raise UsageError(
                f"{len(rows)} training samples in batches of {size} are fewer than two for each of {self.world} processes; "
                "use fewer processes or a larger batch"
            )

    def __len__(self) -> int:
        return 1 << 30

    def chosen(self, k: int) -> tuple[IntArray, IntArray]:
        """The rows of batch k: of all processes, and of this one."""
        epoch, place = divmod(k, self.per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        whole = np.array_split(order, self.per_epoch)[place]
        return whole, whole[self.rank :: self.world]

    def __getitem__(self, k: int) -> Ready:
        whole, mine = self.chosen(k)
        # Processes with more labels count more: the mean of the processes' gradients is then that of the whole batch.
        share = sum(labels_of(self.dataset, i) for i in mine.tolist()) / sum(labels_of(self.dataset, i) for i in whole.tolist())
        ready = self.reader(collate([self.dataset[i] for i in mine.tolist()]), share * self.world)
        if not self.absent:
            return ready
        rng = np.random.default_rng([self.seed, k, self.rank])
        return ready._replace(inputs=without_some(ready.inputs, self.absent, rng))

    def stream(self, workers: int, first: int, count: int) -> Iterator[Ready]:
        """Batches `first .. first + count - 1` in order, read ahead by worker processes if there are any."""
        if not workers:
            return (self[k] for k in range(first, first + count))
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, first + count),
            num_workers=workers,
            prefetch_factor=2,
            multiprocessing_context="fork",
            worker_init_fn=_one_thread,
        )
        return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
