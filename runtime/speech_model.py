"""Looks a Vosk model over before Vosk does: on some broken models it aborts the whole process."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from clcr_edge.errors import MissingPartError, SpeechModelError
from clcr_edge.runtime.child_python import child_python

# Each alternative: the files that Vosk itself looks for. The first is the layout of its newer models.
_LAYOUTS = (
    ("am/final.mdl", "conf/mfcc.conf"),
    ("final.mdl", "mfcc.conf"),
)
_GRAPHS = (("graph/HCLG.fst",), ("graph/HCLr.fst", "graph/Gr.fst"), ("HCLG.fst",), ("HCLr.fst", "Gr.fst"))
_BOUNDARIES = ("graph/phones/word_boundary.int", "word_boundary.int")
_LATE_ENDS = ("conf/late_ends.conf", "late_ends.conf")
_MOST_LATE_S = 0.2
_TRY_S = 120.0

# Runs in a process of its own, because a bad model ends it by abort() and nothing in Python can catch that. Silence alone would
# walk a few states of the graph; bursts of noise, buzz and glides at several levels walk more.
_TRIAL = """
import math
import random
import struct
import sys
import vosk
vosk.SetLogLevel(-1)
recogniser = vosk.KaldiRecognizer(vosk.Model(sys.argv[1]), 16000.0)
recogniser.SetWords(True)
recogniser.SetPartialWords(True)
random.seed(1)
print("loaded", flush=True)
for block in range(60):
    kind, level = block // 3 % 4, 300.0 * 3 ** (block % 4)
    pitch = 90.0 + 5.0 * block
    samples = []
    for n in range(1600):
        phase = n * pitch / 16000.0
        buzz = 2.0 * (phase % 1.0) - 1.0
        glide = math.sin(2.0 * math.pi * n * (300.0 + n) / 16000.0)
        samples.append(int(level * (0.0, random.uniform(-1.0, 1.0), buzz, 0.6 * buzz + 0.4 * glide)[kind]))
    recogniser.AcceptWaveform(struct.pack("<1600h", *samples))
    recogniser.PartialResult()
recogniser.FinalResult()
"""


def check_speech_model(model_dir: Path, *, trial: bool = True) -> None:
    """Raise `SpeechModelError` with what is wrong if `model_dir` is no usable Vosk model.

    trial: load it once in a process of its own and let it hear six seconds of silence, noise and buzz. Without, only the files
    are looked at. A file that is damaged where that does not lead is not found.
    """
    if not model_dir.exists():
        raise SpeechModelError(f"{model_dir}: no such speech model; give a Vosk model's directory, or --no-stt")
    if not model_dir.is_dir():
        raise SpeechModelError(f"{model_dir}: not a directory; unpack the Vosk model and give its directory, or --no-stt")
    layout = next((names for names in _LAYOUTS if all((model_dir / n).is_file() for n in names)), None)
    if layout is None:
        inner = [d for d in sorted(model_dir.iterdir()) if d.is_dir() and (d / "am").is_dir()]
        hint = f"did you mean {inner[0]}?" if inner else f"needs {' and '.join(_LAYOUTS[0])}"
        raise SpeechModelError(f"{model_dir}: not a Vosk model: {hint}")
    if not any(all((model_dir / n).is_file() for n in names) for names in _GRAPHS):
        raise SpeechModelError(f"{model_dir}: incomplete: no decoding graph (graph/HCLG.fst, or HCLr.fst with Gr.fst)")
    read = (p for p in model_dir.rglob("*") if p.is_file() and (p.suffix in (".mdl", ".fst", ".conf") or p.name == "words.txt"))
    for path in read:
        if path.stat().st_size == 0:
            raise SpeechModelError(f"{path}: empty; copy the model again")
    late_ends_s(model_dir)
    if trial:
        _try(model_dir)


def knows_word_boundaries(model_dir: Path) -> bool:
    """Whether a model has what its words' times are read off. Without, Vosk hears as well, and errs by tenths of a second."""
    return any((model_dir / name).is_file() for name in _BOUNDARIES)


def late_ends_s(model_dir: Path) -> float:
    """By how much a model's words seem to end too late, in seconds: what its builder wrote beside it (0 to 0.2); 0 for a model
    that does not say. Raises `SpeechModelError` for anything else."""
    path = next((model_dir / name for name in _LATE_ENDS if (model_dir / name).is_file()), None)
    if path is None:
        return 0.0
    text = path.read_bytes()[:64].decode("utf-8", "replace").strip()
    name, _, value = text.partition("=")
    if name != "--late-ends" or not re.fullmatch(r"0(\.\d+)?", value) or float(value) > _MOST_LATE_S:
        raise SpeechModelError(f"{path}: {text!r}; write --late-ends=SECONDS, 0 to {_MOST_LATE_S}, or delete it")
    return float(value)


def _try(model_dir: Path) -> None:
    try:
        done = subprocess.run(
            [*child_python(_TRIAL), str(model_dir)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_S,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        what = "was not through six seconds of sound" if error.stdout else "did not load"
        raise SpeechModelError(f"{model_dir}: {what} within {_TRY_S:.0f} s; use a smaller model, or copy it again") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if any("No module named 'vosk'" in line for line in lines):
        raise MissingPartError("speech: the vosk package is not installed; pip install 'clcr-edge[audio]', or give --no-stt")
    # Kaldi says ERROR or ASSERTION_FAILED; a Python exception comes last; a fault of memory says nothing.
    silent = [f"it ended by signal {-done.returncode}" if done.returncode < 0 else "no message"]
    marked = [line for line in lines if "ERROR" in line or "ASSERTION_FAILED" in line] or lines[-1:] or silent
    what = "Vosk cannot load it" if not done.stdout else "Vosk loads it and falls over it"
    raise SpeechModelError(f"{model_dir}: {what} ({marked[0].strip()[:160]}); copy or download it again")
