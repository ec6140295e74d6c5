"""Runs inside nvidia-modelopt's own environment, for `modelopt_int8.py`: fp32 graph + recorded feeds -> its INT8 graph.

    python modelopt_quantise.py fp32.onnx feeds.npz entropy|max Conv,MatMul|all int8.onnx

feeds.npz: every graph input (states among them) stacked over the feeds. All of modelopt's settings are its defaults, but for
what a graph that stays on a CPU needs: calibration on the CPU, and float32 for what it leaves in float (its default: float16).
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize
from onnxruntime.quantization.calibrate import CalibrationDataReader


class Feeds(CalibrationDataReader):
    """The recorded feeds, one at a time."""

    def __init__(self, path: str) -> None:
        with np.load(path, allow_pickle=False) as data:
            self._columns = {name: data[name] for name in data.files}
        self._next = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed; None after the last."""
        at, self._next = self._next, self._next + 1
        count = len(next(iter(self._columns.values())))
        return {name: values[at] for name, values in self._columns.items()} if at < count else None

    def get_first(self) -> dict[str, np.ndarray]:
        """What modelopt looks at shapes with."""
        return {name: values[0] for name, values in self._columns.items()}

    def rewind(self) -> None:
        """From the first feed again."""
        self._next = 0


if __name__ == "__main__":
    model, feeds, method, ops, out = sys.argv[1:]
    quantize(
        model,
        quantize_mode="int8",
        calibration_data_reader=Feeds(feeds),
        calibration_method=method,
        op_types_to_quantize=None if ops == "all" else ops.split(","),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=out,
        log_level="WARNING",
    )
