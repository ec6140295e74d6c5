"""Records calibration inputs through the very pipeline that will run: a `Session` whose engine keeps its inputs."""

from __future__ import annotations

import numpy as np

from clcr_edge.calibration.media_check import MediaCheck
from clcr_edge.calibration.recorded import CalibrationWriter
from clcr_edge.config import StudentConfig
from clcr_edge.packets import Level, Modality
from clcr_edge.runtime.engine import State, StepInputs, StepOutputs


class RecordingEngine:
    """An engine that computes nothing and writes down what it is given. media: what has come so far."""

    precision = "recording"

    def __init__(self, config: StudentConfig, writer: CalibrationWriter) -> None:
        self.config = config
        self.media = MediaCheck()
        self._writer = writer

    def initial_state(self) -> State:
        """No state. A session asks for it when a stream begins, so the recording begins a new stream as well."""
        self._writer.new_stream()
        return {}

    def step(self, inputs: StepInputs, state: State) -> tuple[StepOutputs, State]:
        """Keep one tick; all outputs are zero. Raises `DataError` on NaN."""
        self.media.see(inputs)
        self._writer.add(inputs)
        three = np.zeros(len(Modality), np.float32)
        table = np.zeros((len(Level), len(Modality)), np.float32)
        return StepOutputs(np.zeros(len(self.config.classes), np.float32), three, three, three, table, table), state
