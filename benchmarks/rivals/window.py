"""(a), (b) The same network recomputed over its windows at every tick, no farther back than its receptive fields reach.

The deepest window of 16 tokens at stride 4 reaches 111 ticks back through the convolutions below it, up to 114 by phase. Each
phase of the deepest stride is a static graph of its own, so that nothing is computed for tokens that no window holds. `Window`
(a) gets the features of past frames, of past sound and of past words from a cache and makes only the newest; `Naive` (b) makes
all of them from frames, filter-bank frames and n-grams. Convolutions over time are one matrix product for vision and audio
together, as in our step. IntraCED is the textbook's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clcr_edge.config import ModelConfig
from clcr_edge.export.step import OUTPUTS
from clcr_edge.model.student import Student
from rivals.ours import StepWithoutCnn
from rivals.textbook import Textbook

WORD_CONTEXT = 3  # one word back per stage


def reach(model: ModelConfig, phase: int) -> int:
    """How many ticks back the windows see, when `phase` ticks have passed since the newest deep token."""
    need = model.window
    strides = model.strides
    for level in (2, 1, 0):
        ratio = strides[level] // strides[level - 1] if level else 1
        late = phase // strides[level - 1] % ratio if level else 0  # tokens below that the newest token does not hold yet
        need = max((need + 6 - 1) * ratio + 3 + late, model.window)
    return need


class Window(StepWithoutCnn):
    """(a). State: past fbank frames, front features `[2, R - 1, d]`, presence, word vectors and ages."""

    def __init__(self, student: Student, phase: int) -> None:
        super().__init__(student)
        self.textbook = Textbook(student)
        model = student.config.model
        self.phase, self.reach = phase, reach(model, phase)
        self.longest = max(reach(model, p) for p in range(model.strides[-1]))
        self._keep("word_slot", torch.arange(model.window + WORD_CONTEXT, dtype=torch.int32))

    def first_state(self) -> dict[str, Tensor]:
        m, t = self.config.model, self.config.tick
        words = m.window + WORD_CONTEXT
        return {
            "past_fbank": torch.zeros(m.audio_context, t.n_mels),
            "past_front": torch.zeros(2, self.longest - 1, m.width),
            "past_presence": torch.zeros(2, self.longest - 1),
            "past_embedded": torch.zeros(words, m.width),
            "word_there": torch.zeros(m.window),
            "word_ages": torch.zeros(m.window),
        }

    def _recompute_media(self, x: Tensor) -> list[Tensor]:
        """Front features `[2, reach, d]` -> three levels of the newest W tokens, `[2, W, d]`."""
        width, strides = self.config.model.window, self.strides
        levels = []
        for index in range(9):
            level = index // 3
            ratio = strides[level] // strides[level - 1] if level else 1
            if index % 3 == 0 and ratio > 1:  # end at the newest token that the stage below completes, on the right phase
                late = self.phase // strides[level - 1] % ratio
                x = x[:, (x.shape[1] - late - 3) % ratio : x.shape[1] - late]
            step = ratio if index % 3 == 0 else 1
            dilation = self.dilations[index]
            count = (x.shape[1] - 2 * dilation - 1) // step + 1
            taps = [x[:, k * dilation : k * dilation + (count - 1) * step + 1 : step] for k in range(3)]
            made = F.relu(torch.cat(taps, dim=-1) @ getattr(self, f"conv{index}_weight") + getattr(self, f"conv{index}_bias"))
            x = made if index % 3 == 0 else x[:, 2 * dilation :] + made
            if index % 3 == 2:
                levels.append(x[:, -width:])
        return levels

    def _recompute_words(self, x: Tensor) -> Tensor:
        """Word vectors `[W + 3, d]` -> `[L, W, d]`."""
        levels = []
        for stage in range(3):
            pairs = torch.cat([x[:-1], x[1:]], dim=1)
            x = x[1:] + F.relu(pairs @ self.word_weight[stage] + self.word_bias[stage])  # type: ignore[index]
            levels.append(x[-self.config.model.window :])
        return torch.stack(levels)

    def _embed(self, ngrams: Tensor, confidence: Tensor) -> Tensor:
        found = (ngrams > 0).to(torch.float32).sum(dim=-1, keepdim=True).clamp_min(1.0)
        mean = self.embedding(ngrams).sum(dim=1) / found
        return F.relu(self.word_project(torch.cat([mean, confidence.unsqueeze(-1)], dim=-1)))

    def _level(self, x: Tensor, kind: str) -> Tensor:
        h = x @ getattr(self, f"level_{kind}") + getattr(self, f"level_bias_{kind}")
        return F.layer_norm(h, h.shape[-1:], eps=self.norm_eps)

    def _predict(
        self, front: Tensor, presence: Tensor, embedded: Tensor, word_there: Tensor, word_ages: Tensor
    ) -> tuple[Tensor, ...]:
        """Front features `[2, reach, d]`, presence `[2, reach]`, word vectors `[W + 3, d]`, ages `[W]` -> `OUTPUTS`."""
        width = self.config.model.window
        media = torch.stack(self._recompute_media(front))  # [L, 2, W, d]
        words = self._recompute_words(embedded)  # [L, W, d]
        h = torch.cat([self._level(words, "words").unsqueeze(1), self._level(media, "media")], dim=1)
        h = h * self.textbook.gain + self.textbook.shift  # type: ignore[operator]
        there, ages = [], []
        for level, stride in enumerate(self.strides):
            late = self.phase % stride
            ticks = presence[:, presence.shape[1] - late - width * stride : presence.shape[1] - late]
            there.append(ticks.reshape(2, width, stride).amax(dim=2) > 0.5)
            ages.append(self.slot_age[level] + late)  # type: ignore[index]
        fresh = (word_ages < self.expiry) & (word_there > 0.5)  # type: ignore[operator]
        valid = torch.cat([fresh.unsqueeze(1), torch.stack(there)], dim=1)
        age = torch.cat([word_ages.expand(3, 1, -1), torch.stack(ages)], dim=1)
        shared, private, participation, known = self.textbook(self.textbook.split(h), valid, age)
        return (*self._inter_cad(shared, private, known), participation, known.to(torch.float32))

    def forward(  # type: ignore[override]
        self, frame: Tensor, fbank: Tensor, ngrams: Tensor, confidence: Tensor, word_age: Tensor, present: Tensor,
        n_new: Tensor, past_fbank: Tensor, past_front: Tensor, past_presence: Tensor, past_embedded: Tensor,
        word_there: Tensor, word_ages: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        here, count = present > 0.5, n_new[0, 0:1]
        heard = torch.cat([past_fbank, torch.where(here[1], fbank, 0.0)], dim=0)
        vision = torch.where(here[0], self._frame(frame), 0.0)
        audio = F.relu(self.sound_project(self.sound_body(heard[None, None])).flatten(1))
        audio = torch.where(here[1], audio, 0.0)
        front = torch.cat([past_front, torch.stack([vision, audio])], dim=1)
        presence = torch.cat([past_presence, present.unsqueeze(1)], dim=1)
        embedded = torch.cat([past_embedded, self._embed(ngrams, confidence)]).index_select(0, self.word_slot + count)  # type: ignore[operator]
        kept = self.slot + count  # type: ignore[operator]
        there = torch.cat([word_there, torch.ones_like(word_age)]).index_select(0, kept)
        ages = torch.cat([word_ages + 1.0, word_age]).index_select(0, kept)
        outputs = self._predict(front[:, -self.reach :], presence[:, -self.reach :], embedded, there, ages)
        return (*outputs, heard[fbank.shape[0] :], front[:, 1:], presence[:, 1:], embedded, there, ages)


class Naive(Window):
    """(b). Everything of the receptive fields comes in raw; no state. frames `[R, 1, S, S]`, fbank `[context + 4 R, mels]`."""

    def _all_frames(self, frames: Tensor) -> Tensor:
        return super(StepWithoutCnn, self)._frame(frames)

    def forward(  # type: ignore[override]
        self, frames: Tensor, fbank: Tensor, presence: Tensor, ngrams: Tensor, confidence: Tensor, word_there: Tensor,
        word_ages: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        frames, presence = frames[-self.reach :], presence[:, -self.reach :]
        per_tick = self.config.tick.fbank_frames
        fbank = fbank[-(self.reach * per_tick + self.config.model.audio_context) :]
        audio = F.relu(self.sound_project(self.sound_body(fbank[None, None])).squeeze(3).squeeze(0).T)
        front = torch.where(presence.unsqueeze(-1) > 0.5, torch.stack([self._all_frames(frames), audio]), 0.0)
        outputs = self._predict(front, presence, self._embed(ngrams, confidence), word_there, word_ages)
        assert len(outputs) == len(OUTPUTS)
        return outputs
