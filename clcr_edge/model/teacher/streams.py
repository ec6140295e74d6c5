"""The student's ticks as a teacher's input: both see the same streams, and distillation can compare them tick by tick."""

from __future__ import annotations

import torch
from torch import Tensor

from clcr_edge.errors import DataError
from clcr_edge.model.student import TickBatch
from clcr_edge.model.teacher.inputs import Sequence
from clcr_edge.packets import Modality


def stream_inputs(batch: TickBatch) -> dict[str, Sequence]:
    """B recordings of T ticks -> sequences named by `Modality.key`: language "ngrams", vision "frames" (one channel), audio
    "fbank". A word stands in the tick in which it ended, not in the one in which it arrived: the teacher need not wait for the
    recogniser. Words that have not arrived by the end are not there. The recogniser's confidence is left out.
    """
    ticks = batch.vision.shape[1]
    arrived = batch.word_tick < ticks
    end = (torch.where(arrived, batch.word_tick, 0) - batch.word_age + 1).clamp(1, ticks) / ticks
    times = torch.stack([end - 1.0 / ticks, end], dim=-1)
    return {
        Modality.LANGUAGE.key: Sequence.of(batch.ngrams, mask=arrived, times=times),
        Modality.VISION.key: Sequence.of(batch.frames.unsqueeze(2), mask=batch.vision),
        Modality.AUDIO.key: Sequence.of(batch.fbank, mask=batch.audio),
    }


def tick_spans(ticks: Tensor, total: int, window: int) -> Tensor:
    """The `window` ticks that end with each wanted tick: int `[B, N]`, of `total` ticks -> spans float `[B, N, 2]`.

    Rows of the teacher's output are then in the order of the student's, `B * N`.
    """
    if window < 1 or bool(((ticks < 0) | (ticks >= total)).any()):
        raise DataError(f"window = {window}, ticks up to {int(ticks.max())}: need window >= 1 and ticks from 0 to {total - 1}")
    return torch.stack([(ticks + 1 - window).clamp_min(0), ticks + 1], dim=-1) / total
