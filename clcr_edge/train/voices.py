"""More voices than were recorded: the filter bank of one speaker bent into that of another, in training only.

Vocal tracts differ in length, which stretches the frequency axis (vocal tract length perturbation, Jaitly and Hinton 2013);
rooms and microphones swallow bands (SpecAugment's frequency masks, Park et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor

STRETCH = (0.86, 1.16)
_KNEE = 0.8  # above this share of the axis the stretch is taken back, so that the top stays the top
_MASKS, _WIDEST = 2, 6


def other_voices(fbank: Tensor, seed: int) -> Tensor:
    """float32 `[B, T, F, n_mels]` -> the same, one random voice per recording. Deterministic in (fbank, seed)."""
    random = torch.Generator().manual_seed(seed)
    batch, ticks, frames, mels = fbank.shape
    band, top = torch.arange(mels).float().unsqueeze(0), float(mels - 1)
    stretch = torch.empty(batch, 1).uniform_(*STRETCH, generator=random)
    knee = _KNEE * top / stretch.clamp_min(1.0)
    above = knee * stretch + (band - knee) * (top - knee * stretch) / (top - knee)
    source = torch.where(band <= knee, band * stretch, above).clamp(0.0, top)
    low = source.floor().long().clamp_max(mels - 2)
    share = (source - low).unsqueeze(1)
    flat = fbank.reshape(batch, ticks * frames, mels)
    place = low.unsqueeze(1).expand(-1, ticks * frames, -1)
    bent = flat.gather(2, place) * (1.0 - share) + flat.gather(2, place + 1) * share
    mean = bent.mean(dim=(1, 2), keepdim=True)
    for _ in range(_MASKS):
        width = torch.randint(0, _WIDEST + 1, (batch, 1), generator=random)
        first = torch.randint(0, mels, (batch, 1), generator=random)
        bent = torch.where(((band >= first) & (band < first + width)).unsqueeze(1), mean, bent)
    return bent.view_as(fbank)
