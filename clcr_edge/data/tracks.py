"""From "this is held up from then to then" to where it is, how large, turned and blurred, in every frame."""

from __future__ import annotations

import numpy as np

from clcr_edge.data.bank import DigitBank
from clcr_edge.data.cards import Card, bend, make_card, make_face
from clcr_edge.data.glyphs import letter_glyphs, scribble
from clcr_edge.data.plan import Shown
from clcr_edge.data.scene import SIZE, Track, wander
from clcr_edge.packets import FloatArray


def _glyph(shown: Shown, bank: DigitBank, rng: np.random.Generator, plain: bool) -> FloatArray | None:
    if shown.kind in ("blank", "face"):
        return None
    if shown.kind == "scribble":
        return scribble(rng)
    if shown.kind in ("letter", "chimera"):
        letter = np.asarray(letter_glyphs()[rng.integers(240)], np.float32)
        if shown.kind == "chimera":  # the left half of one, the right half of another
            letter = letter.copy()
            letter[:, 14:] = letter_glyphs()[rng.integers(240), :, 14:]
        return letter
    glyph = np.asarray(bank.images[shown.image] / 255.0, np.float32)
    if shown.kind == "mirrored":
        glyph = np.ascontiguousarray(glyph[:, ::-1])
    return glyph if plain or rng.random() < 0.4 else bend(glyph, rng)


def make_track(shown: Shown, bank: DigitBank, blur_px: float, plain: bool, rng: np.random.Generator, poses: int = 0) -> Track:
    """Something shown, where it is in each frame: it slides in, or is simply there, sways, and leaves.

    poses: instead of a movement, this many places and tilts that have nothing to do with each other.
    """
    if shown.kind == "person":
        return _sitting(shown, blur_px, rng)
    # A digit fills 20/28 of its cell: 26 to 80 pixels high.
    size = float(np.exp(rng.uniform(np.log(36.0), np.log(112.0))))
    blur = float(rng.uniform(0.0, min(blur_px, size / 40.0)))
    if poses:
        return _posed(shown, bank, size, blur, plain, rng, poses)
    enter, leave = (int(rng.integers(3, 10)) if rng.random() < 0.75 else 0 for _ in range(2))
    # It counts as shown from when it is two fifths of the way in (about half of the digit is in the picture).
    before, after = (4 * enter) // 10, (4 * leave) // 10
    count = before + shown.last - shown.first + after
    ramp = np.zeros((2, count))
    for steps, part in ((enter, slice(0, enter)), (leave, slice(count - leave, count))):
        if steps:
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(50, 100)
            fall = (1.0 - (np.arange(steps) + 0.5) / steps) ** 1.5
            ramp[:, part] = far * np.array([[np.cos(angle)], [np.sin(angle)]]) * (fall if part.start == 0 else fall[::-1])
    free = max(SIZE / 2.0 - 0.4 * size, 0.0)
    centre = SIZE / 2.0 + rng.uniform(-free, free, 2)
    sway = float(rng.choice([0.3, 1.2, 3.0]))
    moving = bool(np.hypot(ramp[0, :enter], ramp[1, :enter]).any())
    seed = int(rng.integers(1 << 62))
    x, y = centre[0] + ramp[0] + wander(count, 12, sway, rng), centre[1] + ramp[1] + wander(count, 12, sway, rng)
    angle_rad = np.deg2rad(rng.uniform(-15, 15) + wander(count, 15, 2.0, rng))
    sizes = size * (1.0 + wander(count, 15, 0.03, rng))
    shear = float(np.clip(rng.normal(0.0, 0.07), -0.15, 0.15))
    glyph = _glyph(shown, bank, rng, plain)

    def card(blur_y: float, blur_x: float) -> Card:
        # The same card twice: still, and blurred by its motion.
        return _card(shown, glyph, size, (blur_y, blur_x), np.random.default_rng(seed), plain)

    still = card(blur, blur)
    blurred, fast = still, np.zeros(count, bool)
    if moving and not plain and rng.random() < 0.6:
        step = np.hypot(np.gradient(x), np.gradient(y)) if count > 1 else np.zeros(count)
        fast = step > 2.0
        along = np.abs(ramp[:, 0]) / max(float(np.hypot(*ramp[:, 0])), 1e-6)
        blurred = card(blur + 2.5 * along[1], blur + 2.5 * along[0])
    return Track(still, blurred, shown.first - before, x, y, sizes, angle_rad, shear, fast)


def _card(
    shown: Shown,
    glyph: FloatArray | None,
    size: float,
    blur: tuple[float, float],
    rng: np.random.Generator,
    plain: bool,
) -> Card:
    if shown.kind == "face":
        return make_face(size, blur, rng, body=False)
    return make_card(glyph, size, blur, rng, plain)


def _posed(shown: Shown, bank: DigitBank, size: float, blur: float, plain: bool, rng: np.random.Generator, poses: int) -> Track:
    moving = np.asarray([2.5, 0.3]) * rng.random() if rng.random() < 0.2 else np.zeros(2)
    blur_y, blur_x = blur + rng.permutation(moving)
    card = _card(shown, _glyph(shown, bank, rng, plain), size, (float(blur_y), float(blur_x)), rng, plain)
    sizes = size * rng.uniform(0.9, 1.1, poses)
    free = np.maximum(SIZE / 2.0 - 0.38 * sizes, 0.0)
    x, y = SIZE / 2.0 + free * rng.uniform(-1.0, 1.0, (2, poses))
    angle_rad = np.deg2rad(rng.uniform(-18, 18, poses))
    shear = float(np.clip(rng.normal(0.0, 0.07), -0.15, 0.15))
    return Track(card, card, shown.first, x, y, sizes, angle_rad, shear, np.zeros(poses, bool))


def _sitting(shown: Shown, blur_px: float, rng: np.random.Generator) -> Track:
    """Somebody in front of the camera, who sways a little."""
    count = shown.last - shown.first
    size = float(rng.uniform(28.0, 85.0))
    blur = float(rng.uniform(0.0, blur_px))
    x = SIZE / 2.0 + rng.uniform(-26.0, 26.0) + wander(count, 20, 2.0, rng)
    # Low enough that the body goes on to the edge of the picture.
    y = max(rng.uniform(28.0, 56.0), 100.0 - size) + wander(count, 20, 1.0, rng)
    card = make_face(size, (blur, blur), rng, body=True)
    return Track(card, card, shown.first, x, y, np.full(count, size), np.zeros(count), 0.0, np.zeros(count, bool), rigid=True)
