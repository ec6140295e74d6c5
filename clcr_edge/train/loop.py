"""The training loop: steps, a running average of the weights, checkpoints, resume, metrics, progress.

Everything random is drawn from (seed, step), so a run that was killed and resumed goes where the unbroken one would have gone
(exactly so in its data and schedule; torch's own CPU kernels are deterministic for a given number of threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from clcr_edge.errors import ClcrEdgeError
from clcr_edge.train.checkpoint import RESUME, load_tensors, resume_step, save_tensors


@dataclass(frozen=True)
class Schedule:
    """One phase of training. lr: peak of a one-cycle schedule; average: time constant of the weights' running average, in
    steps; save_every: steps between resume files."""

    steps: int
    lr: float
    weight_decay: float = 0.02
    average: float = 150.0
    clip: float = 2.0
    save_every: int = 100

    def lr_at(self, step: int) -> float:
        """Linear warm-up over the first twentieth, then a cosine to a hundredth."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.lr * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


def fit(
    name: str,
    model: nn.Module,
    schedule: Schedule,
    batches: Callable[[int, int], Iterator[Any]],
    loss: Callable[[Any, int], dict[str, Tensor]],
    out: Path,
    seed: int,
    watch: Callable[[int], dict[str, float]] | None = None,
    watch_every: int = 0,
) -> dict[str, Tensor]:
    """Run one phase; returns the averaged weights (a state dict).

    batches(first, count) yields batches by number; loss(batch, step) gives named scalars, "total" among them. Metrics go to
    `out/metrics.jsonl`. A resume file of this phase is continued from; it is kept until the caller removes it.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    model.train()
    optimiser = torch.optim.AdamW(decay_groups(model, schedule.weight_decay), lr=schedule.lr, betas=(0.9, 0.98))
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    path = out / f"{name}.{RESUME}"
    first = 0
    if path.is_file():
        first = resume_step(path)
        _restore(path, model, average, optimiser, params)
    log = (out / "metrics.jsonl").open("a", encoding="utf-8")
    begun = time.monotonic()
    with _progress() as progress, log:
        bar = progress.add_task(name, total=schedule.steps, completed=first, note="")
        for step, batch in enumerate(batches(first, schedule.steps - first), start=first):
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr_at(step)
            torch.manual_seed(hash_seed(seed, step))  # dropout
            terms = loss(batch, step)
            total = terms["total"]
            if not torch.isfinite(total):
                raise ClcrEdgeError(
                    f"{name}: the loss became {total.item()} at step {step}; the last good state is in {path} "
                    "(lower the learning rate and run the same command again)"
                )
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(params, schedule.clip)
            optimiser.step()
            _blend(average, model, 1.0 / min(step + 1, schedule.average))
            record = {k: round(v.item(), 5) for k, v in terms.items()}
            if watch and watch_every and (step + 1) % watch_every == 0:
                record |= watch(step)
            record |= {"phase": name, "step": step, "seconds": round(time.monotonic() - begun, 1)}  # type: ignore[dict-item]
            if (step + 1) % 10 == 0 or step + 1 == schedule.steps or "val_tick_accuracy" in record:
                log.write(json.dumps(record) + "\n")
                log.flush()
            progress.update(bar, advance=1, note=f"loss {record['total']:.3f}")
            if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
                _save(path, model, average, optimiser, params, step + 1)
    return average


def decay_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay on matrices only.

    Never on a parametrised one: torch's Householder form keeps signs of +-1 on its diagonal and truncates them to integers, so
    the first decayed step (0.99999 -> 0) turns the whole basis to zero without an error.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (decayed if p.ndim >= 2 and "parametrizations" not in name else free).append(p)
    return [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


def hash_seed(*parts: int) -> int:
    """Mix numbers into one 31-bit seed, the same on every machine."""
    mixed = 2_166_136_261
    for part in parts:
        for byte in int(part).to_bytes(8, "little", signed=True):
            mixed = ((mixed ^ byte) * 16_777_619) & 0xFFFFFFFF
    return mixed & 0x7FFFFFFF


def _blend(average: dict[str, Tensor], model: nn.Module, weight: float) -> None:
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, weight)
            else:
                average[key].copy_(value)


def _save(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.AdamW, params: Sequence[Tensor], step: int
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, p in enumerate(params):
        for key, value in optimiser.state[p].items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    save_tensors(path, tensors, {"step": str(step)})


def _restore(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.AdamW, params: Sequence[Tensor]
) -> None:
    tensors = load_tensors(path)
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for key in average:
            average[key].copy_(tensors[f"average.{key}"])
        for index, p in enumerate(params):
            state = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.startswith(f"optimiser.{index}.")}
            if state:
                optimiser.state[p] = state
    except (KeyError, RuntimeError) as e:
        raise ClcrEdgeError(f"{path}: belongs to another configuration ({str(e)[:120]}); remove it to start anew") from None


def _progress() -> Progress:
    from rich.console import Console

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
