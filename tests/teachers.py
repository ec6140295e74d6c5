"""Small teachers and the sequences they read, for the tests of the teacher."""

from __future__ import annotations

import torch

from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig
from clcr_edge.model.teacher.inputs import Sequence
from clcr_edge.model.teacher.network import Teacher

CHANNELS = {"language": 5, "vision": 4, "audio": 3}


def tiny_config(names: tuple[str, ...] = tuple(CHANNELS), **changes: object) -> TeacherConfig:
    """Feature sequences, encoders of different widths, everything small."""
    modalities = tuple(
        (name, ModalityConfig("features", CHANNELS[name], width=8 + 4 * i, strides=(1, 2, 4))) for i, name in enumerate(names)
    )
    values: dict[str, object] = {"outputs": ("yes", "no", "none"), "width": 16, "rank_shared": 6, "rank_private": 5}
    values["hidden"] = 12
    return TeacherConfig(modalities=modalities, **(values | changes))  # type: ignore[arg-type]


def tiny_teacher(seed: int = 0, **changes: object) -> Teacher:
    """In eval mode, with statistics, gates and weights that make every part matter."""
    torch.manual_seed(seed)
    return stir(Teacher(tiny_config(**changes)))  # type: ignore[arg-type]


def stir(teacher: Teacher) -> Teacher:
    """Random running statistics, gates and level scores: at their start values many parts would do nothing."""
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            if name.endswith(("gate", "gate_bias", "lag")):
                value.normal_(0.0, 0.7)
            if "level_score.2" in name or "context" in name:
                value.mul_(4.0)
        for name, statistic in teacher.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(0.0, 0.2)
            if name.endswith("running_var"):
                statistic.uniform_(0.5, 1.5)
    return teacher.eval()


def tiny_inputs(batch: int = 3, names: tuple[str, ...] = tuple(CHANNELS), seed: int = 1) -> dict[str, Sequence]:
    """Sequences of different lengths per modality and sample."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for i, name in enumerate(names):
        total = 9 + 4 * i
        lengths = torch.randint(total // 2, total + 1, (batch,), generator=generator)
        made[name] = Sequence.of(torch.randn(batch, total, CHANNELS[name], generator=generator), lengths)
    return made


def without(sequence: Sequence, sample: int) -> Sequence:
    """The same, but one sample lacks it: its mask is empty, and what stands there is poison."""
    values, mask = sequence.values.clone(), sequence.mask.clone()
    values[sample] = float("nan")
    mask[sample] = False
    return Sequence(values, mask, sequence.times)
