"""Trains the default task: digits, seen, heard and said.

First the frame CNN alone, on unrelated frames: a stream shows one digit in forty frames running, which is thin food for a CNN.
Then audio alone, through the student's own head: beside two easier modalities it learned nothing (audio alone named no event at
all after 1,000 steps). First on synthetic speech, phoneme by phoneme (`clcr_edge.train.speech_lesson`), then on single words of
people. Then everything, on streams with random disturbances and drop-outs: cross-entropy per
tick, CLCR's regularisers, and two small auxiliary heads (what digit does this frame show; which was just said) that are thrown
away afterwards. They give the front ends a direct signal, so that neither modality waits for the other to solve the task. Then
the words are those of the real recogniser (`clcr_edge.train.heard_words`), and at the end validation decides how sure the
network must be before it speaks.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcr_edge.config import StudentConfig
from clcr_edge.data.bank import NONE, DigitBank, load_bank, merge_banks, split_bank
from clcr_edge.data.conditions import MODERATE
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.data.streams import CLASSES, Stream, make_stream
from clcr_edge.data.synthetic import synthetic_bank
from clcr_edge.errors import UsageError
from clcr_edge.model.losses import student_losses
from clcr_edge.model.student import Student, StudentOutput, parameter_count
from clcr_edge.packets import Modality
from clcr_edge.stt.net import IGNORED
from clcr_edge.stt.synth import synthesiser
from clcr_edge.train import curves
from clcr_edge.train.batches import FrameBatches, LabelledTicks, StreamBatches, WordBatches, batches_from, collate, sound_alone
from clcr_edge.train.checkpoint import RESUME, save_student
from clcr_edge.train.heard_words import learn_heard_words, listener_at_hand
from clcr_edge.train.identity import of_bank, of_settings, of_weights
from clcr_edge.train.loop import METRICS, Schedule, fit
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.operating_point import set_operating_point
from clcr_edge.train.recognised import ears_of
from clcr_edge.train.speech_lesson import UNITS, speech_batches
from clcr_edge.train.stream_lesson import StreamLesson

NAME = "digits"
_BEGUN = 10  # ticks into a piece of speech: what was said before it nobody can know


@dataclass(frozen=True)
class Recipe:
    """frame_steps batches of `frames` frames for the CNN, the first `easy` of them easier; speech_steps batches of `pieces`
    pieces of `speech` synthetic utterances, then word_steps batches of `words` single words for audio, `word_predict` random
    ticks of each predicted; then steps batches of `streams` streams of `seconds` each,
    of which `predict` random ticks are predicted and `frame_share` of the frames still teach the CNN; then heard_steps such
    batches with a real recogniser's words, where one is at hand. quiet_minutes: of validation without digits, on which the
    operating point is set."""

    frame_steps: int = 3_000
    frames: int = 320
    frame_lr: float = 4e-3
    easy: int = 1_200
    speech_steps: int = 1_000
    speech: int = 30_000
    pieces: int = 96
    word_steps: int = 700
    words: int = 96
    word_predict: int = 4
    word_lr: float = 3e-3
    steps: int = 1_500
    streams: int = 9
    seconds: float = 8.0
    predict: int = 40
    lr: float = 2e-3
    frame_share: float = 0.12
    intra: float = 0.02
    inter: float = 0.002
    auxiliary: float = 0.5
    heard_steps: int = 200
    heard_lr: float = 5e-4
    quiet_minutes: int = 12
    threads: int = 1

    @classmethod
    def of(cls, steps: int | None) -> Recipe:
        """The usual recipe, or a shorter or longer one: what `--steps` asks for."""
        return cls() if steps is None else cls(steps=steps, heard_steps=min(cls.heard_steps, steps))


class WithAuxiliary(nn.Module):
    """The student and its two auxiliary heads, trained together; in distillation also the maps to its teacher's summaries."""

    maps: nn.Module

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        width, classes = student.config.model.width, len(student.config.classes)
        self.shown = nn.Linear(width, classes)
        self.spoken = nn.ModuleList([nn.Linear(width, classes) for _ in range(2)])  # from mid-level and deep tokens

    def forward(self, batch: LabelledTicks) -> tuple[StudentOutput, Tensor, Tensor]:
        """The student's output, and the losses of the two auxiliary heads."""
        features = self.student.encode(batch.batch)
        out = self.student.fuse(self.student.windows(batch.batch, features, batch.ticks))
        seen = batch.batch.vision
        nothing = out.aggregated.logits.sum() * 0.0
        frame = F.cross_entropy(self.shown(features.frames)[seen], batch.shown[seen]) if seen.any() else nothing
        return out, frame, self.voice_loss(features.levels[Modality.AUDIO], batch.batch.audio, batch.spoken)

    def voice_loss(self, levels: list[Tensor], audio: Tensor, said: Tensor) -> Tensor:
        """What was just said (int64 `[B, T]`), read from the audio's mid-level and deep tokens, where there is audio."""
        terms = []
        for head, level in zip(self.spoken, (1, 2), strict=True):
            stride = self.student.config.model.strides[level]
            there = audio[:, stride - 1 :: stride]
            if there.any():
                terms.append(F.cross_entropy(head(levels[level])[there], said[:, stride - 1 :: stride][there]))
        return torch.stack(terms).mean() if terms else levels[1].sum() * 0.0


