"""What `--calibration DIR` names: a folder recorded by `clcr-edge calibrate`, or one of media files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clcr_edge.calibration.recorded import RecordedInputs, is_recorded
from clcr_edge.calibration.recordings import recorded_set
from clcr_edge.calibration.sets import CalibrationSet, TickStream
from clcr_edge.config import StudentConfig


def calibration_set(folder: Path) -> CalibrationSet:
    """The folder's streams. Raises `DataError` if there is nothing to calibrate on, or something is wrong with it."""
    if not is_recorded(folder):
        return recorded_set(folder)
    inputs = RecordedInputs(folder)

    def opened(config: StudentConfig) -> Iterator[TickStream]:
        for stream in inputs.streams(config):
            yield TickStream(stream)

    name = f"{inputs.ticks / 25:.0f} s recorded by clcr-edge calibrate in {folder.name}"
    return CalibrationSet(name, opened, inputs.ticks, inputs.check, {"config_sha256": inputs.hashes})
