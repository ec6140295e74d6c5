"""Run under torchrun by test_train_parallel.py: torchrun --nproc-per-node 2 two_processes.py ROOT OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clcr_edge.data.sets import load
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.model.teacher.objective import teacher_losses
from clcr_edge.train.loop import Schedule, fit
from clcr_edge.train.parallel import Group, training_group
from clcr_edge.train.samples import Reader, Ready, network_for
from clcr_edge.train.set_batches import SetBatches

SIZES = {"width": 12, "rank_shared": 5, "rank_private": 5, "hidden": 8}
STEPS = 6


class Plain(nn.Module):
    """Classes of utterances straight from the text: no batch statistics, so the processes' work adds up exactly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read = nn.Linear(4, 2)
        self.unused = nn.Parameter(torch.ones(3, 3))  # no batch reads it: nothing may change it, weight decay neither

    def loss(self, batch: Ready) -> Tensor:
        text = batch.inputs["language"]
        return nn.functional.cross_entropy(self.read(text.values[text.mask]), batch.labels[batch.labels >= 0])


def train_plain(root: Path, out: Path, group: Group) -> tuple[dict[str, Tensor], list[str]]:
    """SGD as the paper has it; also the names of the samples that this process saw."""
    data = load("mosi-utterance", root)
    model = Plain()
    seen: list[str] = []
    batches = SetBatches(data, data.split("train"), Reader(network_for(data, (), SIZES)), 3, 6, group)

    def loss(batch: Ready, step: int) -> dict[str, Tensor]:
        seen.extend(batch.names)
        return {"total": model.loss(batch) * batch.share}

    out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(STEPS, 0.1, 0.01, average=1.0, clip=0.5, save_every=3, optimiser="sgd", shape="constant")
    fit("plain", model, schedule, lambda first, count: batches.stream(0, first, count), loss, out, 3, group=group)
    return model.state_dict(), seen


def train_teacher(root: Path, out: Path, group: Group) -> dict[str, Tensor]:
    """The whole network, with dropout and batch statistics; processes begin with different weights."""
    data = load("mosi-utterance", root)
    torch.manual_seed(group.rank)
    model = Teacher(network_for(data, (), SIZES))
    group.same_start(model)
    batches = SetBatches(data, data.split("train"), Reader(model.config), 3, 6, group)

    def loss(batch: Ready, step: int) -> dict[str, Tensor]:
        return {"total": teacher_losses(model(batch.inputs, batch.spans), batch.labels, model.config).total * batch.share}

    schedule = Schedule(STEPS, 0.01, average=1.0, save_every=3)
    fit("teacher", model, schedule, lambda first, count: batches.stream(0, first, count), loss, out, 3, group=group)
    return model.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    with training_group("cpu") as group:
        plain, seen = train_plain(root, out / "together", group)
        teacher = train_teacher(root, out / "together", group)
        (out / f"seen{group.rank}.json").write_text(json.dumps(seen))
        save_file(plain, out / f"plain{group.rank}.safetensors")
        save_file({k: v.clone().contiguous() for k, v in teacher.items()}, out / f"teacher{group.rank}.safetensors")
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    (out / f"threads{group.rank}.json").write_text(json.dumps(threads))
