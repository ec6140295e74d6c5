"""`clcr-edge distill`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clcr_edge.commands.train import MOST_SEED, NAMES, missing_train, tell_summary
from clcr_edge.errors import UsageError
from clcr_edge.outputs import check_folder

if TYPE_CHECKING:
    from clcr_edge.train.settings import DistilConfig


def distill(
    teacher: Annotated[Path, typer.Argument(help="A folder that clcr-edge train wrote (digits: with --teacher).")],
    data: Annotated[str, typer.Option(help=f"What both look at: digits, {', '.join(NAMES)}; as in the teacher's training.")],
    root: Annotated[Path, typer.Option(help="The data set's folder, as for train.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder of the student; a run that was killed is resumed from it.")],
    config: Annotated[
        Path | None,
        typer.Option(help="TOML: [distil]; for data sets also [train] and the student's [teacher].", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of everything random.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Digits only: steps on streams; earlier phases stay whole.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="The logits only: what CLCR's own terms are compared with.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Digits only: TEACHER is a student; teach it to be in INT8 what it is in fp32.")
    ] = False,
) -> None:
    """Train a small network by a teacher: its logits and, level by level, its summaries, level weights and participation.

    digits: the streaming student, tick by tick. A data set: a smaller network of the teacher's kind, a quarter as wide unless
    --config says otherwise. --int8: TEACHER is a student's checkpoint and its own teacher; its encoders compute in fake INT8 as
    export --int8 would, for what calibration cannot save. Export OUT with --int8 as any checkpoint.
    """
    if data != "digits" and data not in NAMES:
        raise UsageError(f"no data set called {data!r}; choose digits, {', '.join(NAMES)}")
    check_folder(out)
    try:
        from clcr_edge.train.digits import Recipe, train_digits
        from clcr_edge.train.parallel import launched, training_group
        from clcr_edge.train.set_training import open_lesson, train_set
        from clcr_edge.train.settings import DataChoice, Settings, read_settings
        from clcr_edge.train.stream_lesson import open_stream_lesson
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    settings = read_settings(config)
    if out.resolve() == teacher.resolve():
        raise UsageError(f"--out {out}: that is the teacher's folder; name another for the student")
    if settings.data != DataChoice():
        raise UsageError(f"{config}: [data] is the teacher's; take the table out")
    if plain:
        settings = dataclasses.replace(settings, distil=settings.distil.plain())
    if data == "digits":
        if launched():
            raise UsageError("digits trains in one process; run it without torchrun")
        if settings != Settings(distil=settings.distil):
            raise UsageError(f"{config}: for digits only the [distil] table counts (the student is the one that ships)")
        if int8:
            _int8(teacher, root, out, seed, settings.distil, steps)
            return
        lesson = open_stream_lesson(teacher, settings.distil)
        recipe = Recipe.of(steps)
        summary = train_digits(root, out, seed, lesson.left_out or None, recipe, lesson)
        accuracy = summary["last"].get("val_tick_accuracy", float("nan"))
        size = f"{summary['parameters']:,} parameters"
        typer.echo(f"{out}: {size}, validation tick accuracy {accuracy:.3f} (moderate noise)", err=True)
        return
    if int8:
        raise UsageError("--int8 is for digits: only the streaming student is exported")
    if steps is not None:
        raise UsageError(f"--steps is for digits; {data} takes its epochs from [train] in --config FILE")
    with training_group(settings.train.device) as group:
        summary = train_set(data, root, out, seed, settings, group, open_lesson(teacher, data))
        if group.first:
            tell_summary(out, summary)


def _int8(source: Path, root: Path, out: Path, seed: int, config: DistilConfig, steps: int | None) -> None:
    from clcr_edge.train.checkpoint import CONFIG
    from clcr_edge.train.int8_lesson import RECIPE, distil_int8

    if not (source / CONFIG).is_file() and source.is_dir():
        raise UsageError(f"--int8: {source} holds no student ({CONFIG}); give a student's checkpoint, as export takes it")
    recipe = RECIPE if steps is None else dataclasses.replace(RECIPE, steps=steps)
    summary = distil_int8(source, root, out, seed, config, recipe)
    last = summary["last"]
    typer.echo(
        f"{out}: {recipe.steps} steps in fake INT8, validation tick accuracy {last.get('val_tick_accuracy', float('nan')):.3f} "
        f"(moderate noise), the same label as fp32 in {last['agreement']:.1%} of the last ticks; "
        f"now: clcr-edge export {out} --int8",
        err=True,
    )
