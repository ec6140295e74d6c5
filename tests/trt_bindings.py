"""TensorRT's own Python bindings on a machine without TensorRT: wheels from the registry, over a library that only links.

The wheels hold the bindings alone; what they bind to is NVIDIA's, large, and needs a GPU. Nine C names are all that the dynamic
linker asks for, so eleven lines of C let the real classes, enums and signatures load. Nothing of it can run a network.
Everything lies in a cache outside of the repository; it must never be installed, or it would shadow a real TensorRT.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clcr-edge-tests"
# JetPack 6, 7.0 and 7.1, 7.2, and the newest that JetPack may install.
WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.13.3.9": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16.1.11": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106",
}
PYCUDA = "pycuda==2026.1"
_LINKED = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_STAND_IN = """
/* Link-only stand-in: lets the TensorRT Python binding load, so that its names can be listed. Every entry point returns 0. */
#define P(f) void *f(void) { return 0; }
P(createInferBuilder_INTERNAL)
P(createInferRefitter_INTERNAL)
P(createInferRuntime_INTERNAL)
P(createNvOnnxParser_INTERNAL)
P(createNvOnnxParserRefitter_INTERNAL)
P(getBuilderPluginRegistry)
P(getPluginRegistry)
int getNvOnnxParserVersion(void) { return 0; }
_Bool initLibNvInferPlugins(void *l, char const *n) { return 0; }
"""


def compiler() -> str:
    """The C compiler; skips where there is none."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler: apt install gcc")
    return found


def download(what: str, *options: str) -> Path:
    """A package's file from the registry, kept in the cache; skips where it cannot be had."""
    folder = CACHE / what.replace("==", "-") / f"cp{sys.version_info.major}{sys.version_info.minor}"
    kept = sorted(folder.glob("*.whl")) + sorted(folder.glob("*.tar.gz"))
    if not kept:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", *options]
            done = subprocess.run([*command, "-d", scratch, what], capture_output=True, text=True, check=False)
            made = [p for p in Path(scratch).iterdir() if p.suffix in (".whl", ".gz")]
            if done.returncode or not made:
                reason = (done.stderr.strip().splitlines() or ["no file"])[-1]
                pytest.skip(f"{what} cannot be had for this Python and machine: {reason[:200]}")
            folder.mkdir(exist_ok=True)
            os.replace(made[0], folder / made[0].name)
        kept = list(folder.iterdir())
    return kept[0]


def bindings(version: str) -> dict[str, str]:
    """The environment in which `import tensorrt` gives the real bindings of a version; skips where they cannot be had."""
    wheel = download(WHEELS[version], "--only-binary", ":all:")
    root = wheel.parent / "unpacked"
    major = version.split(".")[0]
    if not (root / "lib").is_dir():
        cc = compiler()
        scratch = Path(tempfile.mkdtemp(dir=wheel.parent))
        with zipfile.ZipFile(wheel) as z:
            z.extractall(scratch)
        (scratch / "tensorrt_bindings").rename(scratch / "tensorrt")
        (scratch / "lib").mkdir()
        (scratch / "stand_in.c").write_text(_STAND_IN)
        for name in _LINKED:
            library = f"lib{name}.so.{major}"
            built = [cc, "-shared", "-fPIC", "-O1", "-o", str(scratch / "lib" / library), f"-Wl,-soname,{library}"]
            subprocess.run([*built, str(scratch / "stand_in.c")], check=True, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
        os.replace(scratch, root)
    return {**os.environ, "LD_LIBRARY_PATH": str(root / "lib"), "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
