"""CMU-MOSI as bc-LSTM has it (Poria et al., ACL 2017): a video is a sequence of utterances, one of two sentiments for each.

One `text_*.csv` (100 numbers and the label a row), `audio_*.csv` (73), `video_*.csv` (100) and `transcripts_*.csv`
(`id,text,label`, with a header); row n of each is the same utterance. The rows are sorted by label, so their order says
nothing: utterances are grouped by video and put in the order of the integer after the last `_` of their id.

The public features leak the labels: logistic regression on the text alone gets 98 % of held-out videos right, because the
extractors were trained on these videos (benchmarks/mosi_leak.py). Figures on this set rank nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clcr_edge.data.sets.dataset import DataSet, split_by_group
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, read_rows
from clcr_edge.data.sets.report import Remark, Report
from clcr_edge.data.sets.sample import Features, IntArray, Sample, Task
from clcr_edge.errors import DataError
from clcr_edge.packets import FloatArray, Modality

CLASSES = ("negative", "positive")
_FILES = {"text": Modality.LANGUAGE, "video": Modality.VISION, "audio": Modality.AUDIO}
_WIDTHS = {"text": 100, "video": 100, "audio": 73}
_VIDEOS = 62
_MOST_CELLS = 4_096


def load_mosi_utterance(root: Path | str, options: Options) -> DataSet:
    """A sample is a video, a segment an utterance; classes negative and positive; the video is the group.

    Videos are sorted by id and split 70 / 10 / 20 by a fixed order; for the five folds of the benchmark use `folds`. There is
    no published split of these videos: "published" is refused. Raises `DataError` naming file and line for anything that is
    not in order: in files this small a fault is corrected, not worked around.
    """
    if options.protocol != "strict":
        raise DataError('mosi-utterance: no published split covers these videos; use protocol "strict" or folds')
    folder = existing_folder(root, "text_*.csv, audio_*.csv, video_*.csv and transcripts_*.csv")
    path = _one(folder, "transcripts")
    places, labels, texts = _read_transcripts(path)
    arrays = {}
    notes = []
    for kind, modality in _FILES.items():
        arrays[modality] = _read_features(_one(folder, kind), labels, path)
        width = arrays[modality].shape[1]
        if width != _WIDTHS[kind]:
            notes.append(Remark("mosi-utterance", f"{kind} is {width} wide, the published features {_WIDTHS[kind]}"))
    videos = sorted({video for video, _ in places})
    if len(videos) != _VIDEOS:
        notes.append(Remark("mosi-utterance", f"{len(videos)} videos, the public copy has {_VIDEOS}"))
    rows_of: dict[str, list[int]] = {video: [] for video in videos}
    for row in sorted(range(len(places)), key=places.__getitem__):
        rows_of[places[row][0]].append(row)
    rows: list[IntArray] = [np.asarray(rows_of[video], np.int64) for video in videos]

    def fetch(index: int) -> Sample:
        chosen = rows[index]
        there = np.ones(len(chosen), bool)
        said = tuple(texts[row] for row in chosen.tolist())
        return Sample(
            name=videos[index],
            group=videos[index],
            target=labels[chosen],
            features={m: Features(a[chosen], there.copy()) for m, a in arrays.items()},
            text=" ".join(said),
            texts=said,
            step_names=tuple("_".join(map(str, places[row])) for row in chosen.tolist()),
        )

    return DataSet(
        name="mosi-utterance",
        task=Task.SEGMENTS,
        classes=CLASSES,
        names=tuple(videos),
        groups=tuple(videos),
        targets=tuple(labels[chosen] for chosen in rows),
        splits=split_by_group(videos, {"train": 0.7, "val": 0.1, "test": 0.2}),
        modalities=frozenset(_FILES.values()),
        report=Report("mosi-utterance", len(videos), len(videos), notes=tuple(notes)),
        fetch=fetch,
    )


def _one(folder: Path, kind: str) -> Path:
    found = sorted(folder.glob(f"{kind}_*.csv"))
    if len(found) != 1:
        raise DataError(f"{folder}: {len(found)} files match {kind}_*.csv, expected one; put one of each kind there")
    return found[0]


def _read_transcripts(path: Path) -> tuple[list[tuple[str, int]], IntArray, list[str]]:
    """-> (video, number) of each row, its label, its words."""
    lines = read_rows(path)
    if not lines or [c.strip() for c in lines[0][1]] != ["id", "text", "label"]:
        raise DataError(f"{path}: the first line is not id,text,label; give bc-LSTM's transcripts")
    places: list[tuple[str, int]] = []
    labels: list[int] = []
    texts: list[str] = []
    seen: dict[tuple[str, int], int] = {}
    for line, cells in lines[1:]:
        if len(cells) != 3:
            raise DataError(f"{path}: line {line} has {len(cells)} cells, expected id,text,label; correct the line")
        video, _, number = cells[0].strip().rpartition("_")
        if not video or not (number.isascii() and number.isdigit()):
            raise DataError(f"{path}: line {line}: id {cells[0]!r}, expected video_number; correct the line")
        place = (video, int(number))
        if place in seen:
            raise DataError(f"{path}: line {line}: {cells[0]} is on line {seen[place]} too; leave one")
        seen[place] = line
        places.append(place)
        labels.append(_label(cells[2], path, line))
        texts.append(cells[1].strip())
    if not places:
        raise DataError(f"{path}: no utterance after the header; give bc-LSTM's transcripts")
    return places, np.asarray(labels, np.int64), texts


def _label(text: str, path: Path, line: int) -> int:
    if text.strip() not in ("0", "1"):
        raise DataError(f"{path}: line {line}: label {text[:40]!r}, expected 0 or 1; correct the line")
    return int(text)


def _read_features(path: Path, labels: IntArray, transcripts: Path) -> FloatArray:
    rows = read_rows(path)
    if len(rows) != len(labels):
        raise DataError(f"{path}: {len(rows)} rows, {transcripts.name} has {len(labels)}; take the files of one set")
    width = len(rows[0][1])
    if not 2 <= width <= _MOST_CELLS:
        raise DataError(f"{path}: {width} cells a row, expected numbers and a label; give bc-LSTM's features")
    values = np.empty((len(rows), width - 1), np.float32)
    for row, (line, cells) in enumerate(rows):
        if len(cells) != width:
            raise DataError(f"{path}: line {line} has {len(cells)} cells, the first has {width}; correct the line")
        try:
            numbers = np.asarray(cells[:-1], np.float64)
        except ValueError:
            raise DataError(f"{path}: line {line}: a cell is no number; correct the line") from None
        with np.errstate(over="ignore"):
            values[row] = numbers
        if not np.isfinite(values[row]).all():
            raise DataError(f"{path}: line {line}: a number is not finite; correct the line")
        label = _label(cells[-1], path, line)
        if label != labels[row]:
            raise DataError(f"{path}: line {line}: label {label}, {transcripts.name} says {labels[row]}; the rows do not match")
    return values
