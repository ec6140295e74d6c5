"""Trains a network on one of the data sets: the paper's recipe by default, with or without a teacher to learn from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcr_edge.config import to_table
from clcr_edge.data.sets import DataSet, load
from clcr_edge.data.sets.sample import IntArray
from clcr_edge.errors import DataError, OutputError, UsageError
from clcr_edge.model.student import parameter_count
from clcr_edge.model.teacher.config import TeacherConfig, teacher_to_table
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.model.teacher.objective import teacher_losses
from clcr_edge.train import curves
from clcr_edge.train.checkpoint import RESUME, resume_step
from clcr_edge.train.distil import Guide
from clcr_edge.train.identity import of_set, of_settings, of_weights
from clcr_edge.train.loop import METRICS, Schedule, fit, learned_state
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.parallel import ALONE, Group
from clcr_edge.train.samples import Reader, Ready, changed, network_for
from clcr_edge.train.set_batches import SetBatches
from clcr_edge.train.set_scores import merit, predict_rows, score_rows, splits_of
from clcr_edge.train.settings import Settings, TrainConfig, choice_from_table
from clcr_edge.train.teacher_checkpoint import (
    BEST,
    CONFIG,
    LAST,
    load_teacher,
    read_description,
    read_metadata,
    save_description,
    save_weights,
)

GROUPS = "seen-groups.json"
_PHASE = "train"


@dataclass(frozen=True)
class Lesson:
    """A teacher to learn from: its network, where it lies, and the tables of its teacher.toml."""

    teacher: Teacher
    folder: Path
    table: dict[str, Any]


def open_lesson(folder: Path, name: str) -> Lesson:
    """The teacher in a folder. Raises `UsageError` where it was trained on another data set."""
    teacher, table = load_teacher(folder)
    known = table.get("training", {}).get("data")
    if known != name:
        raise UsageError(f"--data {name}: the teacher in {folder} was trained on {known}; give --data {known}")
    return Lesson(teacher, folder, table)


def smaller(config: TeacherConfig) -> TeacherConfig:
    """The student that a teacher gets where no file says otherwise: every width and rank a quarter."""

    def quarter(value: int) -> int:
        return max(4, value // 4)

    modalities = tuple(
        (name, m if m.form == "text" else dataclasses.replace(m, width=quarter(m.width))) for name, m in config.modalities
    )
    shared, private = quarter(config.rank_shared), quarter(config.rank_private)
    return dataclasses.replace(
        config,
        modalities=modalities,
        width=max(quarter(config.width), shared + private),
        rank_shared=shared,
        rank_private=private,
        hidden=quarter(config.hidden),
        variant="full",
    )


def train_set(
    name: str, root: Path, out: Path, seed: int, settings: Settings, group: Group = ALONE, lesson: Lesson | None = None
) -> dict[str, Any]:
    """Train on a data set, resume where a killed run stopped, and fill `out` (see `clcr_edge.train.teacher_checkpoint`).

    Beside the checkpoints: metrics.jsonl, curves.svg, data-report.txt. With a lesson, the data (split, modalities) are those
    that its teacher was trained on, so that its test split stays unseen. Returns a summary. Raises `OutputError` where `out`
    holds a training that is over: the same command once more would throw its weights away.
    """
    keep_memory()
    _refuse_finished(out)
    recipe = settings.train
    choice = choice_from_table(lesson.table["data"]) if lesson else settings.data
    dataset = load(name, root, choice.options())
    splits = splits_of(dataset, choice)
    if not len(splits.get("train", ())):
        raise DataError(f"{name}: no training sample; see if --root is the right folder")
    if lesson:
        config = changed(smaller(lesson.teacher.config), settings.teacher)
        if tuple(lesson.teacher.config.outputs) != (dataset.classes or ("value",)):
            raise DataError(f"{name}: its classes are not those of the teacher in {lesson.folder}; give the same --root")
    else:
        config = network_for(dataset, choice.modalities, settings.teacher)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if group.device.type == "cuda":
        _repeatable()
    torch.manual_seed(seed)
    model = _Trained(Teacher(config))
    guide = None
    if lesson:
        ranks = (config.rank_shared, config.rank_private)
        guide = Guide(lesson.teacher.config, config.names, ranks, settings.distil)
        model.maps = guide.maps
        lesson.teacher.to(group.device).eval().requires_grad_(False)
    model.to(group.device)
    group.same_start(model)
    reader = Reader(config)
    batches = SetBatches(dataset, splits["train"], reader, seed, recipe.batch, group, recipe.absent)
    about = _about(name, seed, dataset, splits, recipe, choice_table := to_table(choice), settings, lesson)
    # Where it is computed and what is cached decide nothing.
    deciding = {
        "recipe": {k: v for k, v in about["recipe"].items() if k not in ("device", "workers", "threads")},
        "data": {k: v for k, v in choice_table.items() if k != "cache"},
    }
    taught = of_weights(lesson.teacher) if lesson else ""
    identity = of_settings(teacher_to_table(config), about | deciding, of_set(dataset), taught)
    unfinished = out / f"{_PHASE}.{RESUME}"
    if unfinished.is_file():
        resume_step(unfinished, identity)  # before anything of another run is written over
    if group.first:
        out.mkdir(parents=True, exist_ok=True)
        if not unfinished.is_file():
            for old in (BEST, LAST, curves.FILE):
                (out / old).unlink(missing_ok=True)
        (out / "data-report.txt").write_text(str(dataset.report) + "\n", "utf-8")
        known = {dataset.groups[i] for part in ("train", "val") for i in splits.get(part, ())}
        (out / GROUPS).write_text(json.dumps(sorted(known)), "utf-8")
        save_description(out, model.network, about)
    watch = partial(_watch, model.network, dataset, splits.get("val"), batches, recipe.batch, out, group)
    schedule = Schedule(
        steps=recipe.epochs * batches.per_epoch,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        average=1.0,
        clip=recipe.clip,
        save_every=batches.per_epoch,
        optimiser=recipe.optimiser,
        momentum=recipe.momentum,
        shape=recipe.schedule,
    )
    workers = recipe.workers if recipe.workers is not None else 2 * bool(dataset[int(splits["train"][0])].clip)
    loss = _loss(model, guide, lesson, settings, half_precision(recipe, group.device), group)
    fit(_PHASE, model, schedule, partial(batches.stream, workers), loss, out, seed, watch, batches.per_epoch, group, identity)
    best = read_metadata(out / BEST)
    summary = {
        "parameters": parameter_count(model.network),
        "train": len(splits["train"]),
        "val": len(splits.get("val", ())),
        "epochs": recipe.epochs,
        "best_epoch": int(best["epoch"]) if best else 0,
        "report": str(dataset.report).splitlines()[0],
    }
    if group.first:
        save_description(out, model.network, about | {"result": {k: v for k, v in summary.items() if k != "report"}})
        curves.draw_curves(out / METRICS, out / curves.FILE)
        unfinished.unlink(missing_ok=True)
    return summary


def _refuse_finished(out: Path) -> None:
    if not (out / CONFIG).is_file() or (out / f"{_PHASE}.{RESUME}").is_file():
        return
    _, table = read_description(out)
    if "result" in table:
        known = table.get("training", {})
        raise OutputError(
            f"{out}: holds the finished training of {known.get('data')} with seed {known.get('seed')}; "
            "name another --out, or remove that folder to train anew"
        )


class _Trained(nn.Module):
    """The network and, in distillation, the maps to its teacher's summaries: what one optimiser trains."""

    maps: nn.Module

    def __init__(self, network: Teacher) -> None:
        super().__init__()
        self.network = network


