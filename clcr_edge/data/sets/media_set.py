"""From a list of media files with labels to a data set: who may be in which split, decoding, the report."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clcr_edge.data.sets.cache import ClipCache, Source
from clcr_edge.data.sets.dataset import DataSet, split_by_group
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.report import Remark, Report
from clcr_edge.data.sets.sample import IntArray, Sample, Task
from clcr_edge.errors import DataError
from clcr_edge.packets import Modality, Word

VIDEO = frozenset({".mp4", ".avi", ".flv", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"})
AUDIO = frozenset({".wav", ".mp3", ".flac", ".m4a", ".ogg"})
PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Listed:
    """One sample as a list names it. part: its split, None to be split by group. source: where its media are."""

    name: str
    group: str
    target: int | float | IntArray
    part: str | None
    source: Source
    text: str = ""
    words: tuple[Word, ...] = ()


class Lister:
    """Collects samples and refusals while a list is read, so that none of either is lost."""

    def __init__(self) -> None:
        self.samples: list[Listed] = []
        self.refused: list[Remark] = []
        self.notes: list[Remark] = []
        self._names: set[str] = set()

    def refuse(self, name: str, reason: str) -> None:
        """A sample that cannot be used."""
        self.refused.append(Remark(name, reason))

    def note(self, name: str, reason: str) -> None:
        """Something to know about what was read."""
        self.notes.append(Remark(name, reason))

    def add(self, sample: Listed) -> None:
        """A sample; one of the same name that is there already is refused."""
        if sample.name in self._names:
            self.refuse(sample.name, "listed twice; the first is used")
            return
        self._names.add(sample.name)
        self.samples.append(sample)

    def expect(self, name: str, published: int, what: str) -> None:
        """Note a count that differs from the published one."""
        count = len(self.samples) + len(self.refused)
        if count != published:
            self.note(name, f"{count} {what} listed, the published set has {published}")


def pick(paths: Sequence[Path], root: Path, prefer: str = "") -> Path | str:
    """The one file of a name, or why there is none: missing, or several of which none lies in a folder `prefer` of the root."""
    if len(paths) == 1:
        return paths[0]
    if not paths:
        return "no such media file below the root; fetch it or take it out of the list"
    inside = [p for p in paths if prefer and prefer in p.relative_to(root).parts]
    if len(inside) == 1:
        return inside[0]
    return f"{len(paths)} files of this name ({paths[0]}, {paths[1]}); leave one"


def _uncross(lister: Lister) -> None:
    """Under "strict", take from train (then from val) what shares a speaker or video with a later part."""
    owner: dict[str, str] = {}
    for part in reversed(PARTS):
        for sample in lister.samples:
            if sample.part == part:
                owner.setdefault(sample.group, part)
    kept = []
    for sample in lister.samples:
        if sample.part is not None and owner[sample.group] != sample.part:
            lister.refuse(
                sample.name,
                f'{sample.group!r} is in the {owner[sample.group]} split too; protocol "published" keeps it in {sample.part}',
            )
        else:
            kept.append(sample)
    lister.samples[:] = kept


def _digest(path: Path) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None  # decoding will say so
    return digest.digest()


def _copies(samples: Sequence[Listed]) -> dict[Path, Path]:
    """Film (sound, where there is none) -> the film that it is a byte for byte copy of. Later splits hold the originals."""
    rank = {part: place for place, part in enumerate(reversed(PARTS))}
    ordered = sorted(samples, key=lambda s: rank.get(s.part or "", len(PARTS)))
    by_size: dict[int, list[Path]] = {}
    for path in dict.fromkeys(s.source.main for s in ordered):
        by_size.setdefault(path.stat().st_size, []).append(path)
    found = {}
    for paths in by_size.values():
        first: dict[bytes | None, Path] = {}
        for path in paths if len(paths) > 1 else ():
            digest = _digest(path)
            if digest is not None and first.setdefault(digest, path) != path:
                found[path] = first[digest]
    return found


def _without_copies(lister: Lister, strict: bool) -> None:
    """Name copies of a film; under "strict" refuse one that could bring a film into two splits under another group's name."""
    copies = _copies(lister.samples)
    owners: dict[Path, set[tuple[str, str | None]]] = {}
    for sample in lister.samples:
        owners.setdefault(sample.source.main, set()).add((sample.group, sample.part))
    kept = []
    for sample in lister.samples:
        original = copies.get(sample.source.main)
        if original is None:
            kept.append(sample)
            continue
        same_group = sample.group in {group for group, _ in owners[original]}
        # Not so for train: val may yet be taken from it.
        same_part = sample.part in PARTS[1:] and {part for _, part in owners[original]} == {sample.part}
        if strict and not same_group and not same_part:
            group, part = min(owners[original], key=str)
            lister.refuse(sample.name, f"a copy of {original} ({group!r}{f', {part}' if part else ''}); leave one of them")
        else:
            lister.note(sample.name, f"a copy of {original}")
            kept.append(sample)
    lister.samples[:] = kept