def student_config() -> StudentConfig:
    """The shipped student's configuration."""
    return StudentConfig(classes=CLASSES, none_class="none")


@dataclass(frozen=True)
class DigitsMaterial:
    """What a training on digits hears and sees. known: people's digits; every: those and the project's synthetic ones; held:
    to validate on. left_out: the speaker never heard, by name."""

    known: DigitBank
    every: DigitBank
    held: DigitBank
    left_out: str | None

    def watched(self) -> list[Stream]:
        """The streams that training is watched on."""
        return [make_stream(self.held, MODERATE, 20.0, 900 + i) for i in range(8)]

    def provenance(self, seed: int, recipe: object) -> dict[str, Any]:
        """Where weights came from, for their TOML."""
        known = self.known
        return {
            "data": f"{len(known.images)} MNIST images, {len(known.recordings)} FSDD recordings, "
            "and the project's synthetic bank",
            "speakers": sorted(set(known.speakers)),
            "left_out": self.left_out or "",
            "seed": seed,
            "recipe": vars(recipe),
        }

    def identity(self, seed: int, recipe: object) -> str:
        """A hash of what decides where a training on it ends, whatever is trained."""
        return of_settings(seed, vars(recipe), self.left_out, of_bank(self.every, self.held))

    def save_seen(self, out: Path) -> None:
        """Write what must not be tested on.

        Validation images were looked at, and so may not be tested on. Validation recordings stay: with nobody left out they are
        all that is unheard, and nothing was chosen by them.
        """
        known = Seen.of(self.known)
        Seen(Seen.of(self.known, self.held).images, known.recordings, known.speakers).save(out / FILE)


def digits_material(root: Path, leave_out: str | None) -> DigitsMaterial:
    """Read the bank and split it. leave_out: a speaker, by name or by place in the sorted names ("0", "1", ...)."""
    bank = load_bank(root)
    speakers = sorted(set(bank.speakers))
    if leave_out is not None and leave_out not in speakers:
        if not (leave_out.isdigit() and int(leave_out) < len(speakers)):
            raise UsageError(f"--leave-out {leave_out}: choose one of {', '.join(speakers)}, or a number below {len(speakers)}")
        leave_out = speakers[int(leave_out)]
    known, held = split_bank(bank, "train", leave_out), split_bank(bank, "val", leave_out)
    return DigitsMaterial(known, merge_banks(known, synthetic_bank("train"), name=f"{NAME}/train"), held, leave_out)


