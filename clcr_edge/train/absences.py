"""Takes modalities away from training samples, so that one that is missing is a normal input (this project)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from clcr_edge.model.teacher.inputs import Sequence


def without_some(inputs: dict[str, Sequence], share: float, rng: np.random.Generator) -> dict[str, Sequence]:
    """Each modality of each sample is taken away with probability `share`; one of those that were there always stays."""
    there = torch.stack([s.mask.any(dim=1) for s in inputs.values()], dim=1).numpy()  # [B, M]
    # The one with the largest draw among what is there stays, whatever it drew.
    draw = np.where(there, rng.random(there.shape), -1.0)
    stays = (draw >= share) | (draw == draw.max(axis=1, keepdims=True))
    kept = torch.from_numpy(stays & there)
    return {name: replace(s, mask=s.mask & kept[:, m : m + 1]) for m, (name, s) in enumerate(inputs.items())}
