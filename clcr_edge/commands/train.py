"""`clcr-edge train` and `clcr-edge eval`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clcr_edge.errors import MissingPartError, UsageError
from clcr_edge.outputs import check_folder

if TYPE_CHECKING:
    from clcr_edge.train.metrics import Metrics

# As in `clcr_edge.data.sets` (a test says so): importing that reads the media library, and every command would wait.
NAMES = ("crema-d", "kinetics-sounds", "ave", "ucf101", "mosi", "mosei", "mosi-utterance", "clips")
TEACHER = "teacher.toml"  # what makes a folder a teacher's
_LEAST_EVENTS = 1_000


class Taken(str, Enum):
    """A modality that can be taken away."""

    vision = "vision"
    audio = "audio"
    language = "language"


class Noise(str, Enum):
    """Conditions by name."""

    clean = "clean"
    moderate = "moderate"
    heavy = "heavy"


class Weights(str, Enum):
    """Which of a checkpoint's weights."""

    best = "best"
    last = "last"


def train(
    name: Annotated[str, typer.Argument(help=f"What to train on: digits, {', '.join(NAMES)}.")],
    root: Annotated[Path, typer.Option(help="The data set's folder; digits: fsdd/recordings/*.wav and mnist/*-ubyte.gz.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder; a run that was killed is resumed from it.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML: [train], [data], [teacher]; see clcr_edge.train.settings.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    teacher: Annotated[bool, typer.Option("--teacher", help="Digits only: the teacher, to distil the student from.")] = False,
    leave_out: Annotated[
        str | None, typer.Option(help="Digits only: speaker never to hear, by name or number: to test on that voice.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Digits only: fewer or more steps than the recipe's.")] = None,
) -> None:
    """Train a network: the streaming student on digits (about half an hour on two slow cores), CLCR's teacher on a data set.

    Several GPUs or machines: torchrun --nproc-per-node N -m clcr_edge train NAME ...
    """
    if name in NAMES:
        for option, given in (("--teacher", teacher), ("--leave-out", leave_out), ("--steps", steps)):
            if given:
                raise UsageError(f"{option} is for digits; {name} takes its recipe from --config FILE")
        _train_set(name, root, out, config, seed)
        return
    if name != "digits":
        raise UsageError(f"nothing called {name!r} can be trained; choose digits, {', '.join(NAMES)}")
    check_folder(out)
    try:
        from clcr_edge.train.digits import Recipe, train_digits
        from clcr_edge.train.digits_teacher import train_digits_teacher
        from clcr_edge.train.parallel import launched
        from clcr_edge.train.settings import Settings, read_settings
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    if launched():
        raise UsageError("digits trains in one process; run it without torchrun")
    if config is not None and not teacher:
        raise UsageError("--config: the digits student has its own recipe; --config is for --teacher and for data sets")
    settings = read_settings(config)
    if settings != Settings(teacher=settings.teacher):
        raise UsageError(f"{config}: for digits --teacher only the [teacher] table counts; take the others out")
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    if teacher:
        summary = train_digits_teacher(root, out, seed, leave_out, recipe, settings.teacher)
    else:
        summary = train_digits(root, out, seed, leave_out, recipe)
    last = summary["last"]
    typer.echo(
        f"{out}: {summary['parameters']:,} parameters, {recipe.steps} steps, "
        f"validation tick accuracy {last.get('val_tick_accuracy', float('nan')):.3f} (moderate noise)",
        err=True,
    )


def _train_set(name: str, root: Path, out: Path, config: Path | None, seed: int) -> None:
    check_folder(out)
    try:
        from clcr_edge.train.parallel import training_group
        from clcr_edge.train.set_training import train_set
        from clcr_edge.train.settings import read_settings
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    settings = read_settings(config)
    with training_group(settings.train.device) as group:
        summary = train_set(name, root, out, seed, settings, group)
        if group.first:
            tell_summary(out, summary)


def tell_summary(out: Path, summary: dict[str, Any]) -> None:
    """The last line of a training on a data set, on stderr."""
    best = f"best of val in epoch {summary['best_epoch']}" if summary["best_epoch"] else "no val split to choose the best by"
    typer.echo(
        f"{out}: {summary['parameters']:,} parameters, {summary['train']} samples, {summary['epochs']} epochs, {best}; "
        f"{summary['report']} (data-report.txt)",
        err=True,
    )


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder or a bundle.")],
    data: Annotated[str, typer.Option(help=f"What to evaluate on: digits, {', '.join(NAMES)}.")] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder as for train. None: the project's own check part of digits.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Of a data set: train, val or test.")] = "test",
    checkpoint: Annotated[
        Weights | None, typer.Option(help="Of a training on a data set; default: the best where there is one.")
    ] = None,
    without: Annotated[list[Taken] | None, typer.Option(help="Take a modality away; may be repeated.")] = None,
    noise: Annotated[Noise, typer.Option(help="How disturbed the streams are.")] = Noise.clean,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the streams.")] = 0,
    events: Annotated[int, typer.Option(min=1, help="Score at least this many events.")] = _LEAST_EVENTS,
    precision: Annotated[str | None, typer.Option(help="Of a bundle: fp32 or int8; default: the chosen one.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Score a model on what its training never saw: streams of digits, or a data set's test split."""
    if data in NAMES:
        _evaluate_set(model, data, root, split, checkpoint, as_json)
        return
    if data != "digits":
        raise UsageError(f"no data set called {data!r}; choose digits, {', '.join(NAMES)}")
    if split != "test" or checkpoint is not None:
        raise UsageError("--split and --checkpoint are for data sets; digits are scored on streams, see --noise and --events")
    taken = frozenset(t.value for t in without or [])
    if len(taken) == len(Taken):
        raise UsageError("--without names all three modalities; leave at least one")
    if (model / TEACHER).is_file():
        metrics, line, kind = _score_teacher(model, root, noise, events, seed, taken, precision)
    else:
        metrics, line, kind = _score_student(model, root, noise, events, seed, taken, precision, jobs)
    about = {
        "model": str(model),
        "precision": kind,
        "data": data,
        "material": line,
        "noise": noise.value,
        "without": sorted(taken),
        "seed": seed,
    }
    if as_json:
        found = metrics.to_json()
        same = {"accuracy": found["tick_accuracy"], "macro_f1": found["tick_macro_f1"], "n": found["n_ticks"]}
        typer.echo(json.dumps(same | found | about))
        return
    typer.echo(f"{model} ({kind}), {noise.value}, without {', '.join(sorted(taken)) or 'nothing'}; {line}")
    typer.echo(f"event accuracy         {metrics.event_accuracy:7.2%}   n = {metrics.n_events} events")
    typer.echo(f"tick accuracy          {metrics.tick_accuracy:7.2%}   n = {metrics.n_ticks} ticks")
    typer.echo(f"tick macro-F1          {metrics.tick_macro_f1:7.2%}")
    typer.echo(f"time to first correct  {metrics.time_to_first_correct_s:6.2f} s   median; {metrics.never_correct:.2%} never")


def _score_student(
    model: Path, root: Path | None, noise: Noise, events: int, seed: int, taken: frozenset[str], precision: str | None,
    jobs: int | None,
) -> tuple[Metrics, str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.train.evaluate import Evaluation, Material
    from clcr_edge.train.subject import open_subject

    subject, seen = open_subject(model, precision)
    material = Material(root, seen)
    line = material.bank()[1]  # also: a clear error before any process starts
    console = Console(stderr=True)
    with Evaluation(subject, material, jobs) as evaluation, Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        metrics = evaluation.events(
            BY_NAME[noise.value], events, seed, taken, lambda found: bar.update(task, completed=min(found, events))
        )
    return metrics, line, subject.precision


def _score_teacher(
    model: Path, root: Path | None, noise: Noise, events: int, seed: int, taken: frozenset[str], precision: str | None
) -> tuple[Metrics, str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.data.seen import FILE, Seen
    from clcr_edge.train.evaluate import Material

    try:
        from clcr_edge.train.judge import judge_stream_teacher
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    if precision not in (None, "fp32"):
        raise UsageError(f"--precision {precision}: {model} is a teacher, which has fp32 only")
    material = Material(root, Seen.load(model / FILE) if (model / FILE).is_file() else None)
    line = material.bank()[1]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        metrics = judge_stream_teacher(
            model, material, BY_NAME[noise.value], events, seed, taken,
            lambda found: bar.update(task, completed=min(found, events)),
        )
    return metrics, line, "fp32"


def _evaluate_set(model: Path, data: str, root: Path | None, split: str, checkpoint: Weights | None, as_json: bool) -> None:
    if root is None:
        raise UsageError(f"--data {data} needs --root, the data set's folder")
    try:
        from clcr_edge.train.judge import judge_set, plain
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    scores, about = judge_set(model, data, root, split, checkpoint.value if checkpoint else None)
    if "warning" in about:
        typer.echo(f"clcr-edge: warning: {about['warning']}", err=True)
    if as_json:
        typer.echo(json.dumps(plain(scores) | about))
        return
    typer.echo(f"{model}, {about['variant']}, {data}/{split} ({about['protocol']}); {about['report']}")
    for key, value in scores.items():
        typer.echo(f"{key:40} {value if isinstance(value, int) else format(value, '.4f')}")


def missing_train(e: ModuleNotFoundError) -> MissingPartError:
    """The line for a missing training package."""
    return MissingPartError(f"{e.name} is not installed; training and export need: pip install 'clcr-edge[train]'")