def train_digits(
    root: Path,
    out: Path,
    seed: int,
    leave_out: str | None,
    recipe: Recipe | None = None,
    lesson: StreamLesson | None = None,
) -> dict[str, Any]:
    """Train, resume where a killed run stopped, and write the checkpoint to `out`. Returns a summary.

    leave_out: a speaker whose voice training never hears, by name or by place in the sorted names ("0", "1", ...). lesson: a
    teacher to learn from on the streams; the front ends' own phases come first, as without one. Raises `MissingPartError` where
    espeak-ng is not installed.
    """
    recipe = recipe or Recipe()
    keep_memory()
    material = digits_material(root, leave_out)
    leave_out = material.left_out
    if recipe.speech_steps:
        synthesiser()  # a missing espeak-ng is told now, not after the frames' phase
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    config = student_config()
    taught = "" if lesson is None else of_settings(vars(lesson.config), of_weights(lesson.teacher))
    identity = of_settings(NAME, material.identity(seed, recipe), taught)
    model = WithAuxiliary(Student(config))
    model.student.frame_share = recipe.frame_share
    model.student.half_precision = can_halve()
    out.mkdir(parents=True, exist_ok=True)
    frames = FrameBatches(material.every, seed, recipe.frames, recipe.easy)
    train_frames(model.student.frame_encoder, model.shown, frames, recipe, out, seed, identity)
    train_speech(model, recipe, out, seed, identity)
    train_words(model, material.every, recipe, out, seed, identity)
    batches = StreamBatches(material.every, config.tick, seed, recipe.streams, recipe.seconds, recipe.predict)
    watched = material.watched()
    if lesson is not None:
        # After the other phases: their resume files know nothing of the maps.
        model.maps = lesson.prepare((config.model.rank_shared, config.model.rank_private), seed)

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        model.train()
        result, frame, voice = model(batch)
        terms = student_losses(result, batch.labels.flatten())
        total = terms.task + recipe.intra * terms.intra + recipe.inter * terms.inter + recipe.auxiliary * (frame + voice)
        right = (result.aggregated.logits.argmax(-1) == batch.labels.flatten()).float().mean()
        found = {
            "total": total,
            "task": terms.task,
            "intra": terms.intra,
            "inter": terms.inter,
            "frame": frame,
            "voice": voice,
            "tick_accuracy": right,
        }
        if lesson is not None:
            learned = lesson.terms(batch, result)
            found["total"] = total + (lesson.config.task - 1.0) * terms.task + lesson.total(learned)
            found |= {f"distil_{k}": v for k, v in learned.items()}
        return found

    @torch.no_grad()
    def watch(step: int) -> dict[str, float]:
        model.eval()
        batch = collate(watched, config.tick)
        labels = torch.stack([torch.from_numpy(s.labels) for s in watched])
        ticks = torch.arange(0, labels.shape[1], 5).expand(len(watched), -1)
        guess = model.student(batch, ticks).aggregated.logits.argmax(-1)
        return {"val_tick_accuracy": round(float((guess == labels[:, ::5].flatten()).float().mean()), 4)}

    schedule = Schedule(recipe.steps, recipe.lr)
    average = fit("streams", model, schedule, partial(batches_from, batches), loss, out, seed, watch, 100, identity=identity)
    model.student.load_state_dict({k.removeprefix("student."): v for k, v in average.items() if k.startswith("student.")})
    listener = listener_at_hand() if recipe.heard_steps else None
    if listener is not None:
        learn_heard_words(model.student, material, recipe, out, seed, listener, watch, identity)
    ears = None if listener is None else ears_of(listener)
    point = set_operating_point(model.student, material.held, recipe.quiet_minutes, ears)
    provenance = material.provenance(seed, recipe) | {"operating_point": point.to_table()}
    provenance["words"] = "simulated" if listener is None else f"simulated; at the end those of {listener.name}"
    if lesson is not None:
        provenance["distilled"] = lesson.provenance()
    save_student(out, model.student.state_dict(), config, provenance)
    material.save_seen(out)
    curves.draw_curves(out / METRICS, out / curves.FILE)
    for leftover in out.glob(f"*.{RESUME}"):
        leftover.unlink()
    last = json.loads((out / METRICS).read_text("utf-8").splitlines()[-1])
    return {"out": str(out), "parameters": parameter_count(model.student), "left_out": leave_out, "last": last}


