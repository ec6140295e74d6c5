"""Every name of TensorRT, pycuda and the CUDA driver that our source uses exists: asked of their own bindings and sources.

That is all that can be known without a GPU: names, numbers of arguments, keywords and result types; not behaviour.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from api_names import Reader, Use, defined_in, uses_of
from trt_bindings import CACHE, PYCUDA, WHEELS, bindings, compiler, download

from clcr_edge.errors import MissingPartError
from clcr_edge.export.tensorrt_build import _WEAK_FLAGS
from clcr_edge.runtime import cuda_driver
from clcr_edge.runtime.tensorrt_api import may_need_weak_typing

ROOT = Path(__file__).resolve().parents[1]
TENSORRT = [
    "export/tensorrt_build.py",
    "export/tensorrt_ready.py",
    "runtime/tensorrt_api.py",
    "runtime/tensorrt_engine.py",
    "runtime/tensorrt_log.py",
]
CUDA = "runtime/cuda_device.py"
DOUBLES = ROOT / "tests" / "doubles"
# Written by the caller of a double, not by TensorRT.
_OWN = {"ITimingCache.data", "INetworkDefinition.strong"}


def tensorrt_uses() -> list[Use]:
    found = [u for name in TENSORRT for u in uses_of(ROOT / name, "trt")]
    # Through device.api one of these files reaches pycuda.
    return [u for u in found if u.path != "Error"]


def resolve(version: str, uses: list[Use]) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "api_resolve.py")],
        input=json.dumps({"module": "tensorrt", "uses": [asdict(u) for u in uses]}),
        env=bindings(version),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["version"] == version, "these are not the bindings that were asked for"
    return list(answer["problems"])


def test_every_file_that_uses_tensorrt_is_looked_at() -> None:
    using = {
        str(p.relative_to(ROOT))
        for folder in ("export", "runtime", "calibration", "clcr_edge/commands")
        for p in (ROOT / folder).glob("*.py")
        if re.search(r"\bimport tensorrt\b|import_module\(\"tensorrt\"\)", p.read_text("utf-8"))
    }
    assert using <= set(TENSORRT)
    assert len({u.path for u in tensorrt_uses()}) > 40


def test_wheels_stay_out_of_the_repository() -> None:
    assert not CACHE.resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("version", WHEELS)
def test_every_tensorrt_name_exists(version: str) -> None:
    weak = {Use("weak flags", 0, f"BuilderFlag.{f}") for flags in _WEAK_FLAGS.values() for f in flags}
    uses = tensorrt_uses() + (sorted(weak, key=lambda u: u.path) if may_need_weak_typing(version) else [])
    assert resolve(version, uses) == []


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("api.BuilderFlag.TF33", "there is no TF33"),
        ("builder.build_engine(network, config)", "there is no build_engine"),
        ("api.MemoryPoolType.WORKSPACE_SIZE", "there is no WORKSPACE_SIZE"),
        ("builder.build_serialized_network(network)", "1 arguments"),
        ("config.set_timing_cache(cache)", "1 arguments"),
        ("config.set_timing_cache(cache, ignore=False)", "ignore"),
        ("other: trt.ITimingCache = builder.create_network(0)", "annotated ITimingCache, but it returns"),
    ],
)
def test_a_wrong_name_or_call_is_found(version: str, line: str, said: str) -> None:
    source = (ROOT / "export/tensorrt_build.py").read_text("utf-8")
    anchor = "    config.builder_optimization_level = level\n"
    assert anchor in source
    wrong = Reader("wrong.py", "trt").read(source.replace(anchor, f"{anchor}    {line}\n"))
    problems = resolve(version, wrong.uses)
    assert len(problems) == 1, problems
    assert said in problems[0]
    assert "wrong.py:" in problems[0]


def test_a_name_that_11_dropped_is_found_there_and_not_in_10() -> None:
    uses = Reader("old.py", "trt").read("def f(api):\n    return api.BuilderFlag.INT8\n").uses
    assert resolve("10.3.0", uses) == []
    assert resolve("11.4.0.106", uses) == ["old.py:2: BuilderFlag.INT8: there is no INT8"]


def test_a_monitor_that_lacks_a_method_is_found() -> None:
    source = "def f(api):\n    class M(api.IProgressMonitor):\n        def phase_start(self, a, b, c): ...\n"
    problems = resolve("10.13.3.9", Reader("m.py", "trt").read(source).uses)
    assert problems == ["m.py:2: IProgressMonitor: ['phase_finish', 'step_complete'] not overridden"]


def test_an_object_without_an_annotation_is_found() -> None:
    assert Reader("x.py", "trt").read("def f(api):\n    runtime = api.Runtime(1)\n    runtime.nonsense()\n").problems


@pytest.mark.parametrize("version", WHEELS)
def test_the_double_invents_no_name(version: str) -> None:
    names = [u for u in defined_in(DOUBLES / "tensorrt" / "__init__.py") if u.path not in _OWN]
    assert len(names) > 50
    assert resolve(version, names) == []
    assert len(resolve(version, [replace(names[0], path="Builder.guess")])) == 1


@pytest.mark.parametrize("version", WHEELS)
def test_our_logger_and_monitor_work_over_the_real_classes(version: str) -> None:
    code = (
        "import tensorrt\n"
        "from clcr_edge.export.build_progress import BuildProgress\n"
        "from clcr_edge.export.tensorrt_build import _monitor\n"
        "from clcr_edge.runtime.tensorrt_api import load_tensorrt\n"
        "from clcr_edge.runtime.tensorrt_log import make_log\n"
        "api = load_tensorrt(); log = make_log(api)\n"
        "log.log(api.ILogger.Severity.ERROR, 'first\\n line'); log.log(api.ILogger.Severity.WARNING, 'hm')\n"
        "assert log.reason() == 'first line' and list(log.warnings) == ['hm'], (log.errors, log.warnings)\n"
        "told = []\n"
        "m = _monitor(api, BuildProgress(), lambda p: told.append(p.fraction), lambda: len(told) > 3)\n"
        "m.phase_start('a', None, 2); assert m.step_complete('a', 0); m.phase_start('b', 'a', 4)\n"
        "assert not m.step_complete('b', 0); m.phase_finish('b'); m.phase_finish('a')\n"
        "assert told[-1] == 1.0, told\n"
        "try: api.Runtime(log)\n"
        "except TypeError: print('ok')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=bindings(version), capture_output=True, text=True, check=False, cwd=CACHE
    )
    assert done.stdout == "ok\n", done.stderr


def pycuda_names() -> set[str]:
    """Names in pycuda's own source: its C++ wrapper by class, and its Python part."""
    archive = download(PYCUDA, "--no-binary", "pycuda")
    with tarfile.open(archive) as tar:
        texts = {
            Path(m.name).name: tar.extractfile(m).read().decode("utf-8", "replace")  # type: ignore[union-attr]
            for m in tar.getmembers()
            if m.name.endswith(("wrapper/wrap_cudadrv.cpp", "pycuda/driver.py"))
        }
    names: set[str] = set()
    owner, bases = "", {"host_pointer": "HostPointer", "device_allocation": "DeviceAllocation"}
    inherits: dict[str, str] = {}
    pattern = re.compile(
        r"py::(?:class_|enum_)<(?P<args>[^;]*?)>\s*(?:\w+\s*)?\(\s*\"(?P<class>\w+)\""
        r"|DEF_SIMPLE_METHOD\((?P<simple>\w+)\)|\.def\(\"(?P<method>\w+)\"|add_property\(\"(?P<property>\w+)\""
        r"|\.value\(\"(?P<value>\w+)\"|cls\.attr\(\"(?P<attr>\w+)\""
        r"|py::def\(\"(?P<function>\w+)\"|DEF_SIMPLE_FUNCTION\((?P<plain>\w+)\)|DECLARE_EXC\((?P<error>\w+),"
    )
    for match in pattern.finditer(texts["wrap_cudadrv.cpp"]):
        kind, name = match.lastgroup, match[match.lastgroup or 0]
        if match["class"]:
            owner = match["class"]
            names.add(owner)
            base = re.search(r"py::bases<(\w+)>", match["args"])
            if base:
                inherits[owner] = bases[base[1]]
        elif kind in ("function", "plain", "error"):
            names.add(name)
        else:
            names.add(f"{owner}.{name}")
    for child, parent in inherits.items():
        names |= {f"{child}.{n.split('.')[1]}" for n in names if n.startswith(f"{parent}.")}
    return names | set(re.findall(r"^def (\w+)", texts["driver.py"], re.MULTILINE))


