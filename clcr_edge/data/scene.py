"""What the camera sees: a cluttered, moving background and the things held up in front of it, 96 x 96 luma.

Everything that lasts (a background, a texture, the noise) is made once and only sampled per frame. Sizes are in
pixels of the 96.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clcr_edge.data.cards import SIDE, Card, make_face
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.fields import NOISE, blur, enlarge_matrix, soft_field, textures, white_field
from clcr_edge.data.glyphs import letter_glyphs
from clcr_edge.packets import ByteArray, FloatArray

SIZE = 96
_CANVAS = 144  # room for the camera to pan
_STEPS = np.arange(SIZE, dtype=np.int32)
_PIXELS = SIZE * SIZE


@dataclass(frozen=True)
class Track:
    """How a card moves: per frame from tick `first` on, float64 `[n]` each.

    x, y: place of the cell's centre; size: pixels across the cell; angle: radians; shear: x per y. fast: bool `[n]`,
    the frames in which `blurred`, the card with motion blur, is seen instead.
    """

    card: Card
    blurred: Card
    first: int
    x: FloatArray
    y: FloatArray
    size: FloatArray
    angle: FloatArray
    shear: float
    fast: npt.NDArray[np.bool_]


def wander(count: int, every: int, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A smooth random path of `count` points around 0, a new direction about every `every` of them."""
    knots = count // every + 3
    return np.interp(np.arange(count) / every, np.arange(knots), rng.normal(0.0, scale, knots))


def make_background(rng: np.random.Generator, blur_px: float) -> FloatArray:
    """A drawn room: cloudy texture, gradient, boxes, ellipses, lines, letters, a face; float32 `[144, 144]`, 0..255."""
    y0, x0 = rng.integers(0, 256 - _CANVAS, 2)
    canvas = textures()[rng.integers(16), y0 : y0 + _CANVAS, x0 : x0 + _CANVAS] * np.float32(rng.uniform(0, 70))
    ramp = np.linspace(-1, 1, _CANVAS, dtype=np.float32)
    canvas += np.float32(rng.uniform(30, 225)) + ramp * np.float32(rng.normal(0, 25))
    canvas += ramp[:, None] * np.float32(rng.normal(0, 25))
    axis = np.arange(_CANVAS, dtype=np.float32)
    for kind in rng.choice(5, int(rng.integers(0, 12)), p=[0.3, 0.2, 0.25, 0.2, 0.05]):
        grey = np.float32(rng.uniform(0, 255))
        h, w = rng.integers(6, 70, 2)
        y, x = int(rng.integers(-10, _CANVAS - 8)), int(rng.integers(-10, _CANVAS - 8))
        box = slice(max(y, 0), y + int(h)), slice(max(x, 0), x + int(w))
        if kind == 0:
            canvas[box] += np.float32(rng.uniform(0.3, 1.0)) * (grey - canvas[box])
        elif kind == 1:
            far = ((axis[box[0], None] - (y + h / 2)) / (h / 2)) ** 2 + ((axis[None, box[1]] - (x + w / 2)) / (w / 2)) ** 2
            canvas[box] += np.clip((1.0 - far) * 4, 0, 1).astype(np.float32) * (grey - canvas[box])
        elif kind == 2:
            angle, width = rng.uniform(0, np.pi), rng.uniform(0.6, 3.0)
            far = np.abs((axis[:, None] - y) * np.float32(np.cos(angle)) + (axis[None, :] - x) * np.float32(np.sin(angle)))
            canvas += np.clip(np.float32(width) - far, 0, 1) * (grey - canvas)
        elif kind == 3:
            side = int(rng.integers(14, 60))
            grow = enlarge_matrix(28, side)
            mark = np.clip(grow @ letter_glyphs()[rng.integers(240)] @ grow.T, 0, 1)
            box = slice(max(y, 0), min(y + side, _CANVAS)), slice(max(x, 0), min(x + side, _CANVAS))
            mark = mark[box[0].start - y : box[0].stop - y, box[1].start - x : box[1].stop - x]
            canvas[box] += mark * (grey - canvas[box])
        else:
            face = make_face(float(rng.uniform(40, 90)), (blur_px, blur_px), rng)
            step = int(rng.integers(2, 4))
            keep, paint = (a.reshape(SIDE, SIDE)[::step, ::step] for a in (face.keep, face.paint))
            n = min(_CANVAS, len(keep))
            y, x = int(rng.integers(0, _CANVAS - n + 1)), int(rng.integers(0, _CANVAS - n + 1))
            part = canvas[y : y + n, x : x + n]
            part *= keep[:n, :n]
            part += paint[:n, :n]
    sigma = float(rng.uniform(0.0, 0.4 + blur_px))
    return np.clip(blur(canvas, sigma, sigma), 0.0, 255.0)


