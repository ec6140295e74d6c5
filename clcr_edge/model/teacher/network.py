"""The CLCR teacher: whole samples in, one prediction per sample or per span out (arXiv 2602.19605).

    encoders --levels--> H = LN(W Z + P) --IntraCED per level--> pooled streams --InterCAD--> logits

IntraCED, InterCAD, the bases and the budget are the student's own modules. What differs is around them: any number of
modalities, encoders that may look ahead or be pretrained, tokens of a whole sample instead of a window, and spans to pool over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.errors import DataError, UsageError
from clcr_edge.model.inter_cad import Aggregated, InterCAD
from clcr_edge.model.intra_ced import LEVELS, Exchanged, IntraCED, Tokens
from clcr_edge.model.teacher.aggregation import LateFusion, PlainAggregation
from clcr_edge.model.teacher.config import TeacherConfig
from clcr_edge.model.teacher.encoders import Encoder
from clcr_edge.model.teacher.inputs import Sequence, overlap
from clcr_edge.model.teacher.tcn import LevelTokens, MaskedNorm
from clcr_edge.model.teacher.variants import Aggregation, Exchange, Levels

_WAVES = 8  # half waves per sample in P: finer places than a sixteenth are the convolutions' work


class TeacherOutput(NamedTuple):
    """aggregated, exchanged: rows `B * S`, sample by sample (S = 1 without spans). asked: bool `[B, S]`, which spans exist.

    What distillation reads: `aggregated.logits`, `shared`, `private` (per level), `level_weights`; `exchanged.participation`.
    Rows not asked about are all zero but for the logits, which mean nothing there.
    """

    aggregated: Aggregated
    exchanged: Exchanged
    asked: Tensor


class LevelMap(nn.Module):
    """H_l^m = LN(W_l^m Z + P_l^m): `[B, W, width]` -> `[B, W, d]`. P is a learned map of waves over the sample's time.

    Z is standardised first, as in the student: features that are sums of ReLUs are nearly constant at the start, and LN would
    keep just the constant.
    """

    def __init__(self, width: int, common: int) -> None:
        super().__init__()
        self.standardise = MaskedNorm(width, affine=False)
        self.linear = nn.Linear(width, common)
        self.position = nn.Linear(2 * _WAVES, common, bias=False)
        self.norm = nn.LayerNorm(common)

    def forward(self, tokens: LevelTokens) -> Tensor:
        middle = tokens.times.mean(dim=-1, keepdim=True)
        phase = math.pi * middle * torch.arange(1, _WAVES + 1, device=middle.device)
        place = self.position(torch.cat([phase.sin(), phase.cos()], dim=-1))
        made: Tensor = self.norm(self.linear(self.standardise(tokens.values, tokens.mask)) + place)
        return made


class Level(NamedTuple):
    """All modalities at one level, padded alike. h: float `[B, M, W, d]`; valid: bool `[B, M, W]`; times `[B, M, W, 2]`."""

    h: Tensor
    valid: Tensor
    times: Tensor


class Teacher(nn.Module):
    """The paper's network for any set of modalities; its variants by name (`clcr_edge.model.teacher.variants`).

    Building it with a text modality loads the pretrained transformer; `MissingPartError` says what is not there.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config, self.switches = config, config.switches
        count = len(config.modalities)
        self.encoders = nn.ModuleDict({name: Encoder(name, modality, config.dropout) for name, modality in config.modalities})
        self.to_level = nn.ModuleList(
            [nn.ModuleList([LevelMap(self._encoder(name).width, config.width) for name in config.names]) for _ in range(LEVELS)]
        )
        if self.switches.aggregation is Aggregation.LATE:
            self.late = LateFusion(config)
            return
        d, r = config.width, config.rank_shared
        # r of d coordinates of a token of norm sqrt(d): evidence begins near sqrt(r), with this spread.
        gain = 1.0 / math.sqrt((1.0 - r / d) / 2.0)
        theta = gain * math.sqrt(r) - 1.7  # so that most tokens want to take part, and the budget decides; the student's start
        # One for each level, not one for all: levels have different numbers of tokens.
        self.intra_ced = nn.ModuleList([IntraCED(config, 1.0, 1, count, gain, theta) for _ in range(LEVELS)])
        kind = PlainAggregation if self.switches.aggregation is Aggregation.PLAIN else InterCAD
        self.inter_cad = kind(config, len(config.outputs), count)

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, inputs: Mapping[str, Sequence]) -> list[list[LevelTokens]]:
        """`[modality][level]` tokens of every modality, in the configuration's order; one that is not in inputs is masked."""
        unknown = sorted(set(inputs) - set(self.config.names))
        if unknown or not inputs:
            raise DataError(f"inputs {sorted(inputs)}: this teacher reads {', '.join(self.config.names)}")
        sizes = {name: len(sequence.mask) for name, sequence in inputs.items()}
        if len(set(sizes.values())) != 1:
            raise DataError(f"inputs of different batch sizes: {sizes}")
        batch, device = next(iter(sizes.values())), next(iter(inputs.values())).mask.device
        made = []
        for name in self.config.names:
            encoder = self._encoder(name)
            made.append(encoder(inputs[name]) if name in inputs else encoder.nothing(batch, device))
        return made

    def arrange(self, levels: list[list[LevelTokens]]) -> list[list[LevelTokens]]:
        """`[modality][level]`: what each modality brings to each level of the exchange: where the hierarchy's variants act."""
        if self.switches.levels is Levels.DEEP:
            return [[own[-1]] * LEVELS for own in levels]
        if self.switches.levels is Levels.SHUFFLED:
            return [[own[(level + m) % LEVELS] for level in range(LEVELS)] for m, own in enumerate(levels)]
        return levels

    def level(self, arranged: list[list[LevelTokens]], level: int) -> Level:
        """The mapped tokens of all modalities at one level."""
        columns = [own[level] for own in arranged]
        maps = self.to_level[level]
        assert isinstance(maps, nn.ModuleList)
        longest = max(column.mask.shape[1] for column in columns)

        def stack(parts: list[Tensor]) -> Tensor:
            return torch.stack([F.pad(x, (0, 0) * (x.ndim - 2) + (0, longest - x.shape[1])) for x in parts], dim=1)

        mapped = [to_level(column) for to_level, column in zip(maps, columns, strict=True)]
        return Level(stack(mapped), stack([c.mask for c in columns]), stack([c.times for c in columns]))

    def tokens(self, found: Level, level: int) -> Tokens:
        """Split into shared and private coordinates: fields `[B, 1, M, W, ...]`."""
        ced = self._ced(level)
        bases = ced.bases()
        columns = [ced.split(found.h[:, m], 0, m, bases) for m in range(found.h.shape[1])]
        return Tokens(*(torch.stack([getattr(c, name) for c in columns], dim=1).unsqueeze(1) for name in Tokens._fields))

    def _ced(self, level: int) -> IntraCED:
        ced = self.intra_ced[level]
        assert isinstance(ced, IntraCED)
        return ced

    def exchange(self, tokens: Tokens, found: Level, level: int) -> tuple[Tensor, Tensor]:
        """IntraCED before pooling: shared streams `[B, M, W, r]`, alpha `[B, M, W]`: where the exchange's variants act."""
        ced, valid = self._ced(level), found.valid.unsqueeze(1)
        if self.switches.exchange is Exchange.NONE:
            return tokens.shared.squeeze(1), torch.zeros_like(tokens.evidence.squeeze(1))
        if self.switches.exchange is Exchange.DENSE:
            alpha = valid.to(tokens.evidence.dtype)
        else:
            alpha = ced.alpha(tokens.evidence, valid)
        age = (1.0 - found.times.mean(dim=-1)).unsqueeze(1)
        return ced.exchange(tokens, valid, age, alpha).squeeze(1), alpha.squeeze(1)

    def forward(self, inputs: Mapping[str, Sequence], spans: Tensor | None = None) -> TeacherOutput:
        """inputs: sequences by modality name; spans: float `[B, S, 2]`, shares of a sample, begin < end where one is asked for.

        Without spans the whole sample is one. The exchange always reads the whole sample; spans say what is pooled.
        Raises `DataError` naming the modality whose shape or content is wrong, `UsageError` where segments have no spans.
        """
        return self.fuse(self.encode(inputs), spans)

    def fuse(self, levels: list[list[LevelTokens]], spans: Tensor | None = None) -> TeacherOutput:
        """All that follows the encoders: `[modality][level]` tokens of `encode`, spans as in `forward`."""
        if spans is None and self.config.task == "segments":
            raise UsageError("a teacher for segments needs spans: even_spans(counts) or your own [B, S, 2]")
        arranged = self.arrange(levels)
        batch = len(arranged[0][0].mask)
        if spans is not None and (spans.ndim != 3 or len(spans) != batch or spans.shape[2] != 2):
            raise DataError(f"spans {list(spans.shape)}: need [{batch}, S, 2]")
        late = self.switches.aggregation is Aggregation.LATE
        parts: list[tuple[Tensor, ...]] = []
        theres = []
        for level in range(LEVELS):
            found = self.level(arranged, level)
            found = found._replace(h=found.h.float())
            with _full_precision(found.h):
                weight = _weights(found, spans)
                theres.append((weight > 0).any(dim=2))
                if late:
                    parts.append((_pool(found.h, weight),))
                    continue
                tokens = self.tokens(found, level)
                stream, alpha = self.exchange(tokens, found, level)
                pooled = (stream, tokens.private.squeeze(1), alpha.unsqueeze(-1))
                parts.append(tuple(_pool(x, weight) for x in pooled))
        columns = [_rows(column) for column in zip(*parts, strict=True)]
        there = _rows(theres)
        asked = spans[..., 1] > spans[..., 0] if spans is not None else there.new_ones(batch, 1)
        with _full_precision(columns[0]):
            if late:
                aggregated, exchanged = self.late(columns[0], there)
                return TeacherOutput(aggregated, exchanged, asked)
            exchanged = Exchanged(columns[0], columns[1], columns[2].squeeze(-1), there)
            return TeacherOutput(self.inter_cad(exchanged), exchanged, asked)


