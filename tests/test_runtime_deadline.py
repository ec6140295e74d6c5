"""Calls that hang are given up; the command line does not wait for them."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clcr_edge.errors import SourceError
from clcr_edge.runtime.deadline import within


def test_results_and_errors_come_through() -> None:
    assert within(5.0, "sum", lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        within(5.0, "division", lambda: 1 // 0)


def test_a_call_that_hangs_is_given_up() -> None:
    code = """
import time
from clcr_edge.errors import SourceError
from clcr_edge.runtime.deadline import abandoned, within
try:
    within(0.1, "the sound server", lambda: time.sleep(600))
except SourceError as e:
    print(e, abandoned())
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert time.monotonic() - begun < 20
    assert "the sound server did not answer within 0.1 s" in done.stdout
    assert "('the sound server',)" in done.stdout


def test_the_message_names_what_hung() -> None:
    with pytest.raises(SourceError, match="closing microphone 'x' did not answer"):
        within(0.05, "closing microphone 'x'", lambda: time.sleep(1))
