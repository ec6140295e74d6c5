"""Language levels from a pretrained transformer's early, middle and late layers (paper: section "hierarchy").

`transformers` is an optional part: it is imported here, when a text modality is built, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

import torch
from torch import Tensor, nn

from clcr_edge.errors import ConfigError, DataError, MissingPartError
from clcr_edge.model.teacher.config import ModalityConfig
from clcr_edge.model.teacher.inputs import Sequence
from clcr_edge.model.teacher.tcn import LevelTokens


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as e:
        raise MissingPartError(f"{e.name} is not installed; language from text needs: pip install 'clcr-edge[text]'") from None
    return transformers


def _load(kind: str, pretrained: str) -> Any:
    transformers = _transformers()
    talk = transformers.utils.logging
    bars = talk.is_progress_bar_enabled()
    talk.disable_progress_bar()  # it draws into log files too, and once for each process
    try:
        return getattr(transformers, kind).from_pretrained(pretrained)
    except (OSError, ValueError) as e:
        why = str(e).strip().splitlines()[0]
        raise MissingPartError(f"pretrained = {pretrained!r}: no transformer in that folder, or from the hub ({why})") from None
    finally:
        if bars:
            talk.enable_progress_bar()


class Tokeniser:
    """Sentences -> token numbers, with the tokeniser that belongs to the transformer. pretrained: a folder or a hub name."""

    def __init__(self, pretrained: str, longest: int = 128) -> None:
        if longest < 3:
            raise ConfigError(f"longest = {longest}: at least 3 tokens, of which two begin and end a sentence")
        self.longest = longest
        self._tokeniser = _load("AutoTokenizer", pretrained)

    def __call__(self, texts: Several[str | None]) -> Sequence:
        """B sentences, None where a sample has none -> values int64 `[B, T]`, the rest cut after `longest` tokens."""
        if not texts:
            raise DataError("texts = []: give at least one sentence")
        made = self._tokeniser(
            [text or "" for text in texts], padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        there = torch.tensor([text is not None for text in texts])
        lengths = made["attention_mask"].sum(dim=1) * there
        return Sequence.of(made["input_ids"], lengths)


class TextEncoder(nn.Module):
    """Token numbers -> three levels, the hidden states of three layers: floats `[B, T, hidden size]`.

    Frozen by default: in eval mode and without gradient, whatever mode the teacher is in. The marks that begin and end a
    sentence stay tokens: they are where BERT keeps a sentence's sum.
    """

    def __init__(self, config: ModalityConfig) -> None:
        super().__init__()
        self.body = _load("AutoModel", config.pretrained)
        depth = int(self.body.config.num_hidden_layers)
        # Thirds: 2, 4, 6 of MiniLM's six; 4, 8, 12 of BERT's twelve.
        self.layers = config.layers or (max(1, depth // 3), max(1, 2 * depth // 3), depth)
        if self.layers[-1] > depth:
            raise ConfigError(f"layers = {self.layers!r}: {config.pretrained} has only {depth}")
        self.width = int(self.body.config.hidden_size)
        self.words = int(self.body.config.vocab_size)
        self.fine_tune = config.fine_tune
        if not self.fine_tune:
            self.body.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TextEncoder:
        super().train(mode)
        if not self.fine_tune:
            self.body.eval()
        return self

    def forward(self, text: Sequence) -> list[LevelTokens]:
        ids, mask = text.values, text.mask
        if bool(((ids < 0) | (ids >= self.words))[mask].any()):
            raise DataError(f"text holds token numbers outside 0 to {self.words - 1}: use this transformer's own Tokeniser")
        rows = mask.any(dim=1)  # an attention over nothing would be NaN
        clean = torch.where(mask, ids, 0)[rows]
        levels = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.fine_tune):
            states: tuple[Tensor, ...] = ()
            if len(clean):
                made = self.body(input_ids=clean, attention_mask=mask[rows].long(), output_hidden_states=True)
                states = made.hidden_states
            for layer in self.layers:
                values = torch.zeros(*ids.shape, self.width, device=ids.device)
                if states:
                    values[rows] = states[layer].float()
                levels.append(LevelTokens(torch.where(mask.unsqueeze(-1), values, 0.0), mask, text.times))
        return levels
