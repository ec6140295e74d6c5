"""Scores a trained teacher: on a data set's test split, or on the digits streams that the student is scored on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.sets import load
from clcr_edge.data.streams import Stream
from clcr_edge.errors import DataError, UsageError
from clcr_edge.model.student import NEVER
from clcr_edge.train.batches import collate
from clcr_edge.train.digits_teacher import predict_ticks
from clcr_edge.train.evaluate import Material, event_stream
from clcr_edge.train.field_metrics import Scores
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.metrics import IntArray, Metrics, Scorer
from clcr_edge.train.parallel import training_group
from clcr_edge.train.samples import Reader
from clcr_edge.train.set_scores import LEAKS, predict_rows, score_rows, splits_of
from clcr_edge.train.set_training import GROUPS
from clcr_edge.train.settings import choice_from_table
from clcr_edge.train.teacher_checkpoint import load_teacher


def judge_set(
    folder: Path, name: str, root: Path, part: str, which: str | None, without: frozenset[str] = frozenset()
) -> tuple[Scores, dict[str, Any]]:
    """Scores of the checkpoint in a folder on a split of its data set, and what they are scores of.

    which: "best", "last" or None for the best where there is one. without: modalities to take away from every sample. Raises
    `UsageError` for another data set than it was trained on, and `DataError` where the split holds speakers or videos of its
    training (unless the published split does that).
    """
    keep_memory()
    teacher, table = load_teacher(folder, which)
    training = table.get("training", {})
    if training.get("data") != name:
        raise UsageError(f"--data {name}: {folder} was trained on {training.get('data')}; give --data {training.get('data')}")
    if without - set(teacher.config.names) or without == set(teacher.config.names):
        read = ", ".join(teacher.config.names)
        raise UsageError(f"--without {', '.join(sorted(without))}: {folder} reads {read}; take away some of these, not all")
    choice = choice_from_table(table["data"])
    dataset = load(name, root, choice.options())
    if (dataset.classes or ("value",)) != teacher.config.outputs:
        raise DataError(f"{name}: its classes are not those that {folder} was trained on; give the --root of its training")
    splits = splits_of(dataset, choice)
    if part not in splits:
        raise UsageError(f"--split {part}: {name} has {', '.join(splits)}")
    rows = splits[part]
    if part == "test" and choice.protocol == "strict" and (folder / GROUPS).is_file():
        known = set(json.loads((folder / GROUPS).read_text("utf-8")))
        crossing = sorted({dataset.groups[i] for i in rows.tolist()} & known)
        if crossing:
            raise DataError(f"{name}: {crossing[0]!r} is in the test split and was trained on; give the --root of its training")
    with training_group() as group:
        teacher.to(group.device)
        predicted = predict_rows(teacher, dataset, rows, Reader(teacher.config), 32, group, without)
    about: dict[str, Any] = {
        "model": str(folder),
        "data": name,
        "split": part,
        "protocol": choice.protocol,
        "variant": teacher.config.variant,
        "without": sorted(without),
        "seed": training.get("seed"),
        "report": str(dataset.report).splitlines()[0],
    }
    if choice.folds:
        about["fold"] = f"{choice.fold} of {choice.folds}"
    if name in LEAKS:
        about["warning"] = LEAKS[name]
    return score_rows(dataset, rows, predicted), about


class StreamTeacher:
    """The digits teacher in a folder, to label streams with. Raises `UsageError` for a teacher of something else."""

    def __init__(self, folder: Path) -> None:
        self._teacher, table = load_teacher(folder)
        training = table.get("training", {})
        if training.get("task") != "digits":
            known = training.get("task") or training.get("data")
            raise UsageError(f"--data digits: {folder} was trained on {known}; give --data {known}")
        self._window = int(table["stream"]["window"])

    def predict(self, stream: Stream, without: frozenset[str] = frozenset()) -> IntArray:
        """The label of every tick, int64 `[T]`. without: keys of the modalities to take away."""
        tick = TickConfig()
        batch = collate([stream], tick)
        if "vision" in without:
            batch.vision = torch.zeros_like(batch.vision)
        if "audio" in without:
            batch.audio = torch.zeros_like(batch.audio)
        if "language" in without:
            batch.word_tick = torch.full_like(batch.word_tick, NEVER)
        said: IntArray = predict_ticks(self._teacher, batch, self._window, tick.rate_hz)[0].numpy()
        return said


def judge_stream_teacher(
    folder: Path,
    material: Material,
    conditions: Conditions,
    events: int,
    seed: int,
    without: frozenset[str],
    tell: Callable[[int], None] = lambda events: None,
) -> Metrics:
    """Scores over at least `events` events, on the streams on which `Evaluation.events` scores a student.

    Raises `UsageError` for a teacher of something else.
    """
    keep_memory()
    teacher = StreamTeacher(folder)
    bank, _ = material.bank()
    scorer, found, index = Scorer(NONE), 0, 0
    while found < events:
        stream = event_stream(conditions, seed, bank, index)
        scorer.add(stream.labels, teacher.predict(stream, without), stream.events)
        found += len(stream.events)
        index += 1
        tell(found)
    return scorer.result()


def plain(scores: Scores) -> dict[str, float | int | None]:
    """Scores for JSON, which knows no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in scores.items()}
