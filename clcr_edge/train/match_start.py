"""Where every variant starts on `digits-match`: a trained student's front ends, in a network of the teacher's kind, as wide.

    frames --CNN--> [B, T, d] --TCN--\\
    sound  --CNN--> [B, T, d] --TCN---+--> LevelMap, IntraCED, InterCAD, or what a variant has in their place
    words  --n-grams-------> TCN-----/
            frozen            learns

The variants are switches of the teacher's network (`clcr_edge.model.teacher.variants`), so it is that which is trained, as wide
as the student. The two CNNs are the student's and stay as they are: their vectors are made once for each stream, and every
variant reads the same ones. The TCNs of vision and audio and the n-gram vectors begin as the student's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from clcr_edge.config import StudentConfig
from clcr_edge.data.match import MATCH_CLASSES
from clcr_edge.errors import UsageError
from clcr_edge.model.student import Student, TickBatch
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig
from clcr_edge.model.teacher.encoders import Encoder, FrameFront, NgramFront, SoundFront
from clcr_edge.model.teacher.network import Teacher
from clcr_edge.model.teacher.streams import stream_inputs
from clcr_edge.model.teacher.tcn import LevelTokens
from clcr_edge.model.teacher.variants import VARIANTS
from clcr_edge.packets import Modality
from clcr_edge.runtime.assets import shipped
from clcr_edge.train.checkpoint import load_student
from clcr_edge.train.digits import can_halve

_FROZEN = (Modality.VISION.key, Modality.AUDIO.key)


def match_network(student: StudentConfig, variant: str = "full") -> TeacherConfig:
    """The network of a variant, with the student's widths and causal TCNs. Raises `UsageError` for an unknown variant."""
    if variant not in VARIANTS:
        raise UsageError(f"--variant {variant}: choose one of {', '.join(VARIANTS)}")
    tick, model = student.tick, student.model

    def encoder(form: str, channels: int, strides: tuple[int, int, int]) -> ModalityConfig:
        return ModalityConfig(
            form,
            channels,
            width=model.width,
            strides=strides,
            causal=True,
            vision_channels=model.vision_channels,
            audio_channels=model.audio_channels,
            audio_context=model.audio_context,
            embedding_width=model.embedding_width,
        )

    return TeacherConfig(
        (
            # Words come seldom: four to a token would be half a minute.
            (Modality.LANGUAGE.key, encoder("ngrams", tick.ngram_buckets, (1, 1, 1))),
            (Modality.VISION.key, encoder("frames", 1, model.strides)),
            (Modality.AUDIO.key, encoder("fbank", tick.n_mels, model.strides)),
        ),
        MATCH_CLASSES,
        task="segments",
        width=model.width,
        rank_shared=model.rank_shared,
        rank_private=model.rank_private,
        hidden=model.hidden,
        dropout=model.dropout,
        variant=variant,
    )


def open_source(folder: Path | None, left_out: str | None) -> tuple[Student, Path]:
    """The student whose front ends are used, and where it lies; None is the shipped one.

    Raises `UsageError` where it has heard the speaker who is to be left out.
    """
    found = folder or shipped("digits-student")
    if found is None:
        raise UsageError("no student ships with this installation; name a checkpoint with --from (clcr-edge train digits)")
    student, provenance = load_student(found)
    if left_out is not None and provenance.get("left_out") != left_out:
        raise UsageError(
            f"--leave-out {left_out}: the front ends of {found} have heard {left_out}; give --from the checkpoint of "
            f"clcr-edge train digits --leave-out {left_out}"
        )
    return student, found


def start_network(student: Student, variant: str, seed: int, weights: tuple[float, float]) -> Teacher:
    """A network of a variant that begins as the student did, the rest drawn by the seed; its CNNs frozen.

    weights: of the regularisers, (intra, inter). What variants have in common begins alike.
    """
    config = match_network(student.config, variant)
    torch.manual_seed(seed)
    teacher = Teacher(replace(config, lambda_intra=weights[0], lambda_inter=weights[1]))
    _adopt(teacher, student)
    for name in _FROZEN:
        _encoder(teacher, name).front.requires_grad_(False)
    return teacher


def _encoder(teacher: Teacher, name: str) -> Encoder:
    encoder = teacher.encoders[name]
    assert isinstance(encoder, Encoder)
    return encoder


def _adopt(teacher: Teacher, student: Student) -> None:
    language, vision, audio = (_encoder(teacher, m.key) for m in Modality)
    assert isinstance(vision.front, FrameFront)
    assert isinstance(audio.front, SoundFront)
    assert isinstance(language.front, NgramFront)
    vision.front.encoder.load_state_dict(student.frame_encoder.state_dict())
    audio.front.encoder.load_state_dict(student.sound_encoder.state_dict())
    for encoder, tcn in ((vision, student.vision_tcn), (audio, student.audio_tcn)):
        encoder.tcn.load_state_dict({_renamed(k): v for k, v in tcn.state_dict().items()})
    words = student.word_encoder
    with torch.no_grad():
        language.front.embedding.weight.copy_(words.embedding.weight)
        # The teacher's kind reads no confidence: every word is heard as if the recogniser were sure.
        language.front.project.weight.copy_(words.project.weight[:, :-1])
        language.front.project.bias.copy_(words.project.bias + words.project.weight[:, -1])


def _renamed(key: str) -> str:
    """A parameter of the student's TCN -> its name in the teacher's, whose norm knows masks and so is one module deeper."""
    return key.replace(".norm.", ".norm.norm.")


@torch.no_grad()
def fronted(teacher: Teacher, batch: TickBatch) -> TickBatch:
    """The batch with the frozen CNNs' vectors, float16 `[B, T, d]`, in place of frames and filter banks. Made in bfloat16 where
    the CPU computes in it: as they were trained."""
    inputs = stream_inputs(batch)
    made: dict[str, Tensor] = {}
    for name in _FROZEN:
        front, sequence = _encoder(teacher, name).front, inputs[name]
        learning = front.training
        with torch.autocast("cpu", torch.bfloat16, enabled=can_halve()):
            made[name] = front.eval()(sequence.values, sequence.mask).half()
        front.train(learning)
    return replace(batch, frames=made[_FROZEN[0]], fbank=made[_FROZEN[1]])


def encode_fronted(teacher: Teacher, batch: TickBatch) -> list[list[LevelTokens]]:
    """`Teacher.encode` for a batch that `fronted` made."""
    # stream_inputs takes frames for pictures and gives them a channel.
    inputs = stream_inputs(batch)
    levels = []
    for name in teacher.config.names:
        encoder, sequence = _encoder(teacher, name), inputs[name]
        if name not in _FROZEN:
            levels.append(encoder(sequence))
            continue
        vectors = sequence.values.flatten(2).float()
        there = torch.where(sequence.mask.unsqueeze(-1), vectors, 0.0)
        levels.append(encoder.tcn(LevelTokens(there, sequence.mask, sequence.times)))
    return levels
