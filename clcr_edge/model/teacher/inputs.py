"""What a teacher reads: padded sequences with masks and times, and the spans of a sample that it is asked about.

Time is a share of the sample: 0 is its beginning, 1 its end. Modalities of different rates meet on that scale without anyone
knowing their rates, and a sample's prediction does not change with the padding of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clcr_edge.errors import DataError

SHORTEST = 1e-4  # share of a sample that a token covers at least: a word of no length is still a word


@dataclass
class Sequence:
    """One modality of B samples, T positions each.

    values, by the modality's form: features float32 `[B, T, channels]`; frames uint8 `[B, T, channels, S, S]`; fbank float32
    `[B, T, F, channels]`, F = 4 frames a position; ngrams int `[B, T, G]`, 0 is padding; text int `[B, T]`, token numbers.
    mask: bool `[B, T]`, the positions that are there (a sample without this modality: none). What stands in the others is never
    read, NaN included. times: float32 `[B, T, 2]`, begin and end of each position as a share of its sample.
    """

    values: Tensor
    mask: Tensor
    times: Tensor

    @classmethod
    def of(
        cls, values: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None, times: Tensor | None = None
    ) -> Sequence:
        """Fill in what is usual: no lengths, every sample fills its row; no mask, every position up to the length is there; no
        times, the positions divide their sample evenly. lengths: int `[B]`, 0 for a sample without this modality."""
        if values.ndim < 2:
            raise DataError(f"values {tuple(values.shape)}: need at least [samples, positions]")
        batch, total = values.shape[:2]
        place = torch.arange(total, device=values.device)
        if lengths is None:
            lengths = torch.full((batch,), total, device=values.device)
        if lengths.shape != (batch,) or bool(((lengths < 0) | (lengths > total)).any()):
            raise DataError(f"lengths {lengths.tolist()}: need {batch} numbers from 0 to {total}")
        inside = place < lengths.unsqueeze(1)
        mask = inside if mask is None else mask & inside
        if times is None:
            begin = place / lengths.clamp_min(1).unsqueeze(1)
            times = torch.stack([begin, (place + 1) / lengths.clamp_min(1).unsqueeze(1)], dim=-1)
        if mask.shape != (batch, total) or times.shape != (batch, total, 2):
            raise DataError(f"mask {tuple(mask.shape)}, times {tuple(times.shape)}: do not fit values {tuple(values.shape)}")
        return cls(values, mask, times.float())

    def to(self, device: torch.device | str) -> Sequence:
        """The same on another device."""
        return Sequence(self.values.to(device), self.mask.to(device), self.times.to(device))


def absent(sequence: Sequence) -> Sequence:
    """The same, with nothing of it there."""
    return replace(sequence, mask=torch.zeros_like(sequence.mask))


def even_spans(counts: Tensor) -> Tensor:
    """Cut sample b into counts[b] even segments: int `[B]` -> spans float32 `[B, max(counts), 2]`.

    AVE: 10 for every clip. One prediction per utterance: the number of utterances. Spans that a sample does not have are empty
    (begin = end = 0), and the teacher answers nothing for them.
    """
    if counts.ndim != 1 or not len(counts) or bool((counts < 0).any()) or int(counts.max()) < 1:
        raise DataError(f"counts {counts.tolist()}: need one number of segments for each sample, some of them above 0")
    place = torch.arange(int(counts.max()), device=counts.device)
    share = torch.stack([place, place + 1], dim=-1) / counts.clamp_min(1)[:, None, None]
    return torch.where((place < counts.unsqueeze(1)).unsqueeze(-1), share, 0.0)


def overlap(times: Tensor, spans: Tensor) -> Tensor:
    """How much of each span a token covers: times `[B, W, 2]`, spans `[B, S, 2]` -> float `[B, W, S]`.

    A coarse token counts in every span that it covers, a fine one in its own: all levels speak to all segments.
    """
    begin = torch.maximum(times[:, :, None, 0], spans[:, None, :, 0])
    end = torch.minimum(_lasting(times)[:, :, None], spans[:, None, :, 1])
    shared = (end - begin).clamp_min(0.0)
    # Rounding makes neighbours touch by 1e-8: that is not an overlap.
    return torch.where(shared > 0.01 * SHORTEST, shared, 0.0)


def _lasting(times: Tensor) -> Tensor:
    return torch.maximum(times[..., 1], times[..., 0] + SHORTEST)
