"""What the camera sees: a cluttered, moving background and the things held up in front of it, 96 x 96 luma.

Everything that lasts (a background, a texture, the noise) is made once and only sampled per frame. Sizes are in
pixels of the 96.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clcr_edge.data.background import CANVAS, make_background
from clcr_edge.data.cards import SIDE, Card
from clcr_edge.data.conditions import Conditions
from clcr_edge.data.fields import NOISE, soft_field, white_field
from clcr_edge.packets import ByteArray, FloatArray

SIZE = 96
_SHIFT_U, _SHIFT_V, _ROW_MASK = np.uint32(24), np.uint32(16), np.uint32(0xFF00)
PIXELS = SIZE * SIZE
PathArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Track:
    """How a card moves: per frame from tick `first` on, float64 `[n]` each.

    x, y: place of the cell's centre; size: pixels across the cell; angle: radians; shear: x per y. fast: bool `[n]`,
    the frames in which `blurred`, the card with motion blur, is seen instead. rigid: it only shifts; size and angle
    are those of the first frame (the angle none).
    """

    card: Card
    blurred: Card
    first: int
    x: PathArray
    y: PathArray
    size: PathArray
    angle: PathArray
    shear: float
    fast: npt.NDArray[np.bool_]
    rigid: bool = False


def wander(count: int, every: int, scale: float, rng: np.random.Generator) -> PathArray:
    """A smooth random path of `count` points around 0, a new direction about every `every` of them."""
    knots = count // every + 3
    return np.interp(np.arange(count) / every, np.arange(knots), rng.normal(0.0, scale, knots))


class Sampler:
    """Paints one track: the nearest texel for each pixel of the sheet's outline, frame by frame.

    Texel addresses are 32-bit fixed point with 8 bits before the point, so that they wrap round the texture by
    themselves. What is affine in x and y is a sum of a row and a column, made for all frames at once.
    """

    def __init__(self, track: Track) -> None:
        self.track = track
        scale = track.card.cell / track.size
        cos, sin = np.cos(track.angle) * scale, np.sin(track.angle) * scale
        # texel = shear . rotation . (pixel - centre): u = cos dx + sin dy + shear v, v = -sin dx + cos dy.
        ux, uy, vx, vy = cos - track.shear * sin, sin + track.shear * cos, -sin, cos
        u0, v0 = SIDE / 2.0 - ux * track.x - uy * track.y, SIDE / 2.0 - vx * track.x - vy * track.y

        def fixed(texels: PathArray) -> npt.NDArray[np.uint32]:
            return (texels * float(1 << 24)).astype(np.int64).astype(np.uint32)

        steps = np.arange(SIZE, dtype=np.float64)
        self._u_row, self._u_column = fixed(np.outer(ux, steps) + u0[:, None]), fixed(np.outer(uy, steps))
        self._v_row, self._v_column = fixed(np.outer(vx, steps) + v0[:, None]), fixed(np.outer(vy, steps))
        reach_x, reach_y = track.card.reach_x, track.card.reach_y
        if reach_x is None or reach_y is None:
            box = np.tile([0, SIZE, 0, SIZE], (len(track.x), 1))
        else:
            # The sheet's outline on the screen: |forward matrix| . reach.
            det = ux * vy - uy * vx
            half_x = (np.abs(vy) * reach_x + np.abs(uy) * reach_y) / det
            half_y = (np.abs(vx) * reach_x + np.abs(ux) * reach_y) / det
            box = np.stack([track.y - half_y, track.y + half_y, track.x - half_x, track.x + half_x], axis=1)
            box = np.clip(box, 0, SIZE).astype(int)
        self._boxes: list[list[int]] = box.tolist()

    def paint(self, frame: FloatArray, k: int) -> None:
        """Paint frame `k` of the track onto float32 `[96, 96]`, in place."""
        y0, y1, x0, x1 = self._boxes[k]
        if y1 <= y0 or x1 <= x0:
            return
        card = self.track.blurred if self.track.fast[k] else self.track.card
        u = self._u_row[k, x0:x1] + self._u_column[k, y0:y1, None]
        v = self._v_row[k, x0:x1] + self._v_column[k, y0:y1, None]
        u >>= _SHIFT_U
        v >>= _SHIFT_V
        v &= _ROW_MASK
        u |= v
        at = u.astype(np.intp)
        part = frame[y0:y1, x0:x1]
        part *= card.keep[at]
        part += card.paint[at]


class Sprite:
    """Paints a track that neither turns nor grows: sampled once, then only moved by whole pixels."""

    def __init__(self, track: Track) -> None:
        step = track.card.cell / float(track.size[0])
        columns = np.arange(0, SIDE, step).astype(int)
        self._keep = np.ascontiguousarray(track.card.keep.reshape(SIDE, SIDE)[columns[:, None], columns])
        self._paint = np.ascontiguousarray(track.card.paint.reshape(SIDE, SIDE)[columns[:, None], columns])
        half = len(columns) / 2.0
        self._y, self._x = np.rint(track.y - half).astype(int).tolist(), np.rint(track.x - half).astype(int).tolist()

    def paint(self, frame: FloatArray, k: int) -> None:
        """Paint frame `k` of the track onto float32 `[96, 96]`, in place."""
        y, x, side = self._y[k], self._x[k], len(self._keep)
        y0, y1, x0, x1 = max(y, 0), min(y + side, SIZE), max(x, 0), min(x + side, SIZE)
        if y1 <= y0 or x1 <= x0:
            return
        part = frame[y0:y1, x0:x1]
        part *= self._keep[y0 - y : y1 - y, x0 - x : x1 - x]
        part += self._paint[y0 - y : y1 - y, x0 - x : x1 - x]


class Camera:
    """What a camera does to the light: vignette, sensor noise, at times a starved codec; one per stream."""

    def __init__(self, conditions: Conditions, rng: np.random.Generator) -> None:
        edge = np.linspace(-1, 1, SIZE, dtype=np.float32) ** 2
        self._light = 1.0 - np.float32(rng.uniform(0.0, 0.35)) * (edge[:, None] + edge) / 2
        self._light += np.float32(rng.normal(0, 0.08)) * np.linspace(-1, 1, SIZE, dtype=np.float32)
        soft = rng.random() < 0.3
        self._field = soft_field() if soft else white_field()
        # Soft noise hides several times more than white noise of its power.
        self._sigma = np.float32(255.0 * conditions.image_noise * (0.45 if soft else 1.0))
        self._step = np.float32(0.0 if conditions.plain or rng.random() < 0.85 else rng.uniform(10, 40))
        self._noise = np.empty((SIZE, SIZE), np.float32)

    def expose(self, frame: FloatArray, gain: float, place: int, out: ByteArray) -> None:
        """Scene, float32 `[96, 96]` (changed in place), -> picture `out`, uint8 `[96, 96]`. place: where in the noise."""
        frame *= self._light
        frame *= np.float32(gain)
        if self._sigma > 0:
            field = self._field[place : place + PIXELS].reshape(SIZE, SIZE)
            frame += np.multiply(field, self._sigma, out=self._noise)
        if self._step > 0:
            _compress(frame, self._step)
        np.clip(frame, 0.0, 255.0, out=frame)
        np.copyto(out, frame, casting="unsafe")


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
    painted: list[list[tuple[Sampler | Sprite, int]]] = [[] for _ in range(ticks)]
    for track in tracks:
        painter = Sprite(track) if track.rigid else Sampler(track)
        for t in range(max(track.first, 0), min(track.first + len(track.x), ticks)):
            painted[t].append((painter, t - track.first))

    cuts = {0}
    while max(cuts) < ticks:
        cuts.add(max(cuts) + int(rng.integers(150, 450)))
    room = (CANVAS - SIZE) / 2.0
    shake = float(rng.choice([0.0, 1.5, 6.0]))
    pan_y = np.clip(room + wander(ticks, 20, shake, rng), 0, 2 * room).astype(int).tolist()
    pan_x = np.clip(room + wander(ticks, 20, shake, rng), 0, 2 * room).astype(int).tolist()
    gain = np.clip(rng.normal(1.0, 0.12) + wander(ticks, 40, 0.06, rng), 0.55, 1.4).astype(np.float32)
    camera = Camera(conditions, rng)
    places = rng.integers(0, NOISE - PIXELS, ticks).tolist()
    hold = 1 if conditions.plain or rng.random() < 0.7 else int(rng.integers(2, 5))
    frame = np.empty((SIZE, SIZE), np.float32)
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
        for painter, k in painted[t]:
            painter.paint(frame, k)
        camera.expose(frame, gain[t], places[t], frames[t])
    return frames


def _compress(frame: FloatArray, step: np.float32) -> None:
    """Coarse steps around the mean of 8 x 8 blocks: what a starved video codec leaves."""
    tiles = frame.reshape(SIZE // 8, 8, SIZE // 8, 8)
    mean = tiles.mean(axis=(1, 3), keepdims=True)
    tiles -= mean
    tiles /= step
    np.rint(tiles, out=tiles)
    tiles *= step
    tiles += mean
