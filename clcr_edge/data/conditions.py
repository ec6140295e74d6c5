"""How hard a stream is: noise on the picture, noise in the room, a recogniser that errs, and devices that go away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clcr_edge.errors import ConfigError

# Fixed in validation so that vision alone scores 70 to 85 % of events under `heavy`: benchmarks/vision_noise.py measures it.
HEAVY_IMAGE_NOISE = 0.5
# The most that training draws, as a share of full scale.
TRAINING_IMAGE_NOISE = 0.40
HEAVY_AUDIO_SNR_DB = 0.0
HEAVY_WORD_ERROR_RATE = 0.30
NOISE_KINDS = ("white", "pink", "brown", "hum", "bursts", "babble")


@dataclass(frozen=True)
class Conditions:
    """The disturbances of one stream; the scenes themselves vary equally under all of them.

    image_noise: standard deviation of the sensor noise, as a share of full scale (0..2). audio_snr_db: power of the
    speech while somebody speaks, averaged over the stream's speech, to the power of the room noise; None adds no
    noise. noise_kinds: one of these is drawn per stream. word_error_rate: substitutions + deletions + insertions per
    word spoken, 0..1. blur_px: the most defocus that is drawn, in pixels of the 96. plain: True for evaluation, where
    a stream has no camera faults (held frames, compression blocks), no rooms that echo and no clipping.
    """

    image_noise: float = 0.01
    audio_snr_db: float | None = None
    noise_kinds: tuple[str, ...] = ("pink",)
    word_error_rate: float = 0.0
    blur_px: float = 0.8
    plain: bool = True
    name: str = "custom"

    def __post_init__(self) -> None:
        for field, value, low, high in (
            ("image_noise", self.image_noise, 0.0, 2.0),
            ("word_error_rate", self.word_error_rate, 0.0, 1.0),
            ("blur_px", self.blur_px, 0.0, 4.0),
            ("audio_snr_db", 0.0 if self.audio_snr_db is None else self.audio_snr_db, -40.0, 80.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{field} = {value!r}: choose {low} to {high}")
        unknown = [k for k in self.noise_kinds if k not in NOISE_KINDS]
        if unknown or not self.noise_kinds:
            raise ConfigError(f"noise_kinds = {self.noise_kinds!r}: choose from {', '.join(NOISE_KINDS)}")


CLEAN = Conditions(name="clean")
MODERATE = Conditions(
    image_noise=HEAVY_IMAGE_NOISE / 2,
    audio_snr_db=10.0,
    word_error_rate=HEAVY_WORD_ERROR_RATE / 2,
    name="moderate",
)
HEAVY = Conditions(
    image_noise=HEAVY_IMAGE_NOISE,
    audio_snr_db=HEAVY_AUDIO_SNR_DB,
    word_error_rate=HEAVY_WORD_ERROR_RATE,
    name="heavy",
)
BY_NAME = {c.name: c for c in (CLEAN, MODERATE, HEAVY)}


def draw_training_conditions(rng: np.random.Generator) -> Conditions:
    """Conditions of one training stream: from clean to about `heavy`, each disturbance by itself."""
    snr = None if rng.random() < 0.15 else float(rng.uniform(-5.0, 20.0))
    noise = float(rng.uniform(0.0, 0.06) if rng.random() < 0.6 else rng.uniform(0.06, TRAINING_IMAGE_NOISE))
    return Conditions(
        image_noise=noise,
        audio_snr_db=snr,
        noise_kinds=NOISE_KINDS,
        word_error_rate=float(rng.choice([0.0, 0.1, 0.3, 0.45], p=[0.3, 0.3, 0.3, 0.1])),
        blur_px=1.6,
        plain=False,
        name="training",
    )


# What is left when something is missing (language, vision, audio), and how often.
_LEFT = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 0))
_OFTEN = (0.38, 0.18, 0.08, 0.08, 0.18, 0.10)


@dataclass(frozen=True)
class ModalityDropout:
    """How often devices are away, in training.

    whole: the share of streams in which one modality, or two, are missing from beginning to end; sound is left alone most
    often, as it is the hardest to learn from. stretches: the share of the streams in which each modality, by itself, goes away
    now and then. stretch_s: (shortest, longest).
    """

    whole: float = 0.65
    stretches: float = 0.4
    stretch_s: tuple[float, float] = (0.4, 5.0)

    def __post_init__(self) -> None:
        for field, value in (("whole", self.whole), ("stretches", self.stretches)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{field} = {value!r}: a share, 0 to 1")
        if not 0.0 < self.stretch_s[0] <= self.stretch_s[1]:
            raise ConfigError(f"stretch_s = {self.stretch_s!r}: two lengths in seconds, rising")

    def draw(self, ticks: int, rng: np.random.Generator) -> np.ndarray:
        """Presence of language, vision and audio per tick: bool `[3, ticks]`."""
        present = np.ones((3, ticks), bool)
        if rng.random() < self.whole:
            present[:] = np.array(_LEFT[int(rng.choice(len(_LEFT), p=_OFTEN))])[:, None]
        if rng.random() < self.stretches:
            for row in present:
                for _ in range(int(rng.integers(0, 1 + max(1, ticks // 150)))):
                    length = int(25 * rng.uniform(*self.stretch_s)) + 1
                    first = int(rng.integers(-length // 2, ticks))
                    row[max(first, 0) : max(first + length, 0)] = False
        return present
