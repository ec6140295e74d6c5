"""Trains CLCR, or one of its variants, on `digits-match` (`clcr_edge.data.match`): `clcr-edge train digits-match`.

Every variant begins at the same front ends, draws the same streams and ticks in the same order and takes as many steps; what
differs is what the variant's name says (`clcr_edge.train.match_start`, `clcr_edge.model.teacher.variants`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clcr_edge.data.conditions import MODERATE
from clcr_edge.data.seen import FILE, Seen
from clcr_edge.model.student import parameter_count
from clcr_edge.model.teacher.objective import teacher_losses
from clcr_edge.model.teacher.streams import tick_spans
from clcr_edge.train import curves
from clcr_edge.train.batches import LabelledTicks
from clcr_edge.train.checkpoint import RESUME
from clcr_edge.train.digits import digits_material
from clcr_edge.train.digits_teacher import WINDOW
from clcr_edge.train.identity import of_settings
from clcr_edge.train.loop import METRICS, Schedule, fit
from clcr_edge.train.match_pool import PIECE, open_pool
from clcr_edge.train.match_scores import TASK, MatchScorer, predict_match, read_streams
from clcr_edge.train.match_start import encode_fronted, open_source, start_network
from clcr_edge.train.memory import keep_memory
from clcr_edge.train.teacher_checkpoint import LAST, save_description, save_weights
from clcr_edge.train.token_heads import WithHeads

POOL = "pool.safetensors"


@dataclass(frozen=True)
class MatchRecipe:
    """pool streams of `seconds` are made once; each of `steps` steps draws pieces of `streams` of them and `predict` ticks of
    each, as `Pool.draw` says. intra, inter: weights of the regularisers; auxiliary: of `token_heads`. watched: streams of a
    minute to watch on. threads: of torch; on a busy machine two that wait for each other were measured to be many times slower
    than one."""

    pool: int = 2_400
    seconds: float = 8.0
    steps: int = 1_100
    streams: int = 48
    predict: int = 8
    lr: float = 2e-3
    intra: float = 0.02
    inter: float = 0.002
    auxiliary: float = 0.5
    watched: int = 4
    threads: int = 1


def train_match(
    root: Path,
    out: Path,
    seed: int,
    leave_out: str | None,
    variant: str = "full",
    source: Path | None = None,
    recipe: MatchRecipe | None = None,
    pool: Path | None = None,
) -> dict[str, Any]:
    """Train, resume where a killed run stopped, and fill `out` (see `clcr_edge.train.teacher_checkpoint`). Returns a summary.

    leave_out as in `train_digits`. source: the student whose front ends are used, None for the shipped one. pool: a file for
    the streams, so that several runs of one seed share them; None: one in `out`, removed at the end.
    """
    recipe = recipe or MatchRecipe()
    keep_memory()
    torch.set_num_threads(recipe.threads)
    material = digits_material(root, leave_out)
    student, found = open_source(source, material.left_out)
    model = start_network(student, variant, seed, (recipe.intra, recipe.inter))
    learner = WithHeads(model)
    out.mkdir(parents=True, exist_ok=True)
    streams = open_pool(pool or out / POOL, material.every, model, seed, recipe.pool, recipe.seconds)
    watched = list(islice(read_streams(model, material.held, MODERATE, 900), recipe.watched))
    total = min(PIECE, streams.seen.shape[1])

    def loss(batch: LabelledTicks, step: int) -> dict[str, Tensor]:
        learner.train()
        levels = encode_fronted(model, batch.batch)
        result = model.fuse(levels, tick_spans(batch.ticks, total, WINDOW))
        terms = teacher_losses(result, batch.labels, model.config)
        digit = learner.digit_loss(levels, batch.shown, batch.spoken)
        right = (result.aggregated.logits.argmax(-1) == batch.labels.flatten()).float().mean()
        return {
            "total": terms.total + recipe.auxiliary * digit,
            "task": terms.task,
            "intra": terms.intra,
            "inter": terms.inter,
            "digit": digit,
            "tick_accuracy": right,
        }

    def watch(step: int) -> dict[str, float]:
        model.eval()
        scorer = MatchScorer()
        for stream in watched:
            scorer.add(stream.labels, predict_match(model, stream.batch)[0], stream.events)
        scores = scorer.result()
        told = {"val_tick_accuracy": scores.plain.tick_accuracy, "val_match_accuracy": scores.match_accuracy}
        return {k: round(v, 4) for k, v in told.items() if not np.isnan(v)}

    identity = of_settings(variant, material.identity(seed, recipe))
    draw = partial(streams.batches, seed, min(recipe.streams, len(streams)), min(recipe.predict, total - total // 4))
    schedule = Schedule(recipe.steps, recipe.lr)
    every = min(100, recipe.steps)
    average = fit(TASK, learner, schedule, draw, loss, out, seed, watch, every, identity=identity)
    # The frozen CNNs are in no average.
    save_weights(out / LAST, {k: average.get(f"network.{k}", v) for k, v in model.state_dict().items()})
    training = material.provenance(seed, recipe) | {"task": TASK, "front_ends": str(found)}
    save_description(out, model, {"training": training, "stream": {"window": WINDOW}})
    _save_seen(out, material.save_seen, found)
    curves.draw_curves(out / METRICS, out / curves.FILE)
    for leftover in (*out.glob(f"*.{RESUME}"), out / POOL):
        leftover.unlink(missing_ok=True)
    records = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
    watched_last = next((r for r in reversed(records) if "val_tick_accuracy" in r), records[-1])
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(True)
    return {
        "out": str(out),
        "variant": variant,
        "parameters": parameter_count(model),
        "learning": learns,
        "left_out": material.left_out,
        "seconds": records[-1]["seconds"],
        "last": watched_last,
    }


def _save_seen(out: Path, save_own: Any, source: Path) -> None:
    """What must not be tested on: what this training saw, and what the front ends saw in theirs."""
    save_own(out)
    if (source / FILE).is_file():
        own, theirs = Seen.load(out / FILE), Seen.load(source / FILE)
        Seen(
            np.union1d(own.images, theirs.images),
            np.union1d(own.recordings, theirs.recordings),
            tuple(sorted({*own.speakers, *theirs.speakers})),
        ).save(out / FILE)
