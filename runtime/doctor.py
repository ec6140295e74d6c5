"""What this machine has, and what is missing for each thing one may want to do with it, with the command that adds it.

Parts with native code are tried in a process of their own: a broken driver or library may end the process that loads it, and
nothing in Python can catch that. Nothing here raises.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clcr_edge.errors import ClcrEdgeError
from clcr_edge.runtime.child_python import child_python
from clcr_edge.runtime.machine import machine_table

T = TypeVar("T")

_TRIAL_S = 60.0
_OLDEST_PYTHON = (3, 10)

# Each prints one JSON object: the part's version, and what else the page shows of it.
_TRIALS = {
    "onnxruntime": "import onnxruntime as m; say(version=m.__version__, providers=m.get_available_providers())",
    "tensorrt": (
        "from clcr_edge.runtime.tensorrt_api import load_tensorrt\n"
        "m = load_tensorrt(); m.Runtime(m.Logger()); say(version=m.__version__)"
    ),
    "pycuda": (
        "from clcr_edge.runtime.cuda_device import load_pycuda\n"
        "m = load_pycuda(); import pycuda; say(version=pycuda.VERSION_TEXT, devices=m.Device.count())"
    ),
    "driver": (
        "from dataclasses import asdict\n"
        "from clcr_edge.runtime.cuda_driver import driver_version, gpus, load_driver\n"
        "m = load_driver(); say(version=driver_version(m), gpus=[asdict(g) for g in gpus(m)])"
    ),
    "opencv": (
        "import cv2 as m\n"
        "lines = [l.split(':')[1].strip() for l in m.getBuildInformation().splitlines() if 'GStreamer' in l]\n"
        "say(version=m.__version__, gstreamer=(lines or ['NO'])[0].split()[0] == 'YES')"
    ),
    "sounddevice": "import sounddevice as m; say(version=m.__version__, portaudio=m.get_portaudio_version()[1])",
    "vosk": "import vosk; from importlib.metadata import version; say(version=version('vosk'))",
    "av": "import av as m; say(version=m.__version__)",
    "torch": "import torch as m; say(version=m.__version__)",
    "onnx": "import onnx as m; say(version=m.__version__)",
    "compiler": "from clcr_edge.export.native.compiler import find_compiler; say(version=find_compiler().line)",
}
_SAY = "import json, sys\ndef say(**found): print(json.dumps(found))\n"

# What one wants to do -> the parts it needs.
TARGETS = {
    "run on files": ("onnxruntime", "av"),
    "camera": ("opencv",),
    "microphone": ("sounddevice",),
    "speech-to-text": ("vosk",),
    "train and export": ("torch", "onnx"),
    "native engine": ("compiler", "onnx"),
    "TensorRT": ("driver", "tensorrt", "pycuda"),
}
_PC = {
    "onnxruntime": "pip install onnxruntime",
    "av": "pip install av",
    "opencv": "pip install 'clcr-edge[camera]'",
    "sounddevice": "sudo apt install libportaudio2 && pip install 'clcr-edge[audio]'",
    "vosk": "pip install 'clcr-edge[audio]'",
    "torch": "pip install 'clcr-edge[train]'",
    "onnx": "pip install 'clcr-edge[train]'",
    "compiler": "sudo apt install gcc libc6-dev",
    "driver": "install the NVIDIA driver for this GPU (none can be installed where there is no NVIDIA GPU)",
    "tensorrt": "pip install 'clcr-edge[tensorrt]'",
    "pycuda": "export PATH=/usr/local/cuda/bin:$PATH && pip install pycuda",
}
# JetPack's OpenCV was compiled against NumPy 1 and fails to load with 2, in words that do not say so.
_OLD_NUMPY = "pip install 'numpy>=1.26,<2'"
# On a Jetson TensorRT and OpenCV come with JetPack, and a wheel would shadow them.
_JETSON = _PC | {
    "opencv": "sudo apt install python3-opencv, in an environment made with python3 -m venv --system-site-packages",
    "tensorrt": "sudo apt install nvidia-jetpack, in an environment made with python3 -m venv --system-site-packages",
    "driver": "flash JetPack 6.1 or newer",
}


@dataclass(frozen=True)
class Part:
    """A part that was tried. found: what it said of itself, its version first; problem: why it is not usable, or None."""

    name: str
    found: dict[str, Any]
    problem: str | None


def try_part(name: str, code: str | None = None, timeout_s: float = _TRIAL_S) -> Part:
    """Load a part in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            child_python(_SAY + (code or _TRIALS[name])),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Part(name, {}, f"did not load within {timeout_s:.0f} s")
    except OSError as e:
        return Part(name, {}, f"could not be tried ({e})")
    if done.returncode < 0:
        try:
            ended = signal.Signals(-done.returncode).name
        except ValueError:
            ended = f"signal {-done.returncode}"
        return Part(name, {}, f"ends the program that loads it ({ended}); install it again")
    if done.returncode:
        return Part(name, {}, _reason(done.stderr))
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Part(name, {}, "loads, but says nothing of itself")
    return Part(name, found, None)


