"""Several processes, GPUs or machines that train one network: `torchrun ... -m clcr_edge train NAME ...`.

Every process sees its own share of each batch. After each backward pass the gradients are averaged in one flat all-reduce, and
the running statistics with them, so all processes hold the same numbers after every step. (No DistributedDataParallel: it
averages in pieces while the backward pass runs, which is faster on many GPUs, but it must be told which parameters a batch
leaves out, and it lets the running statistics of the processes drift apart.)
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clcr_edge.errors import ClcrEdgeError, UsageError


@dataclass(frozen=True)
class Group:
    """This process among those that train together. rank: 0 .. world - 1; 0 alone writes files. device: where it computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes; the tensor itself where there is one."""
        return self.sum(values) / self.world if self.world > 1 else values

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes; the tensor itself where there is one."""
        if self.world == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def agree(self, value: int, what: str, remedy: str) -> None:
        """Raise `ClcrEdgeError` in every process unless all of them hold the same number."""
        if self.world == 1:
            return
        mine = torch.tensor([value, -value], device=self.device)
        dist.all_reduce(mine, dist.ReduceOp.MAX)
        highest, lowest = mine.tolist()
        if highest != -lowest:
            raise ClcrEdgeError(f"{what}: the processes disagree ({-lowest} and {highest}); {remedy}")

    @torch.no_grad()
    def same_start(self, model: nn.Module) -> None:
        """Give every process the weights and statistics of process 0."""
        if self.world > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    @torch.no_grad()
    def average_gradients(self, params: Sequence[Tensor], model: nn.Module) -> None:
        """The mean gradient in every process, and the mean of the running statistics.

        A parameter that no process used keeps no gradient (weight decay and momentum then pass it by, as in one process).
        """
        if self.world == 1:
            return
        statistics = [b for b in model.buffers() if b.is_floating_point()]
        used = torch.tensor([float(p.grad is not None) for p in params], device=self.device)
        parts = [used, *((p.grad if p.grad is not None else torch.zeros_like(p)).flatten().float() for p in params)]
        flat = torch.cat([*parts, *(b.flatten().float() for b in statistics)])
        dist.all_reduce(flat)
        sizes = [len(params), *(p.numel() for p in params), *(b.numel() for b in statistics)]
        pieces = iter(torch.split(flat, sizes))
        by_any = next(pieces).tolist()
        for p, count in zip(params, by_any, strict=True):
            mean = next(pieces).view_as(p).to(p.dtype) / self.world
            p.grad = mean if count else None
        for b in statistics:
            b.copy_(next(pieces).view_as(b) / self.world)


ALONE = Group()


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def training_group(device: str = "auto") -> Iterator[Group]:
    """The group that torchrun's environment describes; one process without it.

    device: "auto" (a GPU where there is one), "cpu" or "cuda". NCCL between GPUs, gloo between CPUs. `UsageError` where "cuda"
    is asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device = 'cuda': torch finds no GPU here; use device = 'auto' or 'cpu'")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if not launched():
        yield Group(device=chosen)
        return
    # torch imports this module when an optimiser is first made. Its functions then keep the group of that moment as a default
    # argument, which outlives destroy_process_group; gloo's threads outlive the interpreter, and now and then that aborts.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()
