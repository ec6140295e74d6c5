"""`digits-match` for `clcr-edge train` and `clcr-edge eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clcr_edge.commands.train import MATCH, missing_train
from clcr_edge.errors import UsageError
from clcr_edge.outputs import check_folder

if TYPE_CHECKING:
    from clcr_edge.train.match_scores import MatchMetrics


def train_match_variant(
    root: Path, out: Path, seed: int, leave_out: str | None, variant: str, source: Path | None, steps: int | None
) -> None:
    """`clcr-edge train digits-match`."""
    check_folder(out)
    try:
        from clcr_edge.train.match import MatchRecipe, train_match
        from clcr_edge.train.parallel import launched
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    if launched():
        raise UsageError(f"{MATCH} trains in one process; run it without torchrun")
    recipe = MatchRecipe() if steps is None else MatchRecipe(steps=steps)
    summary = train_match(root, out, seed, leave_out, variant, source, recipe)
    last = summary["last"]
    typer.echo(
        f"{out}: {variant}, {summary['learning']:,} of {summary['parameters']:,} parameters learned in {recipe.steps} steps; "
        f"validation: ticks {last.get('val_tick_accuracy', float('nan')):.3f}, same or different "
        f"{last.get('val_match_accuracy', float('nan')):.3f} (moderate noise)",
        err=True,
    )


def evaluate_match(
    model: Path, root: Path | None, noise: str, events: int, seed: int, taken: frozenset[str], as_json: bool
) -> None:
    """`clcr-edge eval --data digits-match`."""
    metrics, line, variant = _score(model, root, noise, events, seed, taken)
    plain = metrics.plain
    if as_json:
        same = {"accuracy": plain.tick_accuracy, "macro_f1": plain.tick_macro_f1, "n": plain.n_ticks}
        about = {"model": str(model), "variant": variant, "data": MATCH, "material": line, "noise": noise}
        typer.echo(json.dumps(same | metrics.to_json() | about | {"without": sorted(taken), "seed": seed}))
        return
    left_out = ", ".join(sorted(taken)) or "nothing"
    typer.echo(f"{model} ({variant}), {noise}, without {left_out}; {line}")
    typer.echo(f"same or different      {metrics.match_accuracy:7.2%}   n = {metrics.n_matches} events seen and said")
    typer.echo(f"  of the same          {metrics.same_recall:7.2%}")
    typer.echo(f"  of the different     {metrics.different_recall:7.2%}")
    typer.echo(f"  never decided        {metrics.undecided:7.2%}")
    typer.echo(f"event accuracy         {plain.event_accuracy:7.2%}   n = {plain.n_events} events of any kind")
    typer.echo(f"tick accuracy          {plain.tick_accuracy:7.2%}   n = {plain.n_ticks} ticks")
    typer.echo(f"tick macro-F1          {plain.tick_macro_f1:7.2%}")


def _score(
    model: Path, root: Path | None, noise: str, events: int, seed: int, taken: frozenset[str]
) -> tuple[MatchMetrics, str, str]:
    from rich.console import Console
    from rich.progress import Progress

    from clcr_edge.data.conditions import BY_NAME
    from clcr_edge.data.seen import FILE, Seen
    from clcr_edge.train.evaluate import Material

    try:
        from clcr_edge.train.match_scores import judge_match
    except ModuleNotFoundError as e:
        raise missing_train(e) from None
    material = Material(root, Seen.load(model / FILE) if (model / FILE).is_file() else None)
    line = material.bank()[1]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("events", total=events)
        metrics, variant = judge_match(
            model, material, BY_NAME[noise], events, seed, taken,
            lambda found: bar.update(task, completed=min(found, events)),
        )
    return metrics, line, variant
