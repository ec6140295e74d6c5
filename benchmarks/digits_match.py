"""CLCR and its variants on digits-match, paired by seed; writes JSON, and a table into docs/digits-match.md.

    python benchmarks/digits_match.py --root DIR --work DIR --seeds 5
    python benchmarks/digits_match.py --root DIR --work DIR --seeds 5 --leave-out --from 'runs/f{seed}'

Of one seed, all variants have the same front ends, training streams, order, number of steps and test streams; a difference of
two of them is taken seed by seed. --leave-out: seed k never hears speaker k (modulo their number) and is tested on that voice,
with front ends that never heard it either (--from, in which {seed} is replaced). What --work holds is not trained again.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from clcr_edge.data.conditions import BY_NAME
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.errors import ClcrEdgeError, UsageError
from clcr_edge.model.teacher.variants import VARIANTS
from clcr_edge.train.evaluate import Material
from clcr_edge.train.match import MatchRecipe, train_match
from clcr_edge.train.match_scores import MatchScorer, ReadStream, open_match, predict_match, read_streams
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.teacher_checkpoint import LAST, read_description

BEGIN, END = "<!-- figures: made by benchmarks/digits_match.py -->", "<!-- end of figures -->"
# Student's t, two-sided 95 %, by the number of seeds.
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
_KEYS = ("match_accuracy", "same_recall", "different_recall", "undecided", "event_accuracy", "tick_accuracy", "tick_macro_f1")


def main(
    root: Annotated[Path, typer.Option(help="fsdd/ and mnist/.")],
    work: Annotated[Path, typer.Option(help="Checkpoints and pools.")],
    seeds: int = 5,
    variants: str = "full,late-fusion",
    source: Annotated[str, typer.Option("--from", help="Student checkpoint with its front ends; {seed} is replaced.")] = "",
    leave_out: Annotated[bool, typer.Option("--leave-out")] = False,
    noise: str = "moderate,heavy",
    events: Annotated[int, typer.Option(help="Test events seen and said, for each seed and noise.")] = 1_000,
    steps: int = MatchRecipe.steps,
    pool: int = MatchRecipe.pool,
    speakers: int = 4,
    out: Path = Path("benchmarks/results/digits_match.json"),
    page: Path = Path("docs/digits-match.md"),
) -> None:
    """Train what is missing, measure, write."""
    keep_memory()
    torch.set_num_threads(1)
    names, noises = variants.split(","), noise.split(",")
    for given, known in ((names, VARIANTS), (noises, BY_NAME)):
        if any(n not in known for n in given):
            raise UsageError(f"{','.join(given)}: choose among {', '.join(known)}")
    recipe = replace(MatchRecipe(), steps=steps, pool=pool)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        left = str(seed % speakers) if leave_out else None
        start = Path(source.format(seed=seed)) if source else None
        folders = {}
        for name in names:
            folders[name] = work / f"{seed}-{name}"
            _train(root, folders[name], seed, left, name, start, recipe, work / f"{seed}.safetensors")
        for condition in noises:
            rows += _measure(folders, root, condition, events, seed)
            out.parent.mkdir(parents=True, exist_ok=True)
            told = {"command": _command(seeds, names, leave_out, steps), "recipe": vars(recipe), "rows": rows}
            out.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    _write_table(page, rows, names, noises, _command(seeds, names, leave_out, steps))


def _command(seeds: int, names: list[str], leave_out: bool, steps: int) -> str:
    left = " --leave-out --from ..." if leave_out else ""
    return f"benchmarks/digits_match.py --seeds {seeds} --variants {','.join(names)} --steps {steps}{left}"


def _train(
    root: Path, out: Path, seed: int, left: str | None, name: str, start: Path | None, recipe: MatchRecipe, pool: Path
) -> None:
    if (out / LAST).is_file() and (out / FILE).is_file():
        if read_description(out)[1]["training"]["recipe"] != vars(recipe):
            raise ClcrEdgeError(f"{out}: trained with another recipe; name another --work")
        return
    summary = train_match(root, out, seed, left, name, start, recipe, pool)
    print(f"seed {seed} {name:16} trained in {summary['seconds']:.0f} s: {summary['last']}", flush=True)


def _measure(folders: dict[str, Path], root: Path, noise: str, events: int, seed: int) -> list[dict[str, Any]]:
    first = next(iter(folders.values()))
    bank, line = Material(root, Seen.load(first / FILE)).bank()
    streams: list[ReadStream] = []
    rows = []
    for name, folder in folders.items():
        teacher, window = open_match(folder)
        if not streams:  # the front ends of one seed are the same in all its variants: read once
            found = 0
            for stream in read_streams(teacher, bank, BY_NAME[noise], seed):
                streams.append(stream)
                found += sum(e.label in (3, 4) for e in stream.events)
                if found >= events:
                    break
        scorer = MatchScorer()
        for stream in streams:
            scorer.add(stream.labels, predict_match(teacher, stream.batch, window)[0], stream.events)
        scores = scorer.result().to_json()
        rows.append({"seed": seed, "variant": name, "noise": noise, "material": line, **scores})
        print(f"seed {seed} {name:16} {noise:9} same or different {scores['match_accuracy']:.2%}", flush=True)
    return rows


def _figures(rows: list[dict[str, Any]], name: str, noise: str, key: str) -> np.ndarray:
    """One per seed; NaN where nothing could be scored."""
    found = [r[key] for r in rows if r["variant"] == name and r["noise"] == noise]
    return np.array([math.nan if f is None else f for f in found])


def table(rows: list[dict[str, Any]], names: list[str], noises: list[str], command: str) -> str:
    """The markdown between the marks: mean and spread (smallest to largest) over seeds, and differences to late fusion."""
    seeds = len({r["seed"] for r in rows})
    lines = [f"{seeds} seeds; `{command}`", ""]
    heads = ["noise", "variant", "n", "same or different", "spread", "of the same", "of the different", "never decided"]
    heads += ["tick accuracy", "tick macro-F1"]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for noise in noises:
        for name in names:
            n = sum(r["n_matches"] for r in rows if r["variant"] == name and r["noise"] == noise)
            mean = {k: f"{np.mean(_figures(rows, name, noise, k)):.1%}" for k in _KEYS}
            main = _figures(rows, name, noise, "match_accuracy")
            cells = [noise, name, n, mean["match_accuracy"], f"{main.min():.1%} to {main.max():.1%}", mean["same_recall"]]
            cells += [mean["different_recall"], mean["undecided"], mean["tick_accuracy"], mean["tick_macro_f1"]]
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    lines += ["", "Differences to late fusion, paired by seed, in points of \"same or different\":", ""]
    lines += ["| noise | variant | mean | 95 % interval | spread | better in |", "|---|---|---|---|---|---|"]
    for noise in noises:
        for name in names:
            if name != "late-fusion" and "late-fusion" in names:
                lines.append(_difference(rows, name, noise))
    return "\n".join(lines)


def _difference(rows: list[dict[str, Any]], name: str, noise: str) -> str:
    plain = _figures(rows, "late-fusion", noise, "match_accuracy")
    points = 100.0 * (_figures(rows, name, noise, "match_accuracy") - plain)
    n = len(points)
    half = _T.get(n, 2.0) * points.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    interval = f"{points.mean() - half:+.1f} to {points.mean() + half:+.1f}" if n > 1 else "one seed has none"
    spread = f"{points.min():+.1f} to {points.max():+.1f}"
    return f"| {noise} | {name} | {points.mean():+.1f} | {interval} | {spread} | {int((points > 0).sum())} of {n} seeds |"


def _write_table(page: Path, rows: list[dict[str, Any]], names: list[str], noises: list[str], command: str) -> None:
    made = f"{BEGIN}\n\n{table(rows, names, noises, command)}\n\n{END}"
    text = page.read_text("utf-8") if page.is_file() else f"{BEGIN}{END}\n"
    if BEGIN not in text or END not in text:
        raise ClcrEdgeError(f"{page}: the marks between which the figures go are gone; put back {BEGIN} and {END}")
    page.parent.mkdir(parents=True, exist_ok=True)
    scratch = page.with_name(f".{page.name}.new")
    scratch.write_text(text[: text.index(BEGIN)] + made + text[text.index(END) + len(END) :], "utf-8")
    scratch.replace(page)
    print(made)


if __name__ == "__main__":
    typer.run(main)
