"""A teacher of streams beside a student of streams: both answer for the same ticks, so every tick teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcr_edge.config import to_table
from clcr_edge.errors import UsageError
from clcr_edge.model.losses import Fused
from clcr_edge.model.teacher.network import Teacher, TeacherOutput
from clcr_edge.model.teacher.streams import stream_inputs, tick_spans
from clcr_edge.packets import Modality
from clcr_edge.train.batches import LabelledTicks
from clcr_edge.train.distil import Guide
from clcr_edge.train.loop import hash_seed
from clcr_edge.train.settings import DistilConfig
from clcr_edge.train.teacher_checkpoint import load_teacher


class StreamLesson:
    """A frozen teacher, how many ticks it pools for each answer, and what of it counts."""

    def __init__(self, teacher: Teacher, window: int, config: DistilConfig, name: str = "", left_out: str = "") -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.window, self.config, self.name, self.left_out = window, config, name, left_out
        self._guide: Guide | None = None

    @property
    def guide(self) -> Guide:
        """What counts of the teacher; `prepare` comes first."""
        assert self._guide is not None
        return self._guide

    def prepare(self, ranks: tuple[int, int], seed: int) -> nn.Module:
        """Make the maps from a student of these (shared, private) ranks, by the seed; they are trained with it."""
        torch.manual_seed(hash_seed(seed, 6))
        self._guide = Guide(self.teacher.config, tuple(m.key for m in Modality), ranks, self.config)
        return self.guide.maps

    @torch.no_grad()
    def answers(self, batch: LabelledTicks) -> TeacherOutput:
        """The teacher's output for the ticks that the student is asked about, in the same order."""
        spans = tick_spans(batch.ticks, batch.batch.vision.shape[1], self.window)
        answer: TeacherOutput = self.teacher(stream_inputs(batch.batch), spans)
        return answer

    def terms(self, batch: LabelledTicks, student: Fused) -> dict[str, Tensor]:
        """Distillation's terms for a batch of streams."""
        told = self.answers(batch)
        return self.guide.terms(student, told, told.asked.flatten())

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return self.guide.total(terms)

    def provenance(self) -> dict[str, Any]:
        """For the student's TOML."""
        return to_table(self.config) | {"teacher": self.name, "variant": self.teacher.config.variant}


def open_stream_lesson(folder: Path, config: DistilConfig) -> StreamLesson:
    """The digits teacher in a folder. Raises `UsageError` where it is a teacher of something else."""
    teacher, table = load_teacher(folder)
    training = table.get("training", {})
    if training.get("task") != "digits":
        raise UsageError(
            f"--data digits: the teacher in {folder} was trained on {training.get('data', 'something else')}; "
            "train one with clcr-edge train digits --teacher"
        )
    # Its name, not its path: what is written of the student travels with it.
    name, left_out = folder.resolve().name, str(training.get("left_out", ""))
    return StreamLesson(teacher, int(table["stream"]["window"]), config, name, left_out)
