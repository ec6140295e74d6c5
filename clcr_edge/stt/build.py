"""Build the small Vosk model: `python -m clcr_edge.stt.build --root DATA --out DIR`.

    espeak-ng --labels--> stage 1 (synthetic voices only) --aligns--> people's digits, other voices
                                                \\--------- stage 2 (these, and odder voices of espeak-ng) --> Vosk's files

Everything is drawn from one seed. `--work` keeps what was rendered and stage 1, so that further models (a speaker held out)
need stage 2 only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    if __name__ == "__main__":
        raise SystemExit("error: torch is not installed; the builder needs: pip install 'clcr-edge[train]'") from None
    raise

from clcr_edge.errors import ClcrEdgeError, MissingPartError, UsageError
from clcr_edge.stt import flite
from clcr_edge.stt.accents import TRAIN_VOICES, AccentVoice
from clcr_edge.stt.arrays import FloatArray
from clcr_edge.stt.corpus import count_units, label
from clcr_edge.stt.graph import Penalties, Phones
from clcr_edge.stt.kaldi_files import write_model
from clcr_edge.stt.mel import dct_matrix
from clcr_edge.stt.net import TAPS, Frames, Schedule, Tdnn, affines, log_posteriors, priors, train
from clcr_edge.stt.synthetic import render
from clcr_edge.stt.takes import Take, accent_takes, align_takes, flite_takes, fsdd_takes, render_takes
from clcr_edge.stt.units import Units
from clcr_edge.stt.vary import ALL

Report = Callable[[str], None]
TAKES_OF_AN_ACCENT = 300
_MAY_BE_NONE = ("flite", "talk", "accents", "human", "stage2_synthetic", "prior_power", "drawn", "seed")
_CORPUS = 2  # raised when utterances or their labels become others


@dataclass(frozen=True)
class Recipe:
    """All that decides a model besides the data: sizes, passes, seed."""

    synthetic: int = 120_000
    epochs: int = 7
    width: int = 432
    flite: int = 700
    """Utterances of each of Flite's training voices in stage 2."""
    talk: int = 700
    """Further ones in which it talks of something else: several words, none of the vocabulary (with flite 0, 0: do without)."""
    accents: int = 500
    """Composed utterances of each foreign voice (`accents`) in stage 2 (0: do without)."""
    human: int = 1200
    """Composed utterances of each person in stage 2."""
    stage2_synthetic: int = 40_000
    """Synthetic utterances of stage 2, in odder voices than those of stage 1 (0: do without)."""
    stage2_epochs: int = 2
    stage2_rate: float = 2e-3
    prior_power: float = 0.7
    drawn: float = 0.7
    """Share of the synthetic utterances in voices drawn at random (`drawn_voices`), not in espeak-ng's own."""
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.drawn <= 1:
            raise UsageError(f"drawn {self.drawn}: a share; give 0 to 1")
        for name, value in asdict(self).items():
            least = 0 if name in _MAY_BE_NONE else 1e-9
            if not least <= value < math.inf:
                raise UsageError(f"{name} {value}: give a number {'from 0 on' if least == 0 else 'above 0'}")


@dataclass(frozen=True)
class Stage1:
    """What the synthetic voices give: the inventory, the corpus and a network trained on it."""

    units: Units
    frames: Frames
    net: Tdnn
    priors: FloatArray


def _new_net(units: Units, recipe: Recipe) -> Tdnn:
    torch.manual_seed(recipe.seed)
    return Tdnn(units.n_pdfs, recipe.width)


