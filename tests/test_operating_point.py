"""The operating point: as little as quiets the network on streams that hold nothing, and only that."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

import torch

from clcr_edge.data.bank import NONE
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.model.operating_point import OperatingBias
from clcr_edge.model.student import Student
from clcr_edge.packets import Modality
from clcr_edge.train.digits import student_config
from clcr_edge.train.operating_point import ALONE, LogProbs, choose_bias, set_operating_point


def quiet(margins: list[float], ticks: int = 1_500) -> LogProbs:
    """A minute in which class 3 beats none by these margins, one tick each, seconds apart."""
    out = np.full((ticks, NONE + 1), -9.0)
    out[:, NONE] = 0.0
    for place, margin in enumerate(margins):
        out[50 + 50 * place, 3] = margin
    return out


def test_the_bias_is_the_smallest_that_is_quiet_enough() -> None:
    point = choose_bias([quiet([0.1, 0.3, 0.6, 0.9])], target=1.5)
    assert point.before == 4.0
    assert point.none_bias == pytest.approx(0.625)  # only the 0.9 is left
    assert point.after == 1.0


def test_a_quiet_network_is_left_as_it_is() -> None:
    assert choose_bias([quiet([0.4]), quiet([])], target=1.5).none_bias == 0.0


def test_a_modality_that_says_too_little_alone_is_let_speak() -> None:
    point = choose_bias([quiet([-0.3, -0.7, -1.2])], ALONE, target=1.5)
    assert point.before == 0.0
    assert point.none_bias == pytest.approx(-0.625)  # at -0.75 two would speak
    assert point.after == 1.0


def test_the_bias_has_an_end() -> None:
    point = choose_bias([quiet([5.0, 5.0, 5.0])], target=1.5)
    assert (point.none_bias, point.after) == (2.0, 3.0)


def test_it_moves_the_none_logit_and_nothing_else() -> None:
    student = Student(student_config())
    before = {k: v.clone() for k, v in student.state_dict().items()}
    student.operating_bias.together.fill_(7.0)  # what was set before has no part in it
    point = set_operating_point(student, synthetic_bank("calibration"), minutes=1)
    assert point.minutes == 1.0
    changed = {k for k, v in student.state_dict().items() if not v.equal(before[k])}
    assert changed <= {"operating_bias.together", "operating_bias.alone"}
    biases = student.operating_bias
    assert biases.together[:NONE].abs().max() == 0.0
    assert biases.alone[:, :NONE].abs().max() == 0.0
    assert biases.together[NONE].item() == point.together.none_bias
    assert biases.alone[:, NONE].tolist() == [point.alone[m.key].none_bias for m in Modality]


def test_which_bias_counts_is_a_matter_of_what_is_there() -> None:
    bias = OperatingBias(classes=4, modalities=3)
    bias.together.copy_(torch.arange(4.0))
    bias.alone.copy_(torch.arange(12.0).view(3, 4) + 10.0)
    there = torch.zeros(5, 2, 3, dtype=torch.bool)
    there[0, 0, 1] = there[0, 1, 1] = True  # vision on both levels
    there[1, 1, 2] = True  # audio on one of them
    there[2, 0, 1] = there[2, 1, 0] = True  # two modalities, on a level each
    there[3] = True
    logits = torch.randn(5, 4)
    moved = bias(logits, there) - logits
    wanted = torch.stack([bias.alone[1], bias.alone[2], bias.together, bias.together, torch.zeros(4)])
    torch.testing.assert_close(moved, wanted)
