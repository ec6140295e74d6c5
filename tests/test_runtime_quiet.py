"""C libraries are silenced, Python's own messages are not."""

from __future__ import annotations

import os
import sys

import pytest

from clcr_edge.runtime.quiet import c_stderr_silenced


def test_descriptor_2_is_silent_and_sys_stderr_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with c_stderr_silenced():
        os.write(2, b"noise of a C library\n")
        print("a line for the person", file=sys.stderr)
    os.write(2, b"afterwards\n")
    assert sys.stderr is before
    assert capfd.readouterr().err == "a line for the person\nafterwards\n"


def test_it_is_undone_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), c_stderr_silenced():
        raise ValueError("x")
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