def _kept(path: Path) -> dict[str, Any]:
    """The arrays of a file in --work. `UsageError` for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {"key": "", **{name: data[name] for name in data.files}}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read ({error}): give an empty --work") from None


def stage1(recipe: Recipe, work: Path | None, workers: int, report: Report) -> Stage1:
    """Render, label and train on synthetic speech; read it back from `work` where the same recipe left it."""
    key = json.dumps([recipe.synthetic, recipe.epochs, recipe.width, recipe.seed, recipe.drawn, _CORPUS])
    if work and (work / "stage1.json").is_file():
        saved = json.loads((work / "stage1.json").read_text())
        if saved["key"] != key:
            raise UsageError(f"{work} holds the stage 1 of another recipe or version: give an empty --work")
        entries = {
            word: tuple((tuple(names), float(probability)) for names, probability in found)
            for word, found in saved["pronunciations"].items()
        }
        units = Units(tuple(saved["plain"]), entries)
        data = _kept(work / "stage1.npz")
        frames, prior = Frames(data["mel"], data["labels"], data["starts"]), data["priors"]
        net = _new_net(units, recipe)
        net.load_state_dict(torch.load(work / "stage1.pt", weights_only=True))
        net.eval()
        return Stage1(units, frames, net, prior)
    corpus = render(recipe.synthetic, recipe.seed, workers, drawn=recipe.drawn)
    units = count_units(corpus)
    frames = Frames.of([label(spoken, units) for spoken in corpus])
    report(f"{len(corpus)} synthetic utterances, {len(frames.mel) / 6000:.0f} min, {units.n_pdfs} outputs")
    net = _new_net(units, recipe)
    train(net, frames, Schedule(recipe.epochs, seed=recipe.seed), report)
    prior = priors(net, frames, units.n_pdfs)
    if work:
        work.mkdir(parents=True, exist_ok=True)
        np.savez(work / "stage1.npz", mel=frames.mel, labels=frames.labels, starts=frames.starts, priors=prior)
        torch.save(net.state_dict(), work / "stage1.pt")
        saved = {"key": key, "plain": units.plain, "pronunciations": units.pronunciations}
        (work / "stage1.json").write_text(json.dumps(saved))
    return Stage1(units, frames, net, prior)


def _odd_voices(recipe: Recipe, units: Units, work: Path | None, workers: int) -> Frames:
    """Stage 2's synthetic speech, rendered once for a `work`."""
    count = recipe.stage2_synthetic
    kept = None if work is None else work / f"stage2_{count}.npz"
    key = json.dumps([count, recipe.seed, recipe.drawn, _CORPUS, units.plain, units.n_pdfs])
    if kept and kept.is_file():
        data = _kept(kept)
        if str(data["key"]) != key:
            raise UsageError(f"{kept} is of another recipe or version: give an empty --work")
        return Frames(data["mel"], data["labels"], data["starts"])
    corpus = render(count, recipe.seed + 1, workers, drawn=recipe.drawn, odd=True)
    frames = Frames.of([label(spoken, units) for spoken in corpus])
    if kept:
        beside = kept.with_name(f".{os.getpid()}_{kept.name}")  # several models may be built side by side
        np.savez(beside, key=np.array(key), mel=frames.mel, labels=frames.labels, starts=frames.starts)
        beside.replace(kept)
    return frames


def _people(recipe: Recipe, root: Path | None, hold_out: str | None) -> list[Take]:
    """The recordings to train on. Asked for before anything is trained: a mistyped folder or name costs no half hour."""
    if root is None or not recipe.human:
        if hold_out:
            raise UsageError(f"--hold-out {hold_out} needs --root with fsdd/ in it")
        return []
    people = fsdd_takes(root / "fsdd")
    names = sorted({take.speaker for take in people})
    if hold_out and hold_out not in names:
        raise UsageError(f"no speaker {hold_out!r} in {root / 'fsdd'}: it has {', '.join(names)}")
    return [take for take in people if take.speaker != hold_out]


def _flite(recipe: Recipe, report: Report) -> list[Take]:
    if not recipe.flite + recipe.talk:
        return []
    try:
        return flite_takes(flite.TRAIN_VOICES, recipe.flite, recipe.talk, recipe.seed)
    except MissingPartError as error:
        report(f"without Flite's voices: {error}")
        return []


def _accents(recipe: Recipe, report: Report) -> list[Take]:
    def takes_of(voice: AccentVoice) -> list[Take]:
        try:
            return accent_takes(voice, TAKES_OF_AN_ACCENT, recipe.seed)
        except MissingPartError as error:
            report(f"without {voice.speaker}: {error}")
            return []

    return [take for voice in TRAIN_VOICES for take in takes_of(voice)] if recipe.accents else []


