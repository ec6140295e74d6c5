"""What a graph costs in memory: measured in a process of its own, because this one has torch in it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import onnx

from clcr_edge.export.step import STATES
from clcr_edge.runtime.child_python import child_python

# Linux tells a process's resident size in /proc; elsewhere nothing is measured, and nothing is guessed.
_CODE = """
import json, sys
import numpy as np
from clcr_edge.runtime.onnx_engine import open_graph
def resident():
    for line in open('/proc/self/status'):
        if line.startswith('VmRSS'):
            return int(line.split()[1]) * 1024
import onnxruntime
before = resident()
session = open_graph(sys.argv[1])
kinds = {'tensor(float)': np.float32, 'tensor(int32)': np.int32}
feed = {i.name: np.zeros(i.shape, kinds[i.type]) for i in session.get_inputs()}
for _ in range(32):
    session.run(None, feed)
print(json.dumps({'engine_bytes': resident() - before, 'process_bytes': resident()}))
"""


def state_bytes(model: onnx.ModelProto) -> int:
    """What one stream remembers: the sizes of the state tensors, all float32."""
    total = 0
    for value in model.graph.input:
        if value.name in STATES:
            count = 1
            for dim in value.type.tensor_type.shape.dim:
                count *= dim.dim_value
            total += 4 * count
    return total


def resident_bytes(model: onnx.ModelProto) -> dict[str, int] | None:
    """engine_bytes: resident memory that loading the graph and stepping it adds; process_bytes: that of the whole process,
    Python, numpy and ONNX Runtime included. None where the system does not tell."""
    if not Path("/proc/self/status").is_file():
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="clcr-edge-") as folder:
            path = Path(folder) / "step.onnx"
            onnx.save(model, path)
            call = [*child_python(_CODE), str(path)]
            done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=120)
        found = json.loads(done.stdout)
        return {k: int(found[k]) for k in ("engine_bytes", "process_bytes")}
    except (ValueError, KeyError, TypeError, OSError, subprocess.TimeoutExpired):
        return None  # an export does not fail for want of this