def train_frames(
    encoder: nn.Module, head: nn.Module, batches: FrameBatches, recipe: Recipe, out: Path, seed: int, identity: str = ""
) -> None:
    """A frame CNN and an auxiliary head on unrelated frames; the averaged weights are put into both."""
    frames = nn.ModuleDict({"encoder": encoder, "head": head})
    half = can_halve()

    def loss(batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        shown = batch[0].unsqueeze(1).float().div(255.0).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = frames["encoder"](shown)
        logits = frames["head"](features.float())
        total = F.cross_entropy(logits, batch[1])
        return {"total": total, "frame_accuracy": (logits.argmax(-1) == batch[1]).float().mean()}

    schedule = Schedule(recipe.frame_steps, recipe.frame_lr)
    frames.load_state_dict(fit("frames", frames, schedule, partial(batches_from, batches), loss, out, seed, identity=identity))


def can_halve() -> bool:
    """Whether this CPU computes in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _audio_alone(
    model: WithAuxiliary, heard: Tensor, said: Tensor, predict: int, first: int = 0
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Audio's levels, and its losses on recordings `[B, T, F, n_mels]` where `said` `[B, T]` was just said: of the auxiliary
    heads, and of the student's own at `predict` random ticks of each, from tick `first` on."""
    student = model.student
    sound = sound_alone(heard, student.config.tick)
    features = student.encode(sound)
    levels = features.levels[Modality.AUDIO]
    voice = model.voice_loss(levels, sound.audio, said)
    ticks = torch.randint(first, said.shape[1], (len(said), predict)).sort(dim=1).values
    logits = student.fuse(student.windows(sound, features, ticks)).aggregated.logits
    due = said.gather(1, ticks).flatten()
    task = F.cross_entropy(logits, due)
    right = (logits.argmax(-1) == due)[due != NONE].float().mean()
    return levels, {"total": task + voice, "task": task, "voice": voice, "spoken_accuracy": right}


def train_speech(model: WithAuxiliary, recipe: Recipe, out: Path, seed: int, identity: str = "") -> None:
    """Audio on synthetic speech: units from its shallow level, digits from the others; the averaged weights are put into the
    model. The head that names units is thrown away."""
    if not recipe.speech_steps:
        return
    taught = nn.ModuleDict({"model": model, "units": nn.Linear(model.student.config.model.width, UNITS)})

    def loss(batch: tuple[Tensor, Tensor, Tensor], step: int) -> dict[str, Tensor]:
        heard, units, said = batch
        levels, found = _audio_alone(model, heard, said, recipe.word_predict, first=_BEGUN)
        names = taught["units"](levels[0])
        unit = F.cross_entropy(names.flatten(0, 1), units.flatten(), ignore_index=IGNORED)
        right = (names.argmax(-1) == units).float().mean()
        return found | {"total": found["total"] + unit, "unit": unit, "unit_accuracy": right}

    tick = model.student.config.tick
    batches = partial(speech_batches, tick, recipe.speech, seed, recipe.pieces, os.cpu_count() or 1)
    schedule = Schedule(recipe.speech_steps, recipe.word_lr)
    taught.load_state_dict(fit("speech", taught, schedule, batches, loss, out, seed, identity=identity))


def train_words(model: WithAuxiliary, material: DigitBank, recipe: Recipe, out: Path, seed: int, identity: str = "") -> None:
    """Audio on single words, through its auxiliary heads and the student's own; the averaged weights are put into the model."""

    def loss(batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        return _audio_alone(model, *batch, recipe.word_predict)[1]

    batches = WordBatches(material, model.student.config.tick, seed, recipe.words)
    schedule = Schedule(recipe.word_steps, recipe.word_lr)
    model.load_state_dict(fit("words", model, schedule, partial(batches_from, batches), loss, out, seed, identity=identity))