def _recorded(takes: list[Take], first: Stage1, recipe: Recipe, report: Report) -> Frames | None:
    """Utterances composed of recordings whose phonemes stage 1 found; none of no recordings."""
    if not takes:
        return None
    aligned = align_takes(takes, lambda mel: log_posteriors(first.net, mel), np.log(first.priors), first.units)
    by_speaker: dict[str, list[Take]] = defaultdict(list)
    for take in aligned:
        by_speaker[take.speaker].append(take)
    report(f"{len(aligned)} of {len(takes)} recordings aligned: {', '.join(sorted(by_speaker))}")
    spoken = []
    counts = {"flite": recipe.flite + recipe.talk, "festival": recipe.accents, "pico": recipe.accents}
    for speaker, found in sorted(by_speaker.items()):
        count = counts.get(speaker.split("-")[0], recipe.human)
        spoken += render_takes({speaker: found}, first.units, count, recipe.seed)
    return Frames.of(spoken)


def build(
    out: Path,
    recipe: Recipe,
    root: Path | None = None,
    hold_out: str | None = None,
    work: Path | None = None,
    workers: int = 1,
    report: Report = lambda line: None,
) -> None:
    """Train and write a Vosk model directory. `root`/fsdd: people's digits; without it the model knows no human voice."""
    people = _people(recipe, root, hold_out)
    for folder in (out, *([work] if work else [])):
        folder.mkdir(parents=True, exist_ok=True)
    first = stage1(recipe, work, workers, report)
    units, net, prior = first.units, first.net, first.priors
    takes = people + _flite(recipe, report) + _accents(recipe, report)
    recorded = _recorded(takes, first, recipe, report)
    odd = _odd_voices(recipe, units, work, workers) if recipe.stage2_synthetic else None
    parts = [part for part in (odd, recorded) if part]
    if parts:
        minutes = [len(part.mel) / 6000 if part else 0.0 for part in (odd, recorded)]
        report(f"stage 2: {minutes[0]:.0f} min synthetic, {minutes[1]:.0f} min of recordings")
        frames = reduce(Frames.joined, parts)
        schedule = Schedule(recipe.stage2_epochs, rate=recipe.stage2_rate, seed=recipe.seed + 1, warm=0.1, noises=ALL)
        train(net, frames, schedule, report)
        prior = priors(net, frames, units.n_pdfs, ALL)
    else:
        report("no stage 2: there is nothing to learn from in it")
    layers = [(layer.weight, layer.bias) for layer in affines(net, dct_matrix().T)]
    write_model(out, Phones(units), layers, TAPS, prior**recipe.prior_power, Penalties())


_HELP = {
    "synthetic": "utterances by espeak-ng",
    "epochs": "passes of stage 1, over synthetic speech",
    "width": "of the network; about 430 fill 5 MB",
    "flite": "utterances of each of Flite's voices",
    "talk": "utterances without a word of the vocabulary of each of Flite's voices",
    "accents": "utterances of each foreign voice",
    "human": "utterances of each person",
    "stage2_synthetic": "further utterances by espeak-ng, for stage 2",
    "stage2_epochs": "passes of stage 2, over everything",
    "stage2_rate": "peak learning rate of stage 2",
    "prior_power": "how far outputs are divided by how common they are",
    "drawn": "share of the synthetic utterances in voices drawn at random, 0 to 1",
    "seed": "of everything",
}


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m clcr_edge.stt.build", description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder with fsdd/recordings (people's digits)")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--work", type=Path, help="keep stage 1 here, and use it where it is there")
    parser.add_argument("--hold-out", metavar="SPEAKER", help="leave one person of fsdd out of the training")
    parser.add_argument("--workers", type=int, default=1, help="processes that render speech")
    parser.add_argument("--threads", type=int, default=1, help="threads that train")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"{_HELP[name]} ({value})")
    given = parser.parse_args(arguments)
    for name in ("workers", "threads"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)}: give 1 or more")
    torch.set_num_threads(given.threads)

    def report(line: str) -> None:
        print(line, flush=True)

    try:
        recipe = Recipe(**{name: getattr(given, name) for name in asdict(Recipe())})
        build(given.out, recipe, given.root, given.hold_out, given.work, given.workers, report)
    except ClcrEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        what = f"{error.filename or given.out}: {error.strerror or error}"
        print(f"error: {what}; name another place, or make room", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