@dataclass(frozen=True, eq=False)
class _Fetch:
    """Reads one sample. A class and no closure, so that the data set can be sent to another process that reads for training."""

    samples: tuple[Listed, ...]
    cache: ClipCache

    def __call__(self, index: int) -> Sample:
        listed = self.samples[index]
        clip = dataclasses.replace(self.cache.get(listed.source).clip, words=listed.words)
        return Sample(listed.name, listed.group, listed.target, clip, text=listed.text)


def build(
    name: str, task: Task, classes: tuple[str, ...], lister: Lister, root: Path, options: Options, val_share: float = 0.0
) -> DataSet:
    """Decode everything listed and make the data set.

    val_share: under "strict", this share of train's groups becomes val where the list has no val. Samples without a part are
    split 70 / 10 / 20 by group. Copies of a film under another name are found by their content. Raises `DataError` if nothing
    is left.
    """
    if options.protocol == "strict":
        _uncross(lister)
    _without_copies(lister, options.protocol == "strict")
    cache = ClipCache(root, options.cache, options.media)
    outcomes = cache.prepare([s.source for s in lister.samples], options.workers, options.progress)
    good: list[Listed] = []
    for sample, outcome in zip(lister.samples, outcomes, strict=True):
        if isinstance(outcome, DataError):
            lister.refuse(sample.name, str(outcome))
        else:
            good.append(sample)
            for note in outcome:
                lister.note(sample.name, note)
    samples = tuple(good)
    groups = tuple(s.group for s in samples)
    splits = _splits(samples, options, val_share)
    if task is not Task.REGRESSION and "train" in splits:
        trained = {c for i in splits["train"].tolist() for c in np.atleast_1d(samples[i].target).tolist()}
        for number, label in enumerate(classes):
            if number not in trained:
                lister.note(label, "this class has no sample in train")
    report = Report(name, len(samples) + len(lister.refused), len(samples), tuple(lister.refused), tuple(lister.notes))

    targets: object
    if task is Task.SEGMENTS:
        targets = tuple(np.asarray(s.target, np.int64) for s in samples)
    else:
        targets = np.asarray([s.target for s in samples], np.float32 if task is Task.REGRESSION else np.int64)
    has_words = any(s.text or s.words for s in samples)
    return DataSet(
        name=name,
        task=task,
        classes=classes,
        names=tuple(s.name for s in samples),
        groups=groups,
        targets=targets,  # type: ignore[arg-type]
        splits=splits,
        modalities=frozenset({Modality.VISION, Modality.AUDIO, *([Modality.LANGUAGE] if has_words else [])}),
        report=report,
        fetch=_Fetch(samples, cache),
        protocol=options.protocol,
    )


def _splits(samples: Sequence[Listed], options: Options, val_share: float) -> dict[str, IntArray]:
    groups = [s.group for s in samples]
    if all(s.part is None for s in samples):
        return split_by_group(groups, {"train": 0.7, "val": 0.1, "test": 0.2})
    splits = {p: np.asarray([i for i, s in enumerate(samples) if s.part == p], np.int64) for p in PARTS}
    if not len(splits["val"]) and val_share and options.protocol == "strict":
        train = splits["train"]
        parts = split_by_group([groups[i] for i in train.tolist()], {"train": 1.0 - val_share, "val": val_share})
        splits["train"], splits["val"] = train[parts["train"]], train[parts["val"]]
    return {part: rows for part, rows in splits.items() if len(rows) or part != "val"}
