"""Trains a teacher on the streams of the digits task, to distil the student from: `clcr-edge train digits --teacher`.

The same material, phases, batches and auxiliary heads as the student's own training (`clcr_edge.train.digits`); the network is
the paper's, looks ahead in the stream, and answers for a tick by pooling the `window` ticks that end with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.config import TickConfig
from clcr_edge.data.bank import NONE
from clcr_edge.data.streams import CLASSES
from clcr_edge.model.student import NEVER, TickBatch, parameter_count
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig, teacher_to_table
from clcr_edge.model.teacher.encoders import FrameFront
from clcr_edge.model.teacher.network import Teacher, TeacherOutput
from clcr_edge.model.teacher.objective import teacher_losses
from clcr_edge.model.teacher.streams import stream_inputs, tick_spans
from clcr_edge.model.teacher.tcn import LevelTokens
from clcr_edge.packets import Modality
from clcr_edge.train import curves
from clcr_edge.train.batches import FrameBatches, LabelledTicks, StreamBatches, WordBatches, batches_from, collate, sound_alone
from clcr_edge.train.checkpoint import RESUME
from clcr_edge.train.digits import Recipe, can_halve, digits_material, train_frames
from clcr_edge.train.identity import of_settings
from clcr_edge.train.loop import METRICS, Schedule, fit
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.samples import changed
from clcr_edge.train.teacher_checkpoint import LAST, save_description, save_weights
from clcr_edge.train.token_heads import token_losses

WINDOW = 32  # ticks, 1.3 s: an event stays labelled for a second after its end
PIECE_S = 8.0  # a long stream is read in pieces of the length that training saw


def digits_network(changes: dict[str, Any] | None = None) -> TeacherConfig:
    """The teacher of the digits streams, with the changes of a `[teacher]` table. Raises `ConfigError` naming the key."""
    tick = TickConfig()
    modalities = (
        (Modality.LANGUAGE.key, ModalityConfig("ngrams", tick.ngram_buckets)),
        (Modality.VISION.key, ModalityConfig("frames", 1)),
        (Modality.AUDIO.key, ModalityConfig("fbank", tick.n_mels)),
    )
    return changed(TeacherConfig(modalities, CLASSES, task="segments"), changes or {})


class _WithHeads(nn.Module):
    """The teacher and two auxiliary heads: what digit does this frame show, which was just said. Thrown away afterwards."""

    def __init__(self, teacher: Teacher, window: int) -> None:
        super().__init__()
        self.teacher, self.window = teacher, window
        widths = {name: m.width for name, m in teacher.config.modalities}
        self.shown = nn.Linear(widths["vision"], len(CLASSES))
        self.spoken = nn.ModuleList([nn.Linear(widths["audio"], len(CLASSES)) for _ in range(2)])  # mid-level and deep tokens
        self.halved = can_halve()

    def encode(self, batch: TickBatch) -> dict[str, list[LevelTokens]]:
        """The levels of every modality by name, float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.halved and self.training):
            made = self.teacher.encode(stream_inputs(batch))
        plain = [[tokens._replace(values=tokens.values.float()) for tokens in own] for own in made]
        return dict(zip(self.teacher.config.names, plain, strict=True))

    def fuse(self, levels: dict[str, list[LevelTokens]], ticks: Tensor, total: int) -> TeacherOutput:
        """Answers for ticks `[B, N]`, rows `B * N`."""
        return self.teacher.fuse(list(levels.values()), tick_spans(ticks, total, self.window))

    def voice_loss(self, levels: list[LevelTokens], said: Tensor) -> Tensor:
        """What was just said (int64 `[B, T]`) at the end of each token, read from the audio's mid-level and deep tokens."""
        terms = token_losses(self.spoken, levels, said)
        return torch.stack(terms).mean() if terms else levels[1].values.sum() * 0.0


