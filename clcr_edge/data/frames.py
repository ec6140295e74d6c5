"""Single frames with what they show: a dense diet for the frame CNN, before or beside the streams.

A stream shows one digit in forty frames running; here every second frame is another digit, on another card, in another
room. The pictures come from the same drawers as the streams'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clcr_edge.data.background import CANVAS, make_background
from clcr_edge.data.bank import NONE, DigitBank
from clcr_edge.data.conditions import Conditions, draw_training_conditions
from clcr_edge.data.fields import NOISE
from clcr_edge.data.plan import Shown, other_card
from clcr_edge.data.scene import PIXELS, SIZE, Camera, Sampler, Sprite
from clcr_edge.data.tracks import make_track
from clcr_edge.packets import ByteArray

_POSES = 2


def make_frames(bank: DigitBank, count: int, seed: int, hardness: float = 1.0) -> tuple[ByteArray, npt.NDArray[np.int64]]:
    """`count` pictures, uint8 `[count, 96, 96]`, and the digit each shows, int64 `[count]`, 10 for none.

    Two thirds show a digit, the rest something else or nothing. Conditions vary from picture to picture as they do
    from training stream to training stream. hardness: 0..1, a factor on noise and blur. Deterministic in the arguments.
    """
    rng = np.random.default_rng([seed, 7])
    frames, labels = np.zeros((count, SIZE, SIZE), np.uint8), np.full(count, NONE, np.int64)
    scratch = np.empty((SIZE, SIZE), np.float32)
    for first in range(0, count, _POSES):
        conditions = _ease(draw_training_conditions(rng), hardness)
        if first % (4 * _POSES) == 0:
            canvas = make_background(rng, conditions.blur_px)
            person = Sprite(make_track(Shown("person", 0, _POSES), bank, conditions.blur_px, False, rng))
        camera = Camera(conditions, rng)
        painters: list[Sampler | Sprite] = []
        if rng.random() < 0.4:
            painters.append(person)
        way, digit = rng.random(), NONE
        if way < 0.85:
            if way < 0.66:
                digit = int(rng.integers(10))
                shown = Shown("digit", 0, 1, int(rng.choice(bank.images_of(digit))))
            else:
                shown = other_card(bank, 0, 1, rng)
            # One card, as it is at several moments of a sway far longer than any in a stream.
            painters.append(Sampler(make_track(shown, bank, conditions.blur_px, False, rng, poses=_POSES)))
        for k in range(min(_POSES, count - first)):
            y, x = rng.integers(0, CANVAS - SIZE + 1, 2)
            np.copyto(scratch, canvas[y : y + SIZE, x : x + SIZE])
            for painter in painters:
                painter.paint(scratch, k)
            gain = float(np.clip(rng.normal(1.0, 0.13), 0.55, 1.4))
            camera.expose(scratch, gain, int(rng.integers(NOISE - PIXELS)), frames[first + k])
            labels[first + k] = digit
    order = rng.permutation(count)
    return frames[order], labels[order]


def _ease(conditions: Conditions, hardness: float) -> Conditions:
    if hardness >= 1.0:
        return conditions
    blur = conditions.blur_px * max(hardness, 0.5)
    return dataclasses.replace(conditions, image_noise=conditions.image_noise * hardness, blur_px=blur)


def training_frames(
    bank: DigitBank, seed: int, count: int, *, start: int = 0, easy: int = 0
) -> Iterator[tuple[ByteArray, npt.NDArray[np.int64]]]:
    """Endless batches of `make_frames`; batch `k` depends on (seed, k, easy) alone. start: the first `k`. easy: noise and blur
    grow to their full measure over this many batches."""
    index = start
    while True:
        hardness = min(1.0, 0.1 + index / easy) if easy else 1.0
        yield make_frames(bank, count, int(np.random.SeedSequence([seed, index, 1]).generate_state(1)[0]), hardness)
        index += 1