def _inverse(track: Track) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Screen -> texel as 16.16 fixed point `[n, 6]` (u per x, u per y, u0, v per x, v per y, v0), and boxes `[n, 4]`."""
    scale = track.card.cell / track.size
    cos, sin = np.cos(track.angle) * scale, np.sin(track.angle) * scale
    # texel = shear . rotation . (pixel - centre): u = cos dx + sin dy + shear v, v = -sin dx + cos dy.
    ux, uy, vx, vy = cos - track.shear * sin, sin + track.shear * cos, -sin, cos
    centre = SIDE / 2.0
    u0, v0 = centre - ux * track.x - uy * track.y, centre - vx * track.x - vy * track.y
    matrix = np.stack([ux, uy, u0, vx, vy, v0], axis=1) * 65_536.0
    n = len(track.x)
    if track.card.reach_x is None or track.card.reach_y is None:
        box = np.tile([0, SIZE, 0, SIZE], (n, 1))
    else:
        # The sheet's outline on the screen: |forward matrix| . reach.
        det = ux * vy - uy * vx
        hull_x = (np.abs(vy) * track.card.reach_x + np.abs(uy) * track.card.reach_y) / det
        hull_y = (np.abs(vx) * track.card.reach_x + np.abs(ux) * track.card.reach_y) / det
        box = np.stack([track.y - hull_y, track.y + hull_y, track.x - hull_x, track.x + hull_x], axis=1)
        box = np.clip(box, 0, SIZE)
    return matrix.astype(np.int32), box.astype(np.int32)


def _paint(frame: FloatArray, card: Card, m: list[int], box: list[int]) -> None:
    y0, y1, x0, x1 = box
    if y1 <= y0 or x1 <= x0:
        return
    ux, uy, u0, vx, vy, v0 = m
    xs, ys = _STEPS[x0:x1], _STEPS[y0:y1, None]
    u = (xs * np.int32(ux) + np.int32(u0)) + ys * np.int32(uy)
    v = (xs * np.int32(vx) + np.int32(v0)) + ys * np.int32(vy)
    u >>= 16
    u &= 255
    v >>= 8
    v &= 0xFF00
    u |= v
    at = u.astype(np.intp)
    part = frame[y0:y1, x0:x1]
    part *= card.keep[at]
    part += card.paint[at]


def render(
    ticks: int,
    tracks: list[Track],
    present: npt.NDArray[np.bool_],
    conditions: Conditions,
    rng: np.random.Generator,
) -> ByteArray:
    """All frames of a stream: uint8 `[ticks, 96, 96]`; zeros where the camera is away.

    present: bool `[ticks]`. Tracks are painted in their order. Deterministic in `rng`.
    """
    frames = np.zeros((ticks, SIZE, SIZE), np.uint8)
    painted: list[list[tuple[Card, list[int], list[int]]]] = [[] for _ in range(ticks)]
    for track in tracks:
        matrix, box = _inverse(track)
        for k, (m, b) in enumerate(zip(matrix.tolist(), box.tolist(), strict=True)):
            if 0 <= track.first + k < ticks:
                painted[track.first + k].append((track.blurred if track.fast[k] else track.card, m, b))

    cuts = {0}
    while max(cuts) < ticks:
        cuts.add(max(cuts) + int(rng.integers(150, 450)))
    room = (_CANVAS - SIZE) / 2.0
    shake = float(rng.choice([0.0, 1.5, 6.0]))
    pan_y = np.clip(room + wander(ticks, 20, shake, rng), 0, 2 * room).astype(int).tolist()
    pan_x = np.clip(room + wander(ticks, 20, shake, rng), 0, 2 * room).astype(int).tolist()
    gain = np.clip(rng.normal(1.0, 0.12) + wander(ticks, 40, 0.06, rng), 0.55, 1.4).astype(np.float32)
    edge = np.linspace(-1, 1, SIZE, dtype=np.float32) ** 2
    light = 1.0 - np.float32(rng.uniform(0.0, 0.35)) * (edge[:, None] + edge) / 2
    light += np.float32(rng.normal(0, 0.08)) * np.linspace(-1, 1, SIZE, dtype=np.float32)
    soft = rng.random() < 0.3
    field = soft_field() if soft else white_field()
    # Soft noise hides several times more than white noise of its power.
    sigma = np.float32(255.0 * conditions.image_noise * (0.45 if soft else 1.0))
    places = rng.integers(0, NOISE - _PIXELS, ticks).tolist()
    hold = 1 if conditions.plain or rng.random() < 0.7 else int(rng.integers(2, 5))
    blocks = 0.0 if conditions.plain or rng.random() < 0.85 else float(rng.uniform(10, 40))

    frame, noise = np.empty((SIZE, SIZE), np.float32), np.empty((SIZE, SIZE), np.float32)
    canvas = make_background(rng, conditions.blur_px)
    for t in range(ticks):
        if t and t in cuts:
            canvas = make_background(rng, conditions.blur_px)
        if not present[t]:
            continue
        if hold > 1 and t % hold and present[t - 1]:
            frames[t] = frames[t - 1]
            continue
        y, x = pan_y[t], pan_x[t]
        np.copyto(frame, canvas[y : y + SIZE, x : x + SIZE])
        for card, m, b in painted[t]:
            _paint(frame, card, m, b)
        frame *= light
        frame *= gain[t]
        if sigma > 0:
            np.multiply(field[places[t] : places[t] + _PIXELS].reshape(SIZE, SIZE), sigma, out=noise)
            frame += noise
        if blocks:
            _compress(frame, blocks)
        np.clip(frame, 0.0, 255.0, out=frame)
        np.copyto(frames[t], frame, casting="unsafe")
    return frames


def _compress(frame: FloatArray, step: float) -> None:
    """Coarse steps around the mean of 8 x 8 blocks: what a starved video codec leaves."""
    tiles = frame.reshape(SIZE // 8, 8, SIZE // 8, 8)
    mean = tiles.mean(axis=(1, 3), keepdims=True)
    tiles -= mean
    tiles /= np.float32(step)
    np.rint(tiles, out=tiles)
    tiles *= np.float32(step)
    tiles += mean
