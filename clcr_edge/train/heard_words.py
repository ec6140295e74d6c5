"""The last phase of the digits' training: streams with the words that the real recogniser makes of their sound.

Until here words are simulated, which costs nothing and errs evenly. A recogniser does not: it passes over what noise covers,
takes some words for some others again and again, and hears digits in speech that is none. What comes after the front ends
learns how far to trust it; the CNNs of frames and of sound do not read words and stay as they are.

    python -m clcr_edge.train.heard_words CHECKPOINT --root DIR --out DIR      the phase alone, on a finished student
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from torch import Tensor

from clcr_edge.data.seen import FILE, Seen
from clcr_edge.errors import ClcrEdgeError, MissingPartError
from clcr_edge.model.losses import student_losses
from clcr_edge.model.student import Student
from clcr_edge.runtime.assets import default_speech_model
from clcr_edge.train.batches import LabelledTicks, StreamBatches, batches_from
from clcr_edge.train.checkpoint import RESUME, load_student, save_student
from clcr_edge.train.identity import of_settings, of_weights
from clcr_edge.train.loop import Schedule, fit
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.operating_point import set_operating_point
from clcr_edge.train.recognised import ears_of

if TYPE_CHECKING:
    from clcr_edge.train.digits import DigitsMaterial, Recipe

PHASE = "heard"


def listener_at_hand() -> Path | None:
    """The recogniser that ships; None where it or the vosk package is not there."""
    return default_speech_model() if importlib.util.find_spec("vosk") else None


def learn_heard_words(
    student: Student,
    material: DigitsMaterial,
    recipe: Recipe,
    out: Path,
    seed: int,
    listener: Path,
    watch: Callable[[int], dict[str, float]] | None = None,
    identity: str = "",
) -> None:
    """Train everything behind the front ends on `recipe.heard_steps` batches; the averaged weights are put into the student.

    watch: what the last record of the metrics tells besides, of a step. The operating biases become zero: they are set after
    it. A killed run goes on in `out`, where its resume file is of this identity.
    """
    student.operating_bias.together.zero_()
    student.operating_bias.alone.zero_()
    fronts = (student.frame_encoder, student.sound_encoder)
    share, student.frame_share = student.frame_share, 1.0
    for front in fronts:
        front.requires_grad_(False)

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        student.train()
        for front in fronts:
            front.eval()  # its batch statistics are the phases' before
        result = student(batch.batch, batch.ticks)
        terms = student_losses(result, batch.labels.flatten())
        right = (result.aggregated.logits.argmax(-1) == batch.labels.flatten()).float().mean()
        total = terms.task + recipe.intra * terms.intra + recipe.inter * terms.inter
        return {"total": total, "task": terms.task, "tick_accuracy": right}

    # Streams of their own: the phase before ended with other numbers of this seed.
    batches = StreamBatches(
        material.every, student.config.tick, seed + 1_000, recipe.streams, recipe.seconds, recipe.predict, listener=listener
    )
    schedule = Schedule(recipe.heard_steps, recipe.heard_lr, average=min(50.0, recipe.heard_steps / 2))
    draw = partial(batches_from, batches)
    average = fit(PHASE, student, schedule, draw, loss, out, seed, watch, watch_every=recipe.heard_steps, identity=identity)
    student.load_state_dict(average, strict=False)  # without what was frozen
    student.frame_share = share
    for front in fronts:
        front.requires_grad_(True)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A student of clcr-edge train digits")],
    root: Annotated[Path, typer.Option(help="fsdd/recordings/*.wav and mnist/*-ubyte.gz")],
    out: Annotated[Path, typer.Option(help="Where the new checkpoint goes")],
    seed: int = 0,
) -> None:
    """Run the phase, set the operating point anew, write a checkpoint."""
    from clcr_edge.train.digits import Recipe, can_halve, digits_material

    listener = listener_at_hand()
    if listener is None:
        raise MissingPartError("the vosk package is not installed; pip install 'clcr-edge[audio]'")
    keep_memory()
    torch.set_num_threads(1)
    student, provenance = load_student(checkpoint)
    student.half_precision = can_halve()
    recipe = Recipe()
    material = digits_material(root, provenance.get("left_out") or None)
    out.mkdir(parents=True, exist_ok=True)
    identity = of_settings(PHASE, of_weights(student), material.identity(seed, recipe))
    learn_heard_words(student, material, recipe, out, seed, listener, identity=identity)
    point = set_operating_point(student, material.held, recipe.quiet_minutes, ears_of(listener))
    heard = {"listener": listener.name, "steps": recipe.heard_steps, "lr": recipe.heard_lr}
    save_student(out, student.state_dict(), student.config, provenance | {"heard": heard, "operating_point": point.to_table()})
    material.save_seen(out)
    if (checkpoint / FILE).is_file():  # the training before may have seen more
        Seen.load(out / FILE).joined(Seen.load(checkpoint / FILE)).save(out / FILE)
    for leftover in out.glob(f"*.{RESUME}"):
        leftover.unlink()


if __name__ == "__main__":
    try:
        typer.run(main)
    except ClcrEdgeError as e:
        sys.exit(f"clcr-edge: {e}")
