"""The CLCR student: ticks in, one prediction per tick out. This is the offline form, which training runs.

It reads a whole recording at once, makes every token once, cuts the level windows that each wanted tick would see, and runs
IntraCED and InterCAD on them in the textbook way. `clcr_edge.export.step` computes the same, one tick at a time, from state;
that the two agree to float rounding is law 1 (tests/test_laws.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clcr_edge.config import StudentConfig
from clcr_edge.model.hierarchy import FrameEncoder, SoundEncoder, Tcn, WordEncoder
from clcr_edge.model.inter_cad import Aggregated, InterCAD
from clcr_edge.model.intra_ced import LEVELS, MODALITIES, Exchanged, IntraCED, Tokens
from clcr_edge.model.operating_point import OperatingBias
from clcr_edge.packets import Modality

NEVER = 1 << 30  # arrival tick of a word slot that holds no word


@dataclass
class TickBatch:
    """B recordings of T ticks.

    frames: uint8 `[B, T, S, S]` luma. vision, audio: bool `[B, T]`, what is there. fbank: float32 `[B, T, F, n_mels]`.
    ngrams: int `[B, N, G]`. confidence: float32 `[B, N]`. word_tick: int `[B, N]`, the tick in which a word arrives, rising;
    `NEVER` where there is none. word_age: int `[B, N]`, ticks since its end, on arrival.
    """

    frames: Tensor
    vision: Tensor
    fbank: Tensor
    audio: Tensor
    ngrams: Tensor
    confidence: Tensor
    word_tick: Tensor
    word_age: Tensor


class StudentOutput(NamedTuple):
    """Per wanted tick (first dimension `B * N`): InterCAD's output and IntraCED's pooled streams."""

    aggregated: Aggregated
    exchanged: Exchanged


class LevelMap(nn.Module):
    """H = LN(Z W + P), `[..., d]` -> `[..., d]`. P is a constant: a position would change at every tick and spoil the cache.

    Batch norm first (folded into W at export): features are sums of ReLUs, nearly constant at the start, and LN would keep just
    the constant; without it the fused head learned nothing in 300 steps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, z: Tensor) -> Tensor:
        standard = self.standardise(z.flatten(0, -2)).view_as(z)
        made: Tensor = self.norm(self.linear(standard))
        return made


class Features(NamedTuple):
    """frames: float `[B, T, d]`, one per tick. levels: per modality three floats `[B, tokens, d]`."""

    frames: Tensor
    levels: dict[Modality, list[Tensor]]


class Windows(NamedTuple):
    """The level windows of the wanted ticks: token fields `[n, L, M, W, ...]`, valid bool and ages in ticks `[n, L, M, W]`."""

    tokens: Tokens
    valid: Tensor
    age: Tensor


