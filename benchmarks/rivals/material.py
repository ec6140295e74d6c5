"""A recording of random media as the step's inputs: frames, sound and words that come and go, through the real ticker."""

from __future__ import annotations

import numpy as np

from clcr_edge.config import StudentConfig
from clcr_edge.packets import AudioChunk, VideoFrame, Word
from clcr_edge.runtime.engine import StepInputs
from clcr_edge.runtime.session import step_inputs
from clcr_edge.runtime.ticker import Ticker

_WORDS = ("zero", "one", "seven", "hello", "Kiosk", "a", "internationalisation")


def tick_inputs(config: StudentConfig, ticks: int, seed: int) -> list[StepInputs]:
    """Inputs of so many ticks. Some thirty words come early, so that every window is full when comparing begins."""
    rng = np.random.default_rng(seed)
    ticker = Ticker(config.tick)
    ticker.start(0.0)
    rate, size = config.tick.rate_hz, config.tick.samples
    made = []
    away = {"vision": 0, "audio": 0}
    for tick in range(ticks):
        for name in away:
            if away[name] > 0:
                away[name] -= 1
            elif tick > 20 and rng.random() < 0.01:
                away[name] = int(rng.choice([1, 2, 3, 7, 40]))
        if not away["vision"]:
            ticker.push_frame(VideoFrame(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), tick / rate, tick))
        if not away["audio"]:
            samples = (0.1 * rng.standard_normal(size)).astype(np.float32)
            ticker.push_audio(AudioChunk(samples, config.tick.sample_rate_hz, tick / rate))
        for _ in range(int(rng.integers(1, 3)) if rng.random() < (0.25 if tick < 100 else 0.06) else 0):
            end_s = (tick + 1) / rate - float(rng.uniform(0.0, 0.8))
            ticker.push_word(Word(str(rng.choice(_WORDS)), end_s - 0.3, end_s, float(rng.random())))
        made.append(step_inputs(ticker.cut(), config))
    return made