def test_every_pycuda_name_exists() -> None:
    names = pycuda_names()
    ours = {u.path for u in uses_of(ROOT / CUDA, "cuda")}
    assert len(ours) > 20
    assert ours - names == set()
    doubled = {u.path for u in defined_in(DOUBLES / "pycuda" / "driver.py")} - {"Stream.add"}
    assert doubled - names == set()
    source = "def f(api, s: cuda.Stream):\n    s.begin_capture()\n    api.mem_allocate(3)\n"
    wrong = {u.path for u in Reader("wrong.py", "cuda").read(source).uses}
    assert wrong - names == {"Stream.begin_capture", "mem_allocate"}


_DRIVER = """
#include <stddef.h>
#include <string.h>
#ifdef WITH_CUDA_H
#include <cuda.h>
#else
typedef int CUresult; typedef int CUdevice; typedef int CUdevice_attribute; typedef int CUstreamCaptureMode;
typedef struct s *CUstream; typedef struct g *CUgraph; typedef struct e *CUgraphExec;
#define cuDeviceTotalMem cuDeviceTotalMem_v2
#define cuStreamBeginCapture cuStreamBeginCapture_v2
#endif
CUresult cuInit(unsigned int flags) { return 0; }
CUresult cuDriverGetVersion(int *version) { *version = 12060; return 0; }
CUresult cuDeviceGetCount(int *count) { *count = 2; return 0; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = ordinal + 40; return 0; }
CUresult cuDeviceGetName(char *name, int len, CUdevice dev) { strncpy(name, dev == 40 ? "Orin" : "Thor", len); return 0; }
CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev) {
    *pi = attrib == 75 ? 8 : attrib == 76 ? 7 : attrib == 16 ? 16 : attrib == 18 ? 1 : -1; return 0; }
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice dev) { *bytes = 7ull << 30; return 0; }
CUresult cuGetErrorName(CUresult error, const char **text) { *text = "CUDA_ERROR_NO_DEVICE"; return error == 100 ? 0 : 1; }
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    return (size_t)stream == 0x123456789abcull && mode == 1 ? 0 : 1; }
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) { *graph = (CUgraph)0x1122334455667ull; return 0; }
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    *exec = (CUgraphExec)0x7766554433221ull; return (size_t)graph == 0x1122334455667ull ? 0 : 1; }
static int launched, destroyed;
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    if ((size_t)exec != 0x7766554433221ull || (size_t)stream != 0x123456789abcull) return 1;
    ++launched; return 0; }
CUresult cuGraphExecDestroy(CUgraphExec exec) { destroyed += (size_t)exec == 0x7766554433221ull; return 0; }
CUresult cuGraphDestroy(CUgraph graph) { destroyed += 10 * ((size_t)graph == 0x1122334455667ull); return 0; }
int clcr_launched(void) { return launched; }
int clcr_destroyed(void) { return destroyed; }
"""


