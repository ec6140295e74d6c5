"""A stream's state carried from one static graph to another, and over a tick that no graph computes.

The layout is `clcr_edge.export.step.StepState`'s; the runtime knows it by name and shape only.
"""

from __future__ import annotations

import numpy as np

from clcr_edge.config import ModelConfig
from clcr_edge.packets import FloatArray, Modality
from clcr_edge.runtime.engine import State, StepInputs

_CONTEXTS = (2, 2, 4)  # of a TCN stage's convolutions: the strided one, then dilations 1 and 2
_VALID = -1  # the packed token's last column


def window_of(state: State) -> int:
    """Tokens per level window that a state holds."""
    return int(state["tokens"].shape[2])


def resized(state: State, window: int) -> State:
    """The state for a graph of another window: the newest tokens are kept, places that open up hold no valid token."""
    have = window_of(state)
    if have == window:
        return state
    tokens, ages = np.asarray(state["tokens"]), np.asarray(state["word_ages"])
    if have > window:
        tokens, ages = tokens[:, :, have - window :], ages[have - window :]
    else:
        more = window - have
        tokens = np.pad(tokens, ((0, 0), (0, 0), (more, 0), (0, 0)))
        ages = np.pad(ages, (more, 0))
    return {**state, "tokens": np.ascontiguousarray(tokens), "word_ages": np.ascontiguousarray(ages)}


def passed_over(state: State, inputs: StepInputs, model: ModelConfig) -> State:
    """The state after a tick that was not computed. No word may be in `inputs`.

    Sound enters the context that the next tick's encoder reads. What the encoders and convolutions would have made is taken to
    be what they made last (a zero-order hold), so that every window keeps its time; a modality that is absent stays absent.
    """
    present = inputs.present
    fired = inputs.n_new[:, Modality.VISION :] > 0  # [L, 2]
    sound = inputs.fbank if present[1] > 0.5 else np.zeros_like(inputs.fbank)
    features = np.array(state["past_features"])
    first = 0
    for index in range(len(model.strides) * len(_CONTEXTS)):
        level, place = divmod(index, len(_CONTEXTS))
        last = first + _CONTEXTS[place]
        # A strided convolution reads the level below: its buffer advances when that one fires.
        advance = fired[level - 1] if place == 0 and level > 0 else fired[level]
        held = np.concatenate([features[:, first + 1 : last], features[:, last - 1 : last]], axis=1)
        features[:, first:last] = np.where(advance[:, None, None], held, features[:, first:last])
        if index == 0:
            features[:, last - 1] = np.where(present[:, None] > 0.5, features[:, last - 1], np.float32(0.0))
        first = last
    presence = np.concatenate([state["past_presence"], present[:, None]], axis=1)
    made = np.stack([presence[:, -s:].max(axis=1) for s in model.strides])  # [L, 2]
    tokens = np.array(state["tokens"])
    media = tokens[:, 1:]
    newest = media[:, :, -1:].copy()
    newest[:, :, 0, _VALID] = np.minimum(newest[:, :, 0, _VALID], made)
    shifted = np.concatenate([media[:, :, 1:], newest], axis=2)
    tokens[:, 1:] = np.where(fired[:, :, None, None], shifted, media)
    return {
        **state,
        "past_fbank": _newest(np.concatenate([state["past_fbank"], sound]), len(state["past_fbank"])),
        "past_features": features,
        "past_presence": np.ascontiguousarray(presence[:, 1:], np.float32),
        "tokens": tokens,
        "word_ages": np.asarray(state["word_ages"] + np.float32(1.0), np.float32),
        "phase": np.where(fired, np.float32(0.0), state["phase"] + np.float32(1.0)).astype(np.float32),
    }


def _newest(rows: FloatArray, count: int) -> FloatArray:
    return np.ascontiguousarray(rows[len(rows) - count :], np.float32)
