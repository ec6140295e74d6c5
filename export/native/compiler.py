"""The C compiler of this machine: what its vectors look like, and the library that it makes of a C file."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clcr_edge.errors import EngineError, MissingPartError

_FLAGS = (
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fopenmp-simd", "-w",
)  # fmt: skip
_TIMEOUT_S = 120.0  # the step that ships takes two


@dataclass(frozen=True)
class Compiler:
    """A compiler and the vectors it compiles for. lanes: floats in a vector register. registers: how many there are."""

    command: tuple[str, ...]
    tuned: tuple[str, ...]
    lanes: int
    registers: int
    line: str

    def build(self, source: Path, library: Path) -> None:
        """Compile a C file to a shared library. Raises `EngineError` with the compiler's first complaint."""
        done = _ran([*self.command, *_FLAGS, *self.tuned, str(source), "-o", str(library), "-lm"])
        if done.returncode or not library.is_file():
            said = next((s for s in done.stderr.splitlines() if "error" in s), done.stderr.strip()[:200] or "no reason given")
            raise EngineError(f"{self.line} cannot compile the step ({said.strip()[:200]}); use --engine onnxruntime")


@cache
def find_compiler() -> Compiler:
    """The compiler named by CC, else cc, gcc or clang. Raises `MissingPartError` if there is none that works."""
    named = os.environ.get("CC", "").strip()
    try:
        given = tuple(shlex.split(named))
    except ValueError:
        given = (named,)
    command = given or next(((c,) for c in ("cc", "gcc", "clang") if shutil.which(c)), ())
    if not command or shutil.which(command[0]) is None:
        found = f"CC is {named!r}, which is not there" if named else "no cc, gcc or clang found"
        raise MissingPartError(f"the native engine needs a C compiler: {found}; install gcc (apt install gcc libc6-dev)")
    for tuned in (("-march=native",), ("-mcpu=native",), ()):
        asked = _ran([*command, *tuned, "-dM", "-E", "-x", "c", "-"])
        if asked.returncode == 0 and "__STDC__" in asked.stdout:
            lanes, registers = _vectors(asked.stdout)
            version = _ran([*command, "--version"]).stdout.splitlines()
            return Compiler(command, tuned, lanes, registers, version[0].strip() if version else command[0])
    raise MissingPartError(f"{command[0]}: does not work as a C compiler ({asked.stderr.strip()[:200]}); set CC to another")


def _vectors(macros: str) -> tuple[int, int]:
    """(lanes, registers) by the compiler's predefined macros."""
    defined = {line.split()[1] for line in macros.splitlines() if line.startswith("#define ")}
    if "__AVX512F__" in defined:
        return 16, 32
    if "__AVX__" in defined:
        return 8, 16
    return (4, 32) if "__aarch64__" in defined else (4, 16)


def _ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; what does not end in time ends with all that it started."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        with subprocess.Popen(
            command, stdin=nothing, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
        ) as process:
            try:
                said, complained = process.communicate(timeout=_TIMEOUT_S)
            except BaseException as e:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(e, subprocess.TimeoutExpired):
                    raise EngineError(f"{command[0]} did not end within {_TIMEOUT_S:g} s; use --engine onnxruntime") from None
                raise
    except OSError as e:
        raise MissingPartError(f"{command[0]}: cannot be run ({e.strerror}); set CC to a C compiler") from None
    return subprocess.CompletedProcess(command, process.returncode, said, complained)
