"""Quantisation-aware distillation: a student learns to be in INT8 what it is in fp32. Its teacher is itself, before.

Both look at the same ticks of the same streams. The encoders of the one that learns compute in fake INT8, with the ranges that
`export --int8` finds for the teacher; what it gives is an ordinary checkpoint, which `export --int8` calibrates anew.
"""

from __future__ import annotations

import copy
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcr_edge.calibration.sets import CalibrationSet, own_sets
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.export.graph import export_step
from clcr_edge.export.quantised import calibrated
from clcr_edge.model.losses import Fused, student_losses
from clcr_edge.model.student import parameter_count
from clcr_edge.train.batches import LabelledTicks, StreamBatches, batches_from, collate
from clcr_edge.train.checkpoint import RESUME, WEIGHTS, load_student, resume_step, save_student
from clcr_edge.train.digits import Recipe, digits_material
from clcr_edge.train.distil import level_weight_loss, logit_loss, participation_loss, summary_loss
from clcr_edge.train.fake_quant import Int8Student
from clcr_edge.train.identity import of_settings
from clcr_edge.train.loop import METRICS, Schedule, fit
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.settings import DistilConfig

RECIPE = Recipe(steps=200, streams=4, lr=2e-4)
_PHASE = "int8"


def same_terms(student: Fused, teacher: Fused, config: DistilConfig) -> dict[str, Tensor]:
    """Distillation's terms between two networks of one shape, before their weights. No maps: their coordinates are the same."""
    s, t = student.aggregated, teacher.aggregated
    both = student.exchanged.there & teacher.exchanged.there

    def alike(made: Tensor, told: Tensor) -> Tensor:
        eye = torch.eye(made.shape[-1]).expand(*made.shape[1:], made.shape[-1])
        return summary_loss(made, told, both, eye)

    return {
        "logits": logit_loss(s.logits, t.logits, config.temperature),
        "shared": alike(s.shared, t.shared),
        "private": alike(s.private, t.private),
        "level_weights": level_weight_loss(s.level_weights, t.level_weights, both.any(dim=2).all(dim=1)),
        "participation": participation_loss(student.exchanged.participation, teacher.exchanged.participation, both),
    }


def distil_int8(
    source: Path,
    root: Path,
    out: Path,
    seed: int,
    config: DistilConfig,
    recipe: Recipe = RECIPE,
    calibration: CalibrationSet | None = None,
) -> dict[str, Any]:
    """Train the student in `source` for INT8 and write it to `out`; resumes where a killed run stopped. Returns a summary.

    root: as for its training; the speaker that it never heard stays unheard. calibration: what the ranges are found on; None:
    the project's own streams.
    """
    keep_memory()
    torch.set_num_threads(recipe.threads)
    teacher, provenance = load_student(source)
    digest = hashlib.sha256((source / WEIGHTS).read_bytes()).hexdigest()
    material = digits_material(root, provenance.get("left_out") or None)
    identity = of_settings(digest, material.identity(seed, recipe), vars(config))
    if (unfinished := out / f"{_PHASE}.{RESUME}").is_file():
        resume_step(unfinished, identity)  # another run's is refused before the minutes of calibration
    tick = teacher.config.tick
    found = calibrated(
        export_step(teacher), teacher.config, calibration or own_sets()[0], ["int8"], (), 0, False, lambda *_: None
    )
    model = Int8Student(copy.deepcopy(teacher), found.sites, found.ranges["int8"])
    model.student.frame_share = recipe.frame_share
    teacher.requires_grad_(False)
    weights = {"logits": config.logits, "shared": config.shared, "private": config.private}
    weights |= {"level_weights": config.level_weights, "participation": config.participation}

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        model.train()
        made = model.student(batch.batch, batch.ticks)
        with torch.no_grad():
            told = teacher(batch.batch, batch.ticks)
        terms = student_losses(made, batch.labels.flatten())
        learned = same_terms(made, told, config)
        total = config.task * terms.task + recipe.intra * terms.intra + recipe.inter * terms.inter
        total = total + torch.stack([weights[k] * v for k, v in learned.items()]).sum()
        agree = (made.aggregated.logits.argmax(-1) == told.aggregated.logits.argmax(-1)).float().mean()
        return {"total": total, "task": terms.task, "agreement": agree, **{f"distil_{k}": v for k, v in learned.items()}}

    watched = material.watched()

    @torch.no_grad()
    def watch(step: int) -> dict[str, float]:
        model.eval()
        batch = collate(watched, tick)
        labels = torch.stack([torch.from_numpy(s.labels) for s in watched])
        ticks = torch.arange(0, labels.shape[1], 5).expand(len(watched), -1)
        guess = model.student(batch, ticks).aggregated.logits.argmax(-1)
        return {"val_tick_accuracy": round(float((guess == labels[:, ::5].flatten()).float().mean()), 4)}

    out.mkdir(parents=True, exist_ok=True)
    batches = StreamBatches(material.every, tick, seed, recipe.streams, recipe.seconds, recipe.predict)
    schedule = Schedule(recipe.steps, recipe.lr, weight_decay=0.0, average=min(50.0, recipe.steps / 2))
    average = fit(
        _PHASE, model, schedule, partial(batches_from, batches), loss, out, seed, watch,
        watch_every=min(100, recipe.steps), identity=identity,
    )  # fmt: skip
    model.load_state_dict(average)
    student = model.plain()
    lesson = {"teacher": source.resolve().name, "teacher_sha256": digest, "recipe": vars(recipe), "weights": vars(config)}
    save_student(out, student.state_dict(), student.config, provenance | {"distilled_int8": lesson})
    material.save_seen(out)
    if (source / FILE).is_file():  # the teacher's training may have seen more
        Seen.load(out / FILE).joined(Seen.load(source / FILE)).save(out / FILE)
    for leftover in out.glob(f"*.{RESUME}"):
        leftover.unlink()
    last = json.loads((out / METRICS).read_text("utf-8").splitlines()[-1])
    return {"out": str(out), "parameters": parameter_count(student), "last": last}