def train_digits_teacher(
    root: Path, out: Path, seed: int, leave_out: str | None, recipe: Recipe | None = None, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train, resume where a killed run stopped, and fill `out` (see `clcr_edge.train.teacher_checkpoint`). Returns a summary.

    leave_out as in `train_digits`. changes: a `[teacher]` table. The weights kept are their running average, as the student's.
    """
    recipe = recipe or Recipe()
    keep_memory()
    config = digits_network(changes)
    material = digits_material(root, leave_out)
    identity = of_settings("teacher", teacher_to_table(config), material.identity(seed, recipe))
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    model = _WithHeads(Teacher(config), WINDOW)
    front = model.teacher.encoders["vision"].front
    assert isinstance(front, FrameFront)
    front.share = recipe.frame_share
    out.mkdir(parents=True, exist_ok=True)
    frames = FrameBatches(material.every, seed, recipe.frames, recipe.easy)
    train_frames(front.encoder, model.shown, frames, recipe, out, seed, identity)
    _train_words(model, WordBatches(material.every, TickConfig(), seed, recipe.words), recipe, out, seed, identity)
    batches = StreamBatches(material.every, TickConfig(), seed, recipe.streams, recipe.seconds, recipe.predict)
    watched = material.watched()
    # The labels' weights are the recipe's, as for the student, so that the two differ in the network only.
    weighted = replace(config, lambda_intra=recipe.intra, lambda_inter=recipe.inter)

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        model.train()
        levels = model.encode(batch.batch)
        result = model.fuse(levels, batch.ticks, batch.batch.vision.shape[1])
        terms = teacher_losses(result, batch.labels, weighted)
        tokens = levels["vision"][0]
        nothing = result.aggregated.logits.sum() * 0.0
        seen = tokens.mask
        frame = F.cross_entropy(model.shown(tokens.values)[seen], batch.shown[seen]) if seen.any() else nothing
        voice = model.voice_loss(levels["audio"], batch.spoken)
        right = (result.aggregated.logits.argmax(-1) == batch.labels.flatten()).float().mean()
        return {
            "total": terms.total + recipe.auxiliary * (frame + voice),
            "task": terms.task,
            "intra": terms.intra,
            "inter": terms.inter,
            "frame": frame,
            "voice": voice,
            "tick_accuracy": right,
        }

    def watch(step: int) -> dict[str, float]:
        model.eval()
        batch = collate(watched, TickConfig())
        labels = torch.stack([torch.from_numpy(s.labels) for s in watched])
        right = predict_ticks(model.teacher, batch, WINDOW, TickConfig().rate_hz) == labels
        return {"val_tick_accuracy": round(float(right.float().mean()), 4)}

    schedule = Schedule(recipe.steps, recipe.lr)
    average = fit("streams", model, schedule, partial(batches_from, batches), loss, out, seed, watch, 100, identity=identity)
    weights = {k.removeprefix("teacher."): v for k, v in average.items() if k.startswith("teacher.")}
    save_weights(out / LAST, weights)
    training = material.provenance(seed, recipe) | {"task": "digits"}
    save_description(out, model.teacher, {"training": training, "stream": {"window": WINDOW}})
    material.save_seen(out)
    curves.draw_curves(out / METRICS, out / curves.FILE)
    for leftover in out.glob(f"*.{RESUME}"):
        leftover.unlink()
    last = json.loads((out / METRICS).read_text("utf-8").splitlines()[-1])
    return {"out": str(out), "parameters": parameter_count(model.teacher), "left_out": material.left_out, "last": last}


def _train_words(model: _WithHeads, batches: WordBatches, recipe: Recipe, out: Path, seed: int, identity: str) -> None:
    """Audio on single words, through its auxiliary heads and the teacher's own; the averaged weights are put into the model."""

    def loss(batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        total = batch[1].shape[1]
        levels = model.encode(sound_alone(batch[0], TickConfig()))
        voice = model.voice_loss(levels["audio"], batch[1])
        ticks = torch.randint(total, (len(batch[1]), recipe.word_predict)).sort(dim=1).values
        logits = model.fuse(levels, ticks, total).aggregated.logits
        due = batch[1].gather(1, ticks).flatten()
        task = F.cross_entropy(logits, due)
        right = (logits.argmax(-1) == due)[due != NONE].float().mean()
        return {"total": task + voice, "task": task, "voice": voice, "spoken_accuracy": right}

    schedule = Schedule(recipe.word_steps, recipe.word_lr)
    model.load_state_dict(fit("words", model, schedule, partial(batches_from, batches), loss, out, seed, identity=identity))


@torch.no_grad()
def predict_ticks(
    teacher: Teacher,
    batch: TickBatch,
    window: int,
    rate_hz: int,
    piece_s: float = PIECE_S,
    encode: Callable[[TickBatch], list[list[LevelTokens]]] | None = None,
) -> Tensor:
    """The label of every tick: int64 `[B, T]`. Long streams are read in overlapping pieces of `piece_s`, of which each answers
    for its middle: the exchange then sees what it saw in training, and its cost stays linear in T. encode: makes the levels of
    such a piece, in the teacher's order; None: the teacher's own encoders."""

    def own(part: TickBatch) -> list[list[LevelTokens]]:
        return teacher.encode({k: s for k, s in stream_inputs(part).items() if k in teacher.config.names})

    total = batch.vision.shape[1]
    said = torch.zeros(batch.vision.shape, dtype=torch.int64)
    for first, last, start, stop in pieces(total, round(piece_s * rate_hz)):
        part = cut(batch, first, last)
        ticks = torch.arange(start - first, stop - first).expand(len(said), -1)
        logits = teacher.fuse((encode or own)(part), tick_spans(ticks, last - first, window)).aggregated.logits
        said[:, start:stop] = logits.argmax(dim=-1).view(len(said), -1)
    return said


def pieces(total: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, start, stop): read ticks [first, last), answer for [start, stop). Every tick is answered for once."""
    start = first = 0
    while start < total:
        last = min(first + length, total)
        stop = total if last == total else last - length // 4
        yield first, last, start, stop
        start, first = stop, min(first + length // 2, max(total - length, 0))


def cut(batch: TickBatch, first: int, last: int) -> TickBatch:
    """Ticks [first, last) of a batch, and the words that arrive in them."""
    inside = (batch.word_tick >= first) & (batch.word_tick < last)
    return TickBatch(
        frames=batch.frames[:, first:last],
        vision=batch.vision[:, first:last],
        fbank=batch.fbank[:, first:last],
        audio=batch.audio[:, first:last],
        ngrams=batch.ngrams,
        confidence=batch.confidence,
        word_tick=torch.where(inside, batch.word_tick - first, NEVER),
        word_age=batch.word_age,
    )
