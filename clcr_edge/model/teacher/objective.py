"""The teacher's loss (arXiv 2602.19605, section "loss"): L = L_task + lambda_inter L_Inter + lambda_intra L_Intra."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clcr_edge.errors import DataError
from clcr_edge.model.inter_cad import Aggregated
from clcr_edge.model.intra_ced import Exchanged
from clcr_edge.model.losses import inter_loss, intra_loss, regression_loss, segment_loss, task_loss
from clcr_edge.model.teacher.config import TeacherConfig
from clcr_edge.model.teacher.network import TeacherOutput


class TeacherLosses(NamedTuple):
    """Scalars. total is what training lowers; the other three are its parts before their weights."""

    total: Tensor
    task: Tensor
    intra: Tensor
    inter: Tensor


def teacher_losses(out: TeacherOutput, labels: Tensor, config: TeacherConfig) -> TeacherLosses:
    """labels, by task: classification int `[B]`; regression float `[B, K]`, NaN where unknown; segments int `[B, S]`, `IGNORED`
    where there is none. Spans that nobody asked about count nowhere. In a variant without regularisers intra and inter are
    measured, for the record, and have no part in the total. Always in float32, under autocast too."""
    with torch.autocast(out.asked.device.type, enabled=False):
        return _losses(out, labels, config)


def _losses(out: TeacherOutput, labels: Tensor, config: TeacherConfig) -> TeacherLosses:
    asked = out.asked.flatten()
    if not bool(asked.any()):
        raise DataError("no sample of this batch has a span to predict: leave such samples out")
    kept = _rows(out, asked)
    logits = kept.aggregated.logits
    if config.task == "classification":
        task = task_loss(logits, labels.reshape(-1)[asked])
    elif config.task == "regression":
        task = regression_loss(logits, labels.reshape(len(asked), -1)[asked])
    else:
        task = segment_loss(logits, labels.reshape(-1)[asked])
    if not config.switches.regularisers:
        with torch.no_grad():
            return TeacherLosses(task, task, intra_loss(kept), inter_loss(kept))
    intra, inter = intra_loss(kept), inter_loss(kept)
    return TeacherLosses(task + config.lambda_intra * intra + config.lambda_inter * inter, task, intra, inter)


def _rows(out: TeacherOutput, rows: Tensor) -> TeacherOutput:
    aggregated = Aggregated(*(x[rows] for x in out.aggregated))
    return TeacherOutput(aggregated, Exchanged(*(x[rows] for x in out.exchanged)), out.asked)