def _rows(levels: Iterable[Tensor]) -> Tensor:
    """Per level `[B, M, S, ...]` -> `[B * S, L, M, ...]`."""
    return torch.stack(tuple(levels), dim=2).movedim(3, 1).flatten(0, 1).transpose(1, 2)


def _full_precision(like: Tensor) -> torch.autocast:
    """Mixed precision is for the encoders: in bfloat16 most tokens have the same evidence, and the budget picks at random."""
    return torch.autocast(like.device.type, enabled=False)


def _weights(found: Level, spans: Tensor | None) -> Tensor:
    """How much each token counts in each span's mean: float `[B, M, W, S]`, 0 for a token that is not there."""
    if spans is None:
        return found.valid.unsqueeze(-1).to(found.h.dtype)
    share = overlap(found.times.flatten(1, 2), spans.to(found.times.dtype))  # [B, M * W, S]
    share = share.reshape(*found.valid.shape, spans.shape[1])
    return torch.where(found.valid.unsqueeze(-1), share, 0.0).to(found.h.dtype)


def _pool(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over tokens: x `[B, M, W, C]`, weight `[B, M, W, S]` -> `[B, M, S, C]`, 0 where no token counts."""
    total = weight.sum(dim=2)
    # Shares are small numbers: divide by the total itself, not by a floor.
    mean = weight / torch.where(total > 0, total, 1.0).unsqueeze(2)
    return mean.mT @ x
