"""The training loop: steps, a running average of the weights, checkpoints, resume, metrics, progress.

Everything random is drawn from (seed, step), so a run that was killed and resumed goes where the unbroken one would have gone
(exactly so in its data and schedule; torch's own CPU kernels are deterministic for a given number of threads).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from clcr_edge.errors import ClcrEdgeError
from clcr_edge.train.checkpoint import RESUME, load_tensors, resume_step, save_tensors
from clcr_edge.train.parallel import ALONE, Group

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Schedule:
    """One phase of training. lr: of a constant schedule, or the peak of a one-cycle one; average: time constant of the weights'
    running average, in steps, 1 for none; clip: the largest norm of the gradient, 0 for any; save_every: steps between resume
    files. optimiser: "adamw" or "sgd" (with momentum)."""

    steps: int
    lr: float
    weight_decay: float = 0.02
    average: float = 150.0
    clip: float = 2.0
    save_every: int = 100
    optimiser: str = "adamw"
    momentum: float = 0.9
    shape: str = "one-cycle"

    def lr_at(self, step: int) -> float:
        """One-cycle: linear warm-up over the first twentieth, then a cosine to a hundredth."""
        if self.shape == "constant":
            return self.lr
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
    group: Group = ALONE,
    identity: str = "",
) -> dict[str, Tensor]:
    """Run one phase; returns the averaged weights (a state dict, without what is frozen).

    batches(first, count) yields batches by number; loss(batch, step) gives named scalars, "total" among them. Metrics go to
    `out/metrics.jsonl`. A resume file of this phase is continued from; it is kept until the caller removes it. group: the
    processes that train together, each with its part of every batch. identity: what a resume file must have been written for.
    Raises `ClcrEdgeError` where loss or gradient is not finite, before they touch weights or files.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    model.train()
    optimiser = _optimiser(model, schedule)
    average = {k: v.detach().clone() for k, v in learned_state(model).items()}
    path = out / f"{name}.{RESUME}"
    first = 0
    if path.is_file():
        first = resume_step(path, identity)
        _restore(path, model, average, optimiser, params)
    group.agree(first, f"{path}: the step to resume from", "OUT must be one folder that all machines see")
    if group.first:
        forget_records(out / METRICS, name, first)
    begun = time.monotonic()
    with _progress(group.first) as progress, _log(out / METRICS, group.first) as log:
        bar = progress.add_task(name, total=schedule.steps, completed=first, note="")
        for step, batch in enumerate(batches(first, schedule.steps - first), start=first):
            for settings in optimiser.param_groups:
                settings["lr"] = schedule.lr_at(step)
            torch.manual_seed(hash_seed(seed, step, *([group.rank] if group.rank else [])))  # dropout
            terms = loss(batch, step)
            total = terms["total"]
            told = _told(terms, group)
            # Of all processes: one that stopped alone would leave the others waiting.
            if not math.isfinite(told["total"]):
                raise _not_finite(name, "loss", told["total"], step, path)
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            group.average_gradients(params, model)
            norm = nn.utils.clip_grad_norm_(params, schedule.clip or math.inf)
            if not torch.isfinite(norm):
                raise _not_finite(name, "gradient", norm.item(), step, path)
            optimiser.step()
            _blend(average, model, 1.0 / min(step + 1, schedule.average))
            record: dict[str, Any] = {k: round(v, 5) for k, v in told.items()}
            watched = watch is not None and watch_every > 0 and (step + 1) % watch_every == 0
            if watched and watch is not None:
                record |= watch(step)
            record |= {"phase": name, "step": step, "seconds": round(time.monotonic() - begun, 1)}
            if (step + 1) % 10 == 0 or step + 1 == schedule.steps or watched:
                log.write(json.dumps(record) + "\n")
                log.flush()
            progress.update(bar, advance=1, note=f"loss {record['total']:.3f}")
            if group.first and ((step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps):
                _save(path, model, average, optimiser, params, step + 1, identity)
    return average


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters: they are somebody else's file, and do not change."""
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    return {k: v for k, v in model.state_dict().items() if k not in frozen}


def forget_records(path: Path, phase: str, step: int) -> None:
    """Take the records of a phase from `step` on out of a metrics file: they are about to be made again. A line that a kill
    cut short goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("phase") != phase or record.get("step", -1) < step:
            kept.append(line + "\n")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text("".join(kept), "utf-8")
    scratch.replace(path)


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    groups = decay_groups(model, schedule.weight_decay)
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum)
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98))


def _told(terms: dict[str, Tensor], group: Group) -> dict[str, float]:
    """The terms as numbers, over all processes."""
    if group.world == 1:
        return {k: v.item() for k, v in terms.items()}
    values = group.mean(torch.stack([v.detach().float() for v in terms.values()]))
    return dict(zip(terms, values.tolist(), strict=True))


def _not_finite(name: str, what: str, value: float, step: int, path: Path) -> ClcrEdgeError:
    # The same command would come to the same step, and a resume file goes on with the learning rate that it was written for.
    kept = (
        f"the last good state is in {path} (lower the learning rate, and name another folder or remove that file)"
        if path.is_file()
        else "no state had been kept yet (lower the learning rate)"
    )
    return ClcrEdgeError(f"{name}: the {what} became {value} at step {step}; {kept}")


@contextmanager
def _log(path: Path, wanted: bool) -> Iterator[TextIO]:
    with (path if wanted else Path(os.devnull)).open("a", encoding="utf-8") as log:
        yield log


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
        for key, value in learned_state(model).items():
            if value.is_floating_point():
                average[key].lerp_(value, weight)
            else:
                average[key].copy_(value)


def _save(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    params: Sequence[Tensor],
    step: int,
    identity: str,
) -> None:
    tensors = {f"model.{k}": v for k, v in learned_state(model).items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, p in enumerate(params):
        for key, value in optimiser.state[p].items():
            if value is not None:
                tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    save_tensors(path, tensors, {"step": str(step), "identity": identity})


def _restore(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, params: Sequence[Tensor]
) -> None:
    tensors = load_tensors(path)
    try:
        load_learned(model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for key in average:
            average[key].copy_(tensors[f"average.{key}"])
        for index, p in enumerate(params):
            state = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.startswith(f"optimiser.{index}.")}
            if state:
                # AdamW's count of steps stays on the CPU.
                optimiser.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in state.items()}
    except (KeyError, RuntimeError) as e:
        raise ClcrEdgeError(f"{path}: belongs to another configuration ({str(e)[:120]}); remove it to start anew") from None


def load_learned(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what `learned_state` gave. Raises `RuntimeError` or `KeyError` for anything that does not fit."""
    expected = learned_state(model)
    if set(expected) != set(state):
        raise KeyError(sorted(set(expected) ^ set(state))[0])
    model.load_state_dict(state, strict=False)


def _progress(wanted: bool = True) -> Progress:
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
        disable=not (wanted and console.is_terminal),
    )
