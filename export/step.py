"""One tick of the student as a pure function `(inputs, state) -> (outputs, state)`: the graph that every engine runs.

The same mathematics as `clcr_edge.model.student`, rearranged for one new tick (this project; method section 3):
- convolutions keep their left context as state; nothing about an old token is computed again;
- the host says by how many tokens each window advances (`n_new`), so the graph holds no branch: everything is computed at
  every tick, and what is not due is not committed;
- a strided stage's buffer advances when the stage *below* it fires;
- alpha and the mean are applied to the attention weights before they meet the values: the attention output is never formed.

Fixed shapes, batch 1; no If, Loop, CumSum, NonZero or float64. Masked values are replaced, never multiplied: one NaN in
an absent camera's frame would otherwise stay in the state for good.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.config import StudentConfig
from clcr_edge.export.fold import fold_body, fold_conv, fold_linear, fold_tcns, fold_time_bias, fold_tokens
from clcr_edge.model.hierarchy import FrameEncoder
from clcr_edge.model.intra_ced import LEVELS, MASKED, MODALITIES, Exchanged
from clcr_edge.model.simplex import threshold
from clcr_edge.model.student import Student

INPUTS = ("frame", "fbank", "ngrams", "confidence", "word_age", "present", "n_new")
OUTPUTS = ("probs", "level_weights", "modality_weights", "private_gates", "participation", "there")
STATES = ("past_fbank", "past_features", "past_presence", "past_words", "tokens", "word_ages", "phase")


class StepState(NamedTuple):
    """What a stream remembers, in the order of `STATES`; all float32, all zero at the start.

    past_fbank `[context, n_mels]`; past_features `[2, sum of contexts, d]`, the convolutions' left contexts, vision and audio;
    past_presence `[2, stride_deep - 1]`; past_words `[L, 1, d]`; tokens `[L, M, W, 4r + p + 2]`, packed as query, key, value,
    shared, private, evidence, valid; word_ages `[W]` in ticks; phase `[L, 2]`, ticks since the level's newest token.
    """

    past_fbank: Tensor
    past_features: Tensor
    past_presence: Tensor
    past_words: Tensor
    tokens: Tensor
    word_ages: Tensor
    phase: Tensor


def initial_state(config: StudentConfig) -> StepState:
    """The state before the first tick: zeros."""
    m, t = config.model, config.tick
    packed = 4 * m.rank_shared + m.rank_private + 2
    return StepState(
        torch.zeros(m.audio_context, t.n_mels),
        torch.zeros(2, sum(_contexts()), m.width),
        torch.zeros(2, m.strides[-1] - 1),
        torch.zeros(LEVELS, 1, m.width),
        torch.zeros(LEVELS, MODALITIES, m.window, packed),
        torch.zeros(m.window),
        torch.zeros(LEVELS, 2),
    )


def example_inputs(config: StudentConfig) -> tuple[Tensor, ...]:
    """Inputs of the right shapes and types, in the order of `INPUTS`.

    frame float32 `[1, 1, S, S]` 0..1; fbank float32 `[F, n_mels]`; ngrams int32 `[K, G]`, the valid words first; confidence
    and word_age float32 `[K]` (ticks since the word's end, whole numbers); present float32 `[2]`, 1 where vision / audio is
    there; n_new int32 `[L, M]`: 0 or 1 for vision and audio, 0..K for language (the same at every level).
    """
    t = config.tick
    return (
        torch.zeros(1, 1, t.image_size, t.image_size),
        torch.zeros(t.fbank_frames, t.n_mels),
        torch.zeros(t.words_per_tick, t.ngrams_per_word, dtype=torch.int32),
        torch.zeros(t.words_per_tick),
        torch.zeros(t.words_per_tick),
        torch.zeros(2),
        torch.zeros(LEVELS, MODALITIES, dtype=torch.int32),
    )


def _contexts() -> list[int]:
    """Left context of every TCN convolution, stage by stage: the strided one, then dilations 1 and 2."""
    return [2, 2, 4] * LEVELS


class StepGraph(nn.Module):
    """The step. Built from a trained student; holds constants only."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        student.eval()
        self.config = config = student.config
        self.strides = config.model.strides
        self.frame_body = fold_body(student.frame_encoder.body)
        self.frame_project = fold_linear(student.frame_encoder.project, student.frame_encoder.norm)
        self.sound_body = fold_body(student.sound_encoder.body)
        self.sound_project = fold_conv(student.sound_encoder.project, student.sound_encoder.norm)
        self.embedding = student.word_encoder.embedding
        self.word_project = student.word_encoder.project
        words = [c for c in student.word_encoder.stages if isinstance(c, nn.Conv1d)]
        self._keep("word_weight", torch.stack([c.weight.permute(2, 1, 0).flatten(0, 1) for c in words]))
        self._keep("word_bias", torch.stack([c.bias for c in words if c.bias is not None]).unsqueeze(1))
        self.dilations: list[int] = []
        for index, conv in enumerate(c for s in fold_tcns(student.vision_tcn, student.audio_tcn) for c in s):
            self._keep(f"conv{index}_weight", conv.weight)
            self._keep(f"conv{index}_bias", conv.bias)
            self.dilations.append(conv.dilation)
        self._keep_past_taps(config.model.width)
        folded = fold_tokens(student)
        for name, value in vars(folded).items():
            # Language has K tokens a tick, vision and audio one each: two batched products instead of nine.
            self._keep(f"{name}_media", value[:, 1:])
            self._keep(f"{name}_words", value[:, 0])
        slope, lag = fold_time_bias(student)
        self._keep("slope", slope)
        self._keep("lag", lag)
        ced, width = student.intra_ced, config.model.window
        self._keep("gain", F.softplus(ced.gain).unsqueeze(-1))
        self._keep("theta", ced.theta.unsqueeze(-1))
        self._keep("rho", torch.sigmoid(ced.budget))
        own = torch.arange(MODALITIES).repeat_interleave(width)
        self._keep("other", own.unsqueeze(1) != own.unsqueeze(0))
        slots = torch.arange(width - 1, -1, -1).float()
        strides = torch.tensor(self.strides).float()
        # Age of a media token = slot * stride + phase; of a word, its own.
        self._keep("slot_age", (slots * strides[:, None]).unsqueeze(1).expand(-1, 2, -1))
        self._keep("expiry", (strides[:, None] * width).clamp_min(config.model.word_ticks))
        back = torch.arange(self.strides[-1] - 1, -1, -1)
        self._keep("token_ticks", (back < strides[:, None]).float().unsqueeze(1))  # [L, 1, stride_deep]
        self._keep("slot", torch.arange(width, dtype=torch.int32))
        self.norm_eps = 1e-5
        self.inter_cad = student.inter_cad
        self.operating_bias = student.operating_bias

    def _keep_past_taps(self, d: int) -> None:
        """What all nine convolutions take from the past is one product, and all their buffers advance in one Gather: some
        forty small nodes less, each of which costs more in dispatch than in arithmetic."""
        weights = [getattr(self, f"conv{i}_weight") for i in range(len(self.dilations))]
        biases = [getattr(self, f"conv{i}_bias") for i in range(len(self.dilations))]
        self._keep("convs_past_weight", torch.stack([w[:, : 2 * d] for w in weights], dim=1).flatten(0, 1))
        self._keep("convs_bias", torch.cat(biases, dim=1))
        total = sum(_contexts())
        taps, shifted, level_of = [], [], []
        first = 0
        for index, (context, dilation) in enumerate(zip(_contexts(), self.dilations, strict=True)):
            taps += [first, first + dilation]
            shifted += [*range(first + 1, first + context), total + index]
            # The strided convolution reads the level below, whose newest token is what its buffer holds.
            level_of += [index // 3 - (index % 3 == 0 and index > 0)] * context
            first += context
        self._keep("past_tap", torch.tensor(taps))
        self._keep("past_shifted", torch.tensor(shifted))
        self._keep("past_level", torch.tensor(level_of))
        for index, weight in enumerate(weights):
            self._keep(f"conv{index}_weight_new", weight[:, 2 * d :])

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.detach().clone().contiguous())

    # -- encoders ------------------------------------------------------------------------------------------------------

    def _frame(self, frame: Tensor) -> Tensor:
        features = self.frame_body(FrameEncoder.standardise(frame))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=-1)
        return F.relu(self.frame_project(pooled))  # [1, d]

    def _media_levels(self, x: Tensor, past: Tensor, fired: Tensor) -> tuple[Tensor, Tensor]:
        """x `[2, 1, d]`; past `[2, sum, d]`; fired bool `[L, 2]` -> level features `[L, 2, 1, d]`, new past."""
        d = x.shape[-1]
        taps = past.index_select(1, self.past_tap).reshape(-1, 1, 2 * d)  # type: ignore[arg-type]
        known = (taps @ self.convs_past_weight).reshape(2, -1, d) + self.convs_bias  # type: ignore[operator]
        seen, levels = [], []
        for index, from_past in enumerate(torch.split(known, 1, dim=1)):
            seen.append(x)
            made = F.relu(x @ getattr(self, f"conv{index}_weight_new") + from_past)
            x = made if index % 3 == 0 else x + made
            if index % 3 == 2:
                levels.append(x)
        shifted = torch.cat([past, *seen], dim=1).index_select(1, self.past_shifted)  # type: ignore[arg-type]
        advance = fired.index_select(0, self.past_level).T.unsqueeze(-1)  # type: ignore[arg-type]
        return torch.cat(levels).reshape(LEVELS, 2, 1, d), torch.where(advance, shifted, past)

    def _word_levels(self, ngrams: Tensor, confidence: Tensor, past: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """ngrams `[K, G]`; past `[L, 1, d]` -> level features `[L, K, d]`, new past."""
        found = (ngrams > 0).to(torch.float32).sum(dim=-1, keepdim=True).clamp_min(1.0)
        mean = self.embedding(ngrams).sum(dim=1) / found
        x = F.relu(self.word_project(torch.cat([mean, confidence.unsqueeze(-1)], dim=-1)))  # [K, d]
        levels, kept = [], []
        for stage, before in enumerate(torch.split(past.flatten(0, 1), 1)):
            seen = torch.cat([before, x], dim=0)  # [1 + K, d]
            kept.append(seen.index_select(0, count))  # the newest valid word, or the old one
            pairs = torch.cat([seen[:-1], seen[1:]], dim=1)
            x = x + F.relu(pairs @ self.word_weight[stage] + self.word_bias[stage])  # type: ignore[index]
            levels.append(x)
        d = x.shape[-1]
        return torch.cat(levels).reshape(LEVELS, -1, d), torch.cat(kept).reshape(LEVELS, 1, d)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _pack(self, x: Tensor, valid: Tensor, kind: str) -> Tensor:
        """Level features `[..., n, d]` and validity `[..., n, 1]` -> packed tokens `[..., n, 4r + p + 2]`."""
        h = x @ getattr(self, f"level_{kind}") + getattr(self, f"level_bias_{kind}")
        h = F.layer_norm(h, h.shape[-1:], eps=self.norm_eps)
        parts = h @ getattr(self, f"split_{kind}") + getattr(self, f"split_bias_{kind}")
        r = self.config.model.rank_shared
        shared = parts[..., 3 * r : 4 * r]
        evidence = ((shared * shared).sum(dim=-1, keepdim=True) + 1e-12).sqrt()
        return torch.cat([parts, evidence, valid], dim=-1)

    def forward(
        self,
        frame: Tensor,
        fbank: Tensor,
        ngrams: Tensor,
        confidence: Tensor,
        word_age: Tensor,
        present: Tensor,
        n_new: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """Inputs as in `example_inputs`, then the state as in `StepState`. Returns `OUTPUTS`, then the new state."""
        old = StepState(*state)
        model = self.config.model
        due = n_new[:, 1:] > 0  # [L, 2]
        fired = due.reshape(LEVELS, 2, 1, 1)
        count = n_new[0, 0:1]  # words
        here = present > 0.5

        sound = torch.where(here[1], fbank, 0.0)
        heard = torch.cat([old.past_fbank, sound], dim=0)
        vision = torch.where(here[0], self._frame(frame), 0.0)
        audio = F.relu(self.sound_project(self.sound_body(heard[None, None])).flatten(1))
        audio = torch.where(here[1], audio, 0.0)
        media, past_features = self._media_levels(torch.cat([vision, audio]).unsqueeze(1), old.past_features, due)
        words, past_words = self._word_levels(ngrams, confidence, old.past_words, count)

        presence = torch.cat([old.past_presence, present.unsqueeze(1)], dim=1)  # [2, stride_deep]
        made = (self.token_ticks * presence).amax(dim=-1)  # type: ignore[operator]  # [L, 2]: any of the token's ticks
        new_media = self._pack(media, made.reshape(LEVELS, 2, 1, 1), "media")
        new_words = self._pack(words, torch.ones_like(words[..., :1]), "words")

        # Windows: the newest last. Words commit by count, in one Gather; media tokens when their level is due.
        kept = self.slot + count  # type: ignore[operator]
        lane_words = torch.cat([old.tokens[:, 0], new_words], dim=1).index_select(1, kept)
        lane_media = torch.cat([old.tokens[:, 1:, 1:], new_media], dim=2)
        lane_media = torch.where(fired, lane_media, old.tokens[:, 1:])
        tokens = torch.cat([lane_words.unsqueeze(1), lane_media], dim=1)  # [L, M, W, C]
        word_ages = torch.cat([old.word_ages + 1.0, word_age], dim=0).index_select(0, kept)
        phase = torch.where(due, 0.0, old.phase + 1.0)

        ages = torch.cat(
            [word_ages.expand(LEVELS, 1, -1), self.slot_age + phase.unsqueeze(-1)],  # type: ignore[operator]
            dim=1,
        )
        fresh = (word_ages < self.expiry).unsqueeze(1)  # type: ignore[operator]
        valid = (tokens[..., -1] > 0.5) & torch.cat([fresh, torch.ones_like(fresh).expand(-1, 2, -1)], dim=1)

        shared, private, participation, there = self._intra_ced(tokens, valid, ages, model.rank_shared)
        outputs = self._inter_cad(shared, private, there)
        new = StepState(
            heard[fbank.shape[0] :], past_features, presence[:, 1:], past_words, tokens, word_ages, phase
        )
        return (*outputs, participation, there.to(torch.float32), *new)

    # -- fusion --------------------------------------------------------------------------------------------------------

    def _intra_ced(
        self, tokens: Tensor, valid: Tensor, ages: Tensor, r: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        levels, m, w, _ = tokens.shape
        query, key, value = (tokens[..., i * r : (i + 1) * r].reshape(levels, m * w, r) for i in range(3))
        number = valid.to(torch.float32).sum(dim=-1)  # [L, M]
        share = 1.0 / number.clamp_min(1.0)
        there = number > 0.5

        a = torch.where(valid, self.gain * tokens[..., -2] - self.theta, 0.0)  # type: ignore[operator]
        tau = threshold(a, self.rho * number)  # type: ignore[operator]
        alpha = (a - tau.unsqueeze(-1)).clamp(0.0, 1.0)

        flat = ages.reshape(levels, m * w)
        bias = self.slope * (flat.unsqueeze(2) - flat.unsqueeze(1) - self.lag).abs()  # type: ignore[operator]
        allowed = self.other & valid.reshape(levels, 1, m * w)  # type: ignore[operator]
        weights = torch.softmax(torch.where(allowed, query @ key.mT + bias, MASKED), dim=-1)
        # Pool before the multiply: (alpha / n)^T softmax(S), then V.
        pooled = (alpha * share.unsqueeze(-1)).unsqueeze(2) @ weights.reshape(levels, m, w, m * w)
        exchange = pooled.squeeze(2) @ value
        others = (number.sum(dim=1, keepdim=True) - number) > 0.5  # is there anybody to listen to?
        exchange = torch.where(others.unsqueeze(-1), exchange, 0.0)

        cached = torch.where(valid.unsqueeze(-1), tokens[..., 3 * r : -2], 0.0).sum(dim=2) * share.unsqueeze(-1)
        shared = cached[..., :r] + exchange
        return shared, cached[..., r:], alpha.sum(dim=-1) * share, there

    def _inter_cad(self, shared: Tensor, private: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        out = self.inter_cad(
            Exchanged(shared.unsqueeze(0), private.unsqueeze(0), private.new_zeros(1), there.unsqueeze(0))
        )
        probs = torch.softmax(self.operating_bias(out.logits, there.unsqueeze(0)), dim=-1)
        return probs[0], out.level_weights[0], out.modality_weights[0], out.private_gates[0]
