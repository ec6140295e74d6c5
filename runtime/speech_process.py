"""A recogniser in a process of its own: what ends Vosk there (it aborts on some errors; systems kill what is large) ends no
prediction, and one that hangs can be killed.

    push -> stdin:   time, rate, count, then samples as float32
    words <- stdout: one line of JSON per chunk; the first line says that it listens, or why it cannot
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clcr_edge.errors import ClcrEdgeError, SpeechModelError
from clcr_edge.packets import AudioChunk, Word
from clcr_edge.runtime.child_python import child_python
from clcr_edge.runtime.machine import ProcessUse, process_use

_HEAD = struct.Struct("<dII")  # time of the first sample, s; rate, Hz; samples
_END_S = 2.0


class SpeechProcess:
    """A `Recogniser` in another process, which starts at once and loads its model while this one goes on.

    model_dir: a Vosk model known to load (`check_speech_model`). stable: as for `Recogniser`. `push` and `ready` wait for the
    other process, so they belong into a thread; they raise `SpeechModelError` once it has ended, with the signal that ended it
    or what it said.
    """

    def __init__(self, model_dir: Path, *, stable: int = 3) -> None:
        self._model_dir, self._stable = model_dir, stable
        self._listens = False
        self._process = subprocess.Popen(
            [*child_python(f"from {__name__} import main; main()"), str(model_dir), str(stable)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # enough for Kaldi
            start_new_session=True,  # Ctrl-C is for us: we end it, after its last words
        )

    @property
    def pid(self) -> int:
        """Of the other process."""
        return self._process.pid

    @property
    def use(self) -> ProcessUse | None:
        """Its memory and CPU time; None where the system does not tell, or it has ended."""
        return process_use(self.pid)

    def ready(self) -> SpeechProcess:
        """Wait until it listens."""
        if not self._listens:
            self._answer()
            self._listens = True
        return self

    def push(self, chunk: AudioChunk) -> list[Word]:
        """Listen to a chunk, float32 mono at 16 kHz; gives the words that have become stable or final."""
        self.ready()
        stdin = self._process.stdin
        assert stdin is not None
        samples = np.ascontiguousarray(chunk.samples, "<f4")
        try:
            stdin.write(_HEAD.pack(chunk.t_s, chunk.rate_hz, len(samples)) + samples.tobytes())
            stdin.flush()
        except (BrokenPipeError, ValueError):  # it has ended; ValueError: we have closed the pipe
            raise self._ended() from None
        return [Word(text, start_s, end_s, confidence) for text, start_s, end_s, confidence in self._answer()]

    def fresh(self) -> SpeechProcess:
        """Another process with the same model, at the beginning of a stream."""
        return SpeechProcess(self._model_dir, stable=self._stable)

    def stop(self) -> None:
        """Have it ended, whatever it is doing. Does not wait; from any thread, as often as one likes."""
        self._process.kill()  # nothing if it has ended

    def close(self) -> None:
        """End it and free what it held here; not while another thread is in `push`."""
        self.stop()
        self._process.wait(_END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was written last finds nobody
                pipe.close()

    def _answer(self) -> list[tuple[str, float, float, float]]:
        stdout = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        told = json.loads(line)
        if isinstance(told, str):
            raise SpeechModelError(told)
        assert isinstance(told, list)
        return told

    def _ended(self) -> SpeechModelError:
        self.stop()  # if it has closed its end and lives
        code = self._process.wait(_END_S)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return SpeechModelError(f"its process {how}")


def _listen(model_dir: Path, stable: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """The other process: until its input ends."""

    def tell(what: str | list[tuple[str, float, float, float]]) -> None:
        stdout.write(json.dumps(what).encode() + b"\n")
        stdout.flush()

    try:
        from clcr_edge.runtime.speech import Recogniser

        recogniser = Recogniser(model_dir, stable=stable, check=False)
    except ClcrEdgeError as e:
        tell(str(e))
        return
    tell([])
    while len(head := stdin.read(_HEAD.size)) == _HEAD.size:
        t_s, rate_hz, count = _HEAD.unpack(head)
        chunk = AudioChunk(np.frombuffer(stdin.read(count * 4), "<f4"), rate_hz, t_s)
        try:
            words = recogniser.push(chunk)
        except ClcrEdgeError as e:
            tell(str(e))
            return
        tell([(w.text, w.start_s, w.end_s, w.confidence) for w in words])


def main() -> None:
    """The other process, from its command line: a model's directory, and `stable`."""
    with suppress(BrokenPipeError, KeyboardInterrupt):
        _listen(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)