class Student(nn.Module):
    """CLCR as a causal streaming network (arXiv 2602.19605; streaming form and section 2's choices: this project)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        # Training only: the share of frames whose encoding learns, and whether the front ends run in bfloat16.
        self.frame_share, self.half_precision = 1.0, False
        model, tick = config.model, config.tick
        self.frame_encoder = FrameEncoder(model)
        self.sound_encoder = SoundEncoder(model, tick)
        self.word_encoder = WordEncoder(model, tick)
        self.vision_tcn = Tcn(model)
        self.audio_tcn = Tcn(model)
        self.to_level = nn.ModuleList(
            [nn.ModuleList([LevelMap(model.width) for _ in range(MODALITIES)]) for _ in range(LEVELS)]
        )
        self.intra_ced = IntraCED(model, tick.seconds)
        self.inter_cad = InterCAD(model, len(config.classes))
        self.operating_bias = OperatingBias(len(config.classes), MODALITIES)

    def frame_features(self, frames: Tensor, present: Tensor) -> Tensor:
        """uint8 `[B, T, S, S]`, bool `[B, T]` -> float `[B, T, d]`, zero where no frame is (whatever stood there).

        In training only a random share of the frames carries gradient: neighbours are nearly alike, and the CNN's backward pass
        is the dearest part of a step.
        """
        out = frames.new_zeros(*present.shape, self.config.model.width, dtype=torch.float32)
        rows = present.flatten().nonzero().squeeze(1)
        if self.training and self.frame_share < 1.0:
            learning = torch.rand(len(rows)) < self.frame_share
            with torch.no_grad():
                self._encode_frames(frames, rows[~learning], out)
            rows = rows[learning]
        self._encode_frames(frames, rows, out)
        return out

    def _encode_frames(self, frames: Tensor, rows: Tensor, out: Tensor) -> None:
        if not len(rows):
            return
        shown = frames.flatten(0, 1)[rows].unsqueeze(1).float() / 255.0
        shown = shown.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and self.half_precision):
            features = self.frame_encoder(shown)
        out.view(-1, out.shape[-1])[rows] = features.float()

    def sound_features(self, fbank: Tensor, present: Tensor) -> Tensor:
        """float `[B, T, F, n_mels]`, bool `[B, T]` -> float `[B, T, d]`, zero where no audio is."""
        batch, ticks, per_tick, mels = fbank.shape
        clean = torch.where(present[:, :, None, None], fbank, 0.0).reshape(batch, ticks * per_tick, mels)
        padded = torch.nn.functional.pad(clean, (0, 0, self.config.model.audio_context, 0))
        out = fbank.new_zeros(batch, ticks, self.config.model.width)
        rows = present.any(dim=1)  # silence of a whole recording would blur the batch statistics
        if rows.any():
            with torch.autocast("cpu", torch.bfloat16, enabled=self.training and self.half_precision):
                made = self.sound_encoder(padded[rows])
            out[rows] = torch.where(present[rows].unsqueeze(-1), made.float(), 0.0)
        return out

    def tokens(self, features: Tensor, level: int, modality: int, bases: tuple[Tensor, Tensor]) -> Tokens:
        """Level features `[B, T, d]` -> normalised, split tokens."""
        h = self.to_level[level][modality](features)  # type: ignore[index]
        return self.intra_ced.split(h, level, modality, bases)

    def encode(self, batch: TickBatch) -> Features:
        """All level features of a batch."""
        frames = self.frame_features(batch.frames, batch.vision)
        return Features(
            frames,
            {
                Modality.LANGUAGE: self.word_encoder(batch.ngrams, batch.confidence),
                Modality.VISION: self.vision_tcn(frames),
                Modality.AUDIO: self.audio_tcn(self.sound_features(batch.fbank, batch.audio)),
            },
        )

    def windows(self, batch: TickBatch, features: Features, ticks: Tensor) -> Windows:
        """Cut the level windows that ticks `[B, N]` would see. First dimension of the result: `B * N`."""
        config = self.config.model
        width = config.window
        bases = self.intra_ced.bases()
        slots = torch.arange(width, device=ticks.device) - (width - 1)  # -(W-1) .. 0, the newest last
        columns: list[tuple[Tokens, Tensor, Tensor]] = []
        for level, stride in enumerate(config.strides):
            for modality in Modality:
                made = self.tokens(features.levels[modality][level], level, modality, bases)
                if modality is Modality.LANGUAGE:
                    index, valid, age = _word_window(batch, ticks, slots)
                    valid = valid & (age < max(width * stride, config.word_ticks))
                else:
                    present = batch.vision if modality is Modality.VISION else batch.audio
                    index, valid, age = _media_window(present, ticks, slots, stride)
                columns.append((_take(made, index), valid, age))
        n = ticks.numel()

        def stack(parts: list[Tensor]) -> Tensor:
            flat = torch.stack([part.flatten(0, 1) for part in parts], dim=1)
            return flat.reshape(n, LEVELS, MODALITIES, *flat.shape[2:])

        tokens = Tokens(*(stack([getattr(c[0], name) for c in columns]) for name in Tokens._fields))
        return Windows(tokens, stack([c[1] for c in columns]), stack([c[2] for c in columns]).float())

    def fuse(self, windows: Windows) -> StudentOutput:
        """IntraCED and InterCAD over level windows."""
        exchanged = self.intra_ced(*windows)
        made = self.inter_cad(exchanged)
        return StudentOutput(made._replace(logits=self.operating_bias(made.logits, exchanged.there)), exchanged)

    def forward(self, batch: TickBatch, ticks: Tensor) -> StudentOutput:
        """Predict at ticks `[B, N]` of each recording."""
        return self.fuse(self.windows(batch, self.encode(batch), ticks))


def _media_window(present: Tensor, ticks: Tensor, slots: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, validity and ages `[B, N, W]` of vision or audio tokens. A token is valid if any of its ticks was there."""
    batch, total = present.shape
    count = total // stride
    made = present[:, : count * stride].reshape(batch, count, stride).any(dim=2)
    newest = (ticks + 1) // stride - 1
    index = newest.unsqueeze(-1) + slots
    inside = index.clamp(0, max(count - 1, 0))
    valid = (index >= 0) & made.gather(1, inside.flatten(1)).reshape(index.shape)
    age = ticks.unsqueeze(-1) - ((index + 1) * stride - 1)
    return inside, valid, age


def _word_window(batch: TickBatch, ticks: Tensor, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of words: the newest that have arrived by each tick."""
    arrived = (batch.word_tick.unsqueeze(1) <= ticks.unsqueeze(-1)).sum(dim=-1)  # [B, N]
    index = arrived.unsqueeze(-1) - 1 + slots
    inside = index.clamp(0, batch.word_tick.shape[1] - 1)

    def at(x: Tensor) -> Tensor:
        return x.gather(1, inside.flatten(1)).reshape(index.shape)

    age = at(batch.word_age) + ticks.unsqueeze(-1) - at(batch.word_tick)
    return inside, index >= 0, age


def _take(made: Tokens, index: Tensor) -> Tokens:
    """Gather token fields `[B, T, ...]` at `[B, N, W]`."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None, None]
    return Tokens(*(x[rows, index] for x in made))


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers, the bases counted by their matrices."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
