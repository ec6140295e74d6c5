"""Looks a Vosk model over before Vosk does: on some broken models it aborts the whole process."""

from __future__ import annotations

import os
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
_TRY_S = 120.0

# Runs in a process of its own, because a bad model ends it by abort() and nothing in Python can catch that.
_TRIAL = """
import sys
import vosk
vosk.SetLogLevel(-1)
recogniser = vosk.KaldiRecognizer(vosk.Model(sys.argv[1]), 16000.0)
recogniser.SetWords(True)
for _ in range(10):
    recogniser.AcceptWaveform(bytes(3200))
    recogniser.PartialResult()
recogniser.FinalResult()
"""


def check_speech_model(model_dir: Path, *, trial: bool = True) -> None:
    """Raise `SpeechModelError` with what is wrong if `model_dir` is no usable Vosk model.

    trial: load it once in a process of its own and let it hear a second of silence. Without, only the files are looked at.
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
    if trial:
        _try(model_dir)


def knows_word_boundaries(model_dir: Path) -> bool:
    """Whether a model has what its words' times are read off. Without, Vosk hears as well, and errs by tenths of a second."""
    return any((model_dir / name).is_file() for name in _BOUNDARIES)


def _try(model_dir: Path) -> None:
    try:
        done = subprocess.run(
            [*child_python(_TRIAL), str(model_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TRY_S,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise SpeechModelError(f"{model_dir}: did not load within {_TRY_S:.0f} s; use a smaller model") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if any("No module named 'vosk'" in line for line in lines):
        raise MissingPartError("speech: the vosk package is not installed; pip install 'clcr-edge[audio]', or give --no-stt")
    # Kaldi says ERROR or ASSERTION_FAILED; a Python exception comes last.
    marked = [line for line in lines if "ERROR" in line or "ASSERTION_FAILED" in line] or lines or ["no message"]
    raise SpeechModelError(f"{model_dir}: Vosk cannot load it ({marked[0].strip()[:160]}); copy or download it again")
