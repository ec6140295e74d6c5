"""The evaluation's processes: what one of them suffers is one line, not a traceback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from clcr_edge.data.conditions import CLEAN
from clcr_edge.errors import ClcrEdgeError
from clcr_edge.train.evaluate import Evaluation, Material, Subject
from clcr_edge.train.subject import open_subject


@pytest.fixture(scope="module")
def subject(proof_bundle: Path) -> Subject:
    return open_subject(proof_bundle)[0]


def test_a_process_that_is_killed_is_one_line(subject: Subject) -> None:
    with Evaluation(subject, Material(None, None), jobs=1) as evaluation:
        def kill(_events: int) -> None:
            for worker in list(evaluation._pool._processes):
                os.kill(worker, signal.SIGKILL)

        with pytest.raises(ClcrEdgeError, match="one of 1 processes of the evaluation was ended from outside") as caught:
            evaluation.events(CLEAN, 1_000, 0, tell=kill)
    assert "\n" not in str(caught.value)