def _reason(stderr: str) -> str:
    """The exception of a trial, in one line: others' with their class, ours up to the remedy, which the page has apart."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "fails without a message"
    if last.startswith("ModuleNotFoundError"):
        return "not installed"
    ours = last.startswith("clcr_edge.errors.") and "Error: " in last
    return last.split("Error: ", 1)[1].split("; ")[0] if ours else last


def examine() -> dict[str, Any]:
    """Everything, as a table for JSON: clcr_edge, machine, parts, devices, models, targets, notes."""
    machine = machine_table()
    parts = {name: try_part(name) for name in _TRIALS}
    remedies = _JETSON if "l4t" in machine else _PC
    cameras, microphones, models = _guarded(_cameras), _guarded(_microphones), _guarded(_models)
    targets: dict[str, Any] = {}
    for target, needs in TARGETS.items():
        missing = [
            {"part": n, "problem": parts[n].problem, "remedy": _OLD_NUMPY if _clashes(parts[n]) else remedies[n]}
            for n in needs
            if parts[n].problem
        ]
        device = {"camera": cameras, "microphone": microphones}.get(target)
        if device is not None and not missing and not device["found"]:
            problem = device["problem"] or "none found"
            missing = [{"part": target, "problem": problem, "remedy": "plug one in; a file or a URL also serves"}]
        targets[target] = {"ready": not missing, "missing": missing}
    return {
        "clcr_edge": _version(),
        "machine": machine,
        "parts": {n: {**p.found, "problem": p.problem} for n, p in parts.items()},
        "cameras": cameras,
        "microphones": microphones,
        "models": models,
        "targets": targets,
        "notes": _notes(machine, parts),
    }


def _clashes(part: Part) -> bool:
    said = (part.problem or "").casefold()
    return part.name == "opencv" and ("multiarray" in said or "numpy" in said)


def _version() -> str:
    import clcr_edge

    return clcr_edge.__version__


def _guarded(ask: Callable[[], list[T]]) -> dict[str, Any]:
    """What was found, or why it could not be asked."""
    try:
        return {"found": ask(), "problem": None}
    except ClcrEdgeError as e:
        return {"found": [], "problem": str(e)}
    except Exception as e:  # a page for people in trouble must come out whole
        return {"found": [], "problem": f"{type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}"}


def _cameras() -> list[str]:
    from clcr_edge.runtime.video_devices import list_video_devices

    return [f"{c.index} {c.name} ({c.path})" for c in list_video_devices()]


def _microphones() -> list[str]:
    from clcr_edge.runtime.portaudio import input_devices

    return [f"{m.index} {m.name}{' (default)' if m.is_default else ''}" for m in input_devices()]


def _models() -> list[str]:
    from clcr_edge.runtime.assets import default_speech_model, shipped

    here = [("student", shipped("digits-student")), ("bundle", shipped("digits-bundle")), ("speech", default_speech_model())]
    made = sorted(p.parent for p in Path("out").glob("*/manifest.toml")) if Path("out").is_dir() else []
    return [f"{kind}: {path}" for kind, path in here if path is not None] + [f"bundle: {path}" for path in made]


def _notes(machine: dict[str, str], parts: dict[str, Part]) -> list[str]:
    """What is there and will hurt all the same."""
    notes = []
    if sys.version_info < _OLDEST_PYTHON:
        notes.append(f"Python {machine['python']} is too old: 3.10 or newer is needed")
    if machine.get("jetpack", "6").startswith("5") or machine.get("jetpack") == "6.0":
        notes.append(f"JetPack {machine['jetpack']} has no TensorRT 10: TensorRT needs JetPack 6.1 or newer")
    opencv = parts["opencv"]
    if "l4t" in machine and opencv.problem is None and not opencv.found.get("gstreamer"):
        notes.append("this OpenCV has no GStreamer, so CSI cameras do not open; JetPack's own has: pip uninstall opencv-python")
    if machine.get("power_mode", "MAXN").split("_")[0] != "MAXN":
        notes.append(f"power mode {machine['power_mode']}: full speed is sudo nvpmodel -m N (N of MAXN in /etc/nvpmodel.conf)")
    return notes
