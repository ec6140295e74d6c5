"""AVE (Tian et al., ECCV 2018): in which of ten seconds is an event both seen and heard, and which of 28 is it.

`Annotations.txt` holds rows `Category&VideoID&Quality&StartTime&EndTime` (the published copies differ in whether that header is
there), `trainSet.txt`, `valSet.txt` and `testSet.txt` rows of the same form; the films are `AVE/{VideoID}.mp4`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clcr_edge.data.sets.cache import Source
from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.media_set import VIDEO, Listed, Lister, build, pick
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one, media_index, read_lines
from clcr_edge.data.sets.sample import IntArray, Task
from clcr_edge.errors import DataError

SEGMENTS = 10
# The published order, by which the labels of its feature files are numbered; background is last.
CLASSES = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
    "background",
)
BACKGROUND = len(CLASSES) - 1
_ROWS = 4_143


class _Row(NamedTuple):
    category: str
    video: str
    start: int
    end: int

    @property
    def name(self) -> str:
        # 45 videos are there twice, under two categories.
        return f"{self.video}&{self.category}"


def load_ave(root: Path | str, options: Options) -> DataSet:
    """Localisation: one of 29 classes for each of ten seconds, int64 `[10]`; the video is the group.

    "strict": rows of train whose video is in val or test too are refused, and so is the row whose event has no length.
    "published": all rows; that one is all background. Raises `DataError` where a list is missing or a line is malformed.
    """
    folder = existing_folder(root, "AVE (Annotations.txt, trainSet.txt, valSet.txt, testSet.txt, AVE/*.mp4)")
    annotated = {*_read(find_one(folder, "Annotations.txt", "data/Annotations.txt"))}
    films = media_index(folder, VIDEO)
    lister = Lister()
    placed: set[_Row] = set()
    for part in ("train", "val", "test"):
        for row in _read(find_one(folder, f"{part}Set.txt", f"data/{part}Set.txt")):
            placed.add(row)
            if row not in annotated:
                lister.refuse(row.name, f"{row.start} to {row.end} s in {part}Set.txt is not in Annotations.txt")
            elif row.category not in CLASSES[:BACKGROUND]:
                lister.refuse(row.name, f"category {row.category!r} is none of the {BACKGROUND}")
            elif not 0 <= row.start <= row.end <= SEGMENTS:
                lister.refuse(row.name, f"{row.start} to {row.end} s is no part of {SEGMENTS} s")
            elif row.start == row.end and options.protocol == "strict":
                lister.refuse(row.name, f"{row.start} to {row.end} s: an event of no length")
            else:
                found = pick(films.get(row.video, []), folder)
                if isinstance(found, str):
                    lister.refuse(row.name, found)
                else:
                    lister.add(Listed(row.name, row.video, _labels(row), part, Source(found, found)))
    for row in sorted(annotated - placed):
        lister.refuse(row.name, "in Annotations.txt, but in none of the three sets")
    lister.expect("ave", _ROWS, "rows")
    options = dataclasses.replace(options, media=dataclasses.replace(options.media, max_s=float(SEGMENTS)))
    return build("ave", Task.SEGMENTS, CLASSES, lister, folder, options)


def _labels(row: _Row) -> IntArray:
    labels = np.full(SEGMENTS, BACKGROUND, np.int64)
    labels[row.start : row.end] = CLASSES.index(row.category)
    return labels


def _read(path: Path) -> list[_Row]:
    rows = []
    for line, text in read_lines(path):
        cells = text.split("&")
        if cells[0] == "Category" and line == 1:
            continue
        try:
            category, video, _, start, end = cells
            rows.append(_Row(category, video, int(start), int(end)))
        except ValueError:
            raise DataError(f"{path}: line {line}: expected Category&VideoID&Quality&Start&End; correct the line") from None
    return rows
