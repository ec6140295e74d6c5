"""`clcr-edge train` and `clcr-edge eval`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from clcr_edge.errors import MissingPartError, UsageError

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


def train(
    name: Annotated[str, typer.Argument(help="What to train: digits.")],
    root: Annotated[Path, typer.Option(help="Folder with fsdd/recordings/*.wav and mnist/*-ubyte.gz.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder; a run that was killed is resumed from it.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    leave_out: Annotated[
        str | None, typer.Option(help="Speaker never to hear, by name or number: to test on that voice.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer or more steps than the recipe's.")] = None,
) -> None:
    """Train a student on labelled streams (about half an hour on two slow cores)."""
    if name != "digits":
        raise UsageError(f"nothing called {name!r} can be trained; choose digits")
    try:
        from clcr_edge.train.digits import Recipe, train_digits
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    summary = train_digits(root, out, seed, leave_out, recipe)
    last = summary["last"]
    typer.echo(
        f"{out}: {summary['parameters']:,} parameters, {recipe.steps} steps, "
        f"validation tick accuracy {last.get('val_tick_accuracy', float('nan')):.3f} (moderate noise)",
        err=True,
    )


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint folder or a bundle.")],
    data: Annotated[str, typer.Option(help="What to evaluate on: digits.")] = "digits",
    root: Annotated[
        Path | None, typer.Option(help="Folder as for train. None: the project's own check part.", show_default=False)
    ] = None,
    without: Annotated[list[Taken] | None, typer.Option(help="Take a modality away; may be repeated.")] = None,
    noise: Annotated[Noise, typer.Option(help="How disturbed the streams are.")] = Noise.clean,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the streams.")] = 0,
    events: Annotated[int, typer.Option(min=1, help="Score at least this many events.")] = _LEAST_EVENTS,
    precision: Annotated[str | None, typer.Option(help="Of a bundle: fp32 or int8; default: the chosen one.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Score a model on streams that its training never saw."""
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.train.evaluate import Evaluation, Material
    from clcr_edge.train.subject import open_subject

    if data != "digits":
        raise UsageError(f"no data set called {data!r}; choose digits")
    taken = frozenset(t.value for t in without or [])
    if len(taken) == len(Taken):
        raise UsageError("--without names all three modalities; leave at least one")
    subject, seen = open_subject(model, precision)
    material = Material(root, seen)
    line = material.bank()[1]  # also: a clear error before any process starts
    console = Console(stderr=True)
    with Evaluation(subject, material, jobs) as evaluation, Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        metrics = evaluation.events(
            BY_NAME[noise.value], events, seed, taken, lambda found: bar.update(task, completed=min(found, events))
        )
    about = {
        "model": str(model),
        "precision": subject.precision,
        "data": data,
        "material": line,
        "noise": noise.value,
        "without": sorted(taken),
        "seed": seed,
    }
    if as_json:
        typer.echo(json.dumps(metrics.to_json() | about))
        return
    typer.echo(f"{model} ({subject.precision}), {noise.value}, without {', '.join(sorted(taken)) or 'nothing'}; {line}")
    typer.echo(f"event accuracy         {metrics.event_accuracy:7.2%}   n = {metrics.n_events} events")
    typer.echo(f"tick accuracy          {metrics.tick_accuracy:7.2%}   n = {metrics.n_ticks} ticks")
    typer.echo(f"tick macro-F1          {metrics.tick_macro_f1:7.2%}")
    typer.echo(f"time to first correct  {metrics.time_to_first_correct_s:6.2f} s   median; {metrics.never_correct:.2%} never")


def missing_train(e: ModuleNotFoundError) -> MissingPartError:
    """The line for a missing training package."""
    return MissingPartError(f"{e.name} is not installed; training and export need: pip install 'clcr-edge[train]'")