def half_precision(recipe: TrainConfig, device: torch.device) -> bool:
    """Whether the encoders run in bfloat16. Not float16: its range would need a scaled loss."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16"


def _loss(
    model: _Trained, guide: Guide | None, lesson: Lesson | None, settings: Settings, half: bool, group: Group
) -> Callable[[Ready, int], dict[str, Tensor]]:
    network = model.network

    def loss(batch: Ready, step: int) -> dict[str, Tensor]:
        model.train()
        batch = batch.to(group.device)
        with torch.autocast(group.device.type, torch.bfloat16, enabled=half):
            out = network(batch.inputs, batch.spans)
        terms = teacher_losses(out, batch.labels, network.config)
        found = {"total": terms.total, "task": terms.task, "intra": terms.intra, "inter": terms.inter}
        if guide and lesson:
            with torch.no_grad(), torch.autocast(group.device.type, torch.bfloat16, enabled=half):
                told = lesson.teacher(batch.inputs, batch.spans)
            learned = guide.terms(out, told, out.asked.flatten() & told.asked.flatten())
            found["total"] = terms.total + (guide.config.task - 1.0) * terms.task + guide.total(learned)
            found |= {f"distil_{k}": v for k, v in learned.items()}
        if network.config.task != "regression":
            known = batch.labels.flatten() >= 0
            right = out.aggregated.logits.argmax(dim=-1)[known] == batch.labels.flatten()[known]
            found["train_accuracy"] = right.float().mean()
        return {k: v * batch.share for k, v in found.items()}

    return loss


def _watch(
    network: Teacher,
    dataset: DataSet,
    rows: IntArray | None,
    batches: SetBatches,
    size: int,
    out: Path,
    group: Group,
    step: int,
) -> dict[str, float]:
    """The end of an epoch: score val, keep the last weights and, where they are, the best; draw the curves so far.

    Weights that are finite may still predict what is not: they are tried before they take the place of those that did not.
    """
    scores: dict[str, float] = {}
    weights = learned_state(network)
    about = {"step": str(step)}
    scored = rows is not None and len(rows) > 0
    asked = rows if rows is not None and scored else batches.rows[:size]
    predicted = predict_rows(network, dataset, asked, batches.reader, size, group)
    network.train()
    if group.first:
        save_weights(out / LAST, weights, about)
    if scored:
        found = score_rows(dataset, asked, predicted)
        value = merit(dataset, found)
        scores = {f"val_{k}": round(float(v), 5) for k, v in found.items() if v == v}
        # A resumed run may come past its own best again: the same weights, which are then left as they are.
        if group.first and value > float(read_metadata(out / BEST).get("merit", "-inf")):
            save_weights(out / BEST, weights, about | {"merit": repr(value), "epoch": str((step + 1) // batches.per_epoch)})
    if group.first:
        curves.draw_curves(out / METRICS, out / curves.FILE)
    return scores


def _about(
    name: str,
    seed: int,
    dataset: DataSet,
    splits: dict[str, IntArray],
    recipe: TrainConfig,
    choice: dict[str, Any],
    settings: Settings,
    lesson: Lesson | None,
) -> dict[str, Any]:
    training: dict[str, Any] = {
        "data": name,
        "seed": seed,
        "samples": {part: len(rows) for part, rows in splits.items()},
        "refused": len(dataset.report.refused),
    }
    about: dict[str, Any] = {
        "training": training,
        "recipe": {k: v for k, v in to_table(recipe).items() if v is not None},
        "data": choice,
    }
    if lesson:
        teacher = {"teacher": lesson.folder.resolve().name, "variant": lesson.teacher.config.variant}
        about["distil"] = to_table(settings.distil) | teacher
    return about


def _repeatable() -> None:
    """GPU kernels that give the same sums every time, where torch has them; it warns of those that it has not."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