@pytest.fixture(scope="module")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver that only answers, with the prototypes of cuda.h: checked by the compiler itself where that file is."""
    cc, folder = compiler(), tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(_DRIVER)
    header = next((p for p in Path("/usr/local").glob("cuda*/include/cuda.h")), None)
    options = [] if header is None else ["-DWITH_CUDA_H", f"-I{header.parent}"]
    command = [cc, "-shared", "-fPIC", "-o", str(folder / "libcuda.so"), str(folder / "driver.c"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "libcuda.so"


def test_what_the_driver_says_of_its_gpus_is_read(driver_library: Path) -> None:
    library = cuda_driver.load_driver(str(driver_library))
    assert cuda_driver.driver_version(library) == "12.6"
    first, second = cuda_driver.gpus(library)
    assert first == cuda_driver.Gpu(0, "Orin", "8.7", 16, True, 7 << 30)
    assert (second.index, second.name) == (1, "Thor")
    assert cuda_driver.error_name(library, 100) == "CUDA_ERROR_NO_DEVICE"
    assert cuda_driver.error_name(library, 1) == "CUDA error 1"


def test_handles_of_64_bits_survive_a_capture(driver_library: Path) -> None:
    from clcr_edge.runtime.cuda_graph import capture

    library, stream = cuda_driver.load_driver(str(driver_library)), 0x123456789ABC
    assert capture(library, stream, lambda: False) is None
    assert library.clcr_destroyed() == 10, "the graph of a capture that failed must be destroyed"
    graph = capture(library, stream, lambda: True)
    assert graph is not None
    assert graph.launch(stream)
    assert library.clcr_launched() == 1
    del graph
    assert library.clcr_destroyed() == 21
    assert capture(library, 5, lambda: True) is None


def test_a_machine_without_a_driver_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no NVIDIA driver"):
        cuda_driver.load_driver(str(tmp_path / "libcuda.so.1"))


def test_an_old_driver_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.c").write_text("int cuInit(unsigned f) { return 0; }\n")
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", tmp_path / "old.so", tmp_path / "old.c"], check=True)
    with pytest.raises(MissingPartError, match="too old: it has no cuDriverGetVersion"):
        cuda_driver.load_driver(str(tmp_path / "old.so"))


def test_prototypes_cover_every_call_of_the_driver() -> None:
    used = set()
    for name in ("runtime/cuda_driver.py", "runtime/cuda_graph.py"):
        used |= set(re.findall(r"\b(cu[A-Z]\w+)", (ROOT / name).read_text("utf-8")))
    assert used == set(cuda_driver.PROTOTYPES)
