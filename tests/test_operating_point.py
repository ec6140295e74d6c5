"""The operating point: as little as quiets the network on streams that hold nothing, and only that."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'clcr-edge[train]'")

from clcr_edge.data.bank import NONE
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.model.student import Student
from clcr_edge.train.digits import student_config
from clcr_edge.train.operating_point import LogProbs, choose_bias, set_operating_point


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
    assert point.minutes == 1.0


def test_a_quiet_network_is_left_as_it_is() -> None:
    assert choose_bias([quiet([0.4]), quiet([])], target=1.5).none_bias == 0.0


def test_the_bias_has_an_end() -> None:
    point = choose_bias([quiet([5.0, 5.0, 5.0])], target=1.5)
    assert (point.none_bias, point.after) == (1.0, 3.0)


def test_it_is_added_to_the_none_logit_and_nothing_else() -> None:
    student = Student(student_config())
    before = {k: v.clone() for k, v in student.state_dict().items()}
    point = set_operating_point(student, synthetic_bank("calibration"), minutes=1)
    changed = {k: v for k, v in student.state_dict().items() if not v.equal(before[k])}
    if point.none_bias:
        (name,) = changed
        assert name == "inter_cad.head.3.bias"
        difference = changed[name] - before[name]
        assert difference[NONE].item() == pytest.approx(point.none_bias)
        assert difference[:NONE].abs().max() == 0.0
    else:
        assert not changed
