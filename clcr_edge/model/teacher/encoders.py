"""From any form of input to one vector per position, and on to the three levels (paper: section "hierarchy").

    features --standardise, linear--\\
    frames ---CNN--------------------+--> [B, T, width] --> TCN --> shallow, mid, deep
    fbank ----CNN--------------------|
    ngrams ---mean of embeddings----/
    text -----transformer-------------------------------> early, middle, late layer
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.config import TickConfig
from clcr_edge.errors import DataError
from clcr_edge.model.hierarchy import FrameEncoder, SoundEncoder
from clcr_edge.model.teacher.config import ModalityConfig
from clcr_edge.model.teacher.inputs import Sequence
from clcr_edge.model.teacher.language import TextEncoder
from clcr_edge.model.teacher.tcn import LevelTokens, MaskedNorm, Tcn


class FeatureFront(nn.Module):
    """Vectors that others made: float `[B, T, C]` -> float `[B, T, width]`. Standardised first: their scales are anybody's."""

    def __init__(self, config: ModalityConfig) -> None:
        super().__init__()
        self.standardise = MaskedNorm(config.channels, affine=False)
        self.project = nn.Linear(config.channels, config.width)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        clean = torch.where(mask.unsqueeze(-1), values.float(), 0.0)
        return F.relu(self.project(self.standardise(clean, mask)))


class FrameFront(nn.Module):
    """Images: uint8 `[B, T, C, S, S]` -> float `[B, T, width]`, through the student's kind of CNN.

    share: in training only this random share of the images carries gradient, as in the student: neighbours are nearly alike.
    """

    def __init__(self, config: ModalityConfig) -> None:
        super().__init__()
        self.encoder = FrameEncoder(config, config.channels)
        self.share = 1.0

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        shown = values[mask].float() / 255.0
        made = values.new_zeros(*mask.shape, self.encoder.project.out_features, dtype=torch.float32)
        if len(shown):
            learning = self.encoder.training
            # One frame alone has no batch statistics.
            self.encoder.train(learning and len(shown) > 1)
            made[mask] = self._encode(shown.contiguous(memory_format=torch.channels_last))
            self.encoder.train(learning)
        return made

    def _encode(self, shown: Tensor) -> Tensor:
        if not self.encoder.training or self.share >= 1.0:
            made: Tensor = self.encoder(shown).float()
            return made
        learns = torch.rand(len(shown), device=shown.device) < self.share
        made = shown.new_zeros(len(shown), self.encoder.project.out_features)
        for rows, gradient in ((~learns, False), (learns, True)):
            if rows.any():
                # One image alone has no batch statistics.
                self.encoder.train(int(rows.sum()) > 1)
                with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
                    made[rows] = self.encoder(shown[rows]).float()
        self.encoder.train()
        return made


class SoundFront(nn.Module):
    """Filter-bank frames: float `[B, T, F, mels]` -> float `[B, T, width]`, through the student's CNN.

    Samples without sound stay out of its batch statistics; the padding after a shorter sound does not (it counts as silence).
    """

    def __init__(self, config: ModalityConfig) -> None:
        super().__init__()
        self.context = config.audio_context
        self.encoder = SoundEncoder(config, TickConfig(n_mels=config.channels))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        clean = torch.where(mask[:, :, None, None], values.float(), 0.0).flatten(1, 2)
        rows = mask.any(dim=1)
        made = values.new_zeros(*mask.shape, self.encoder.project.out_channels, dtype=torch.float32)
        if rows.any():
            learning = self.encoder.training
            # One position alone has no batch statistics.
            self.encoder.train(learning and int(rows.sum()) * mask.shape[1] > 1)
            made[rows] = self.encoder(F.pad(clean[rows], (0, 0, self.context, 0))).float()
            self.encoder.train(learning)
        return made


class NgramFront(nn.Module):
    """Words as hashed character n-grams: int `[B, T, G]`, 0 is padding -> float `[B, T, width]`, by their mean."""

    def __init__(self, config: ModalityConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.channels, config.embedding_width, padding_idx=0)
        self.project = nn.Linear(config.embedding_width, config.width)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        clean = torch.where(mask.unsqueeze(-1), values.long(), 0)
        count = (clean > 0).sum(dim=-1, keepdim=True).clamp_min(1)
        return F.relu(self.project(self.embedding(clean).sum(dim=-2) / count))


_FRONTS: dict[str, type[FeatureFront | FrameFront | SoundFront | NgramFront]] = {
    "features": FeatureFront,
    "frames": FrameFront,
    "fbank": SoundFront,
    "ngrams": NgramFront,
}


class Encoder(nn.Module):
    """One modality, from its form to three levels of `LevelTokens`. width: of the levels' values."""

    def __init__(self, name: str, config: ModalityConfig, dropout: float) -> None:
        super().__init__()
        self.name, self.config = name, config
        if config.form == "text":
            self.text: TextEncoder | None = TextEncoder(config)
            self.width = self.text.width
        else:
            self.text = None
            self.front = _FRONTS[config.form](config)
            self.tcn = Tcn(config.width, config.ratios, dropout, config.causal)
            self.width = config.width

    def forward(self, sequence: Sequence) -> list[LevelTokens]:
        self._check(sequence)
        if self.text is not None:
            levels: list[LevelTokens] = self.text(sequence)
            return levels
        mask = sequence.mask
        front = torch.where(mask.unsqueeze(-1), self.front(sequence.values, mask), 0.0)
        made: list[LevelTokens] = self.tcn(LevelTokens(front, mask, sequence.times))
        return made

    def nothing(self, batch: int, device: torch.device) -> list[LevelTokens]:
        """The levels of a modality that the whole batch lacks: one masked token each."""
        empty = torch.zeros(batch, 1, self.width, device=device)
        mask = torch.zeros(batch, 1, dtype=torch.bool, device=device)
        return [LevelTokens(empty, mask, empty.new_zeros(batch, 1, 2))] * 3

    def _check(self, sequence: Sequence) -> None:
        shape, c = tuple(sequence.values.shape), self.config.channels
        form = self.config.form
        wanted, ok = {
            "features": (f"[B, T, {c}]", len(shape) == 3 and shape[2] == c),
            "frames": (f"[B, T, {c}, S, S]", len(shape) == 5 and shape[2] == c),
            "fbank": (f"[B, T, 4, {c}]", len(shape) == 4 and shape[2:] == (4, c)),
            "ngrams": ("[B, T, G]", len(shape) == 3),
            "text": ("[B, T]", len(shape) == 2),
        }[form]
        if not ok or shape[:2] != tuple(sequence.mask.shape):
            raise DataError(f"{self.name}: {form} of shape {list(shape)} (mask {list(sequence.mask.shape)}), need {wanted}")
        if form in ("features", "fbank") and not bool(torch.isfinite(sequence.values[sequence.mask]).all()):
            raise DataError(f"{self.name}: {form} hold NaN or infinite numbers; mask those positions or replace them")
