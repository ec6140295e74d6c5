"""The user's own data: a CSV of media files with start, end and label.

    file,start,end,label,group,split,text,words
    day1/cam.mp4,12.0,15.5,waving,anna,train,hello there,day1/cam.words

`file` and `label` are needed; the other columns may be left out or empty. start, end: seconds; empty is the file's beginning
and end. group: who or what must not cross a split (the file itself otherwise). split: train, val or test. text: the
transcript. words: a file with lines `start end word`, in seconds of the media file. All paths are below the root.
"""

from __future__ import annotations

import math
from pathlib import Path

from clcr_edge.data.sets.cache import Source
from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.decode import Span
from clcr_edge.data.sets.media_set import PARTS, Listed, Lister, build
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one, inside, read_lines, read_rows
from clcr_edge.data.sets.sample import Task
from clcr_edge.errors import DataError
from clcr_edge.packets import Word

_COLUMNS = ("file", "start", "end", "label", "group", "split", "text", "words")
_Table = list[tuple[int, dict[str, str]]]


def load_clips(root: Path | str, options: Options) -> DataSet:
    """Classification (classes: the labels, sorted) or, with `options.task`, regression of the number in `label`.

    `options.table` is the CSV below the root. Without a split column, groups are split 70 / 10 / 20. A group in two splits is
    an error under "strict". A line whose media cannot be used is refused by name; a table that contradicts itself raises
    `DataError`.
    """
    folder = existing_folder(root, f"the media files and {options.table}")
    path = find_one(folder, options.table)
    table = _read(path)
    regression = options.task == "regression"
    classes = () if regression else tuple(sorted({cells["label"] for _, cells in table if cells["label"]}))
    if not regression and len(classes) < 2:
        raise DataError(f"{path}: {len(classes)} different labels, at least 2 are needed; fill the label column")
    _check_splits(path, table, options)
    names = _names(path, table)
    lister = Lister()
    known_words: dict[Path, list[Word]] = {}
    for number, (line, cells) in enumerate(table):
        name = names[number]
        try:
            lister.add(_listed(name, folder, cells, classes, regression, known_words))
        except DataError as e:
            lister.refuse(f"line {line} ({name})", str(e))
    task = Task.REGRESSION if regression else Task.CLASSIFICATION
    return build("clips", task, classes, lister, folder, options)


def _read(path: Path) -> _Table:
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path}: empty; the first line names the columns: {','.join(_COLUMNS)}")
    header = [c.strip() for c in rows[0][1]]
    unknown = [c for c in header if c not in _COLUMNS]
    if unknown or len(set(header)) != len(header) or not {"file", "label"} <= set(header):
        raise DataError(f"{path}: columns {','.join(header)[:200]}; needed: file and label; known: {','.join(_COLUMNS)}")
    table = []
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}: line {line} has {len(cells)} cells, the header has {len(header)}; correct the line")
        found = dict.fromkeys(_COLUMNS, "")
        found.update(zip(header, (c.strip() for c in cells), strict=True))
        if found["file"]:
            found["file"] = str(Path(found["file"]))  # ./a.mp4 is a.mp4
        table.append((line, found))
    return table


def _check_splits(path: Path, table: _Table, options: Options) -> None:
    given = [cells["split"] for _, cells in table]
    if not any(given):
        return
    owner: dict[str, tuple[str, int]] = {}
    for line, cells in table:
        if cells["split"] not in PARTS:
            raise DataError(f"{path}: line {line}: split {cells['split']!r}; write {', '.join(PARTS)} on every line or none")
        group = cells["group"] or cells["file"]
        part, first = owner.setdefault(group, (cells["split"], line))
        if part != cells["split"] and options.protocol == "strict":
            raise DataError(f"{path}: {group!r} is in {part} (line {first}) and in {cells['split']} (line {line}); use one")


def _names(path: Path, table: _Table) -> list[str]:
    """A name for every line: of one span however its times are spelled, so that it is found out where it is listed twice.

    Two labels, groups or splits for one span are a contradiction.
    """
    first: dict[tuple[str, str, str], tuple[int, dict[str, str], str]] = {}
    names = []
    for line, cells in table:
        name = f"{cells['file']}:{cells['start']}-{cells['end']}" if cells["start"] or cells["end"] else cells["file"]
        span = (cells["file"], _same(cells["start"] or "0"), _same(cells["end"]))
        before, known, name = first.setdefault(span, (line, cells, name))
        for column in ("label", "group", "split"):
            if known[column] and cells[column] and _same(known[column]) != _same(cells[column]):
                other = f"{column} {known[column]!r} in line {before}, {cells[column]!r} in line {line}"
                raise DataError(f"{path}: {name}: {other}; correct one")
        names.append(name)
    return names


def _same(text: str) -> str:
    """One spelling for every number; other text as it is."""
    try:
        return repr(float(text))
    except ValueError:
        return text


def _listed(
    name: str,
    folder: Path,
    cells: dict[str, str],
    classes: tuple[str, ...],
    regression: bool,
    known_words: dict[Path, list[Word]],
) -> Listed:
    file = inside(folder, cells["file"])
    if not file.is_file():
        raise DataError(f"{cells['file']}: no such file below {folder}; correct the path")
    start_s = _number(cells["start"], "start") if cells["start"] else 0.0
    end_s = _number(cells["end"], "end") if cells["end"] else None
    if not cells["label"]:
        raise DataError("no label; write one")
    target: int | float = _number(cells["label"], "label") if regression else classes.index(cells["label"])
    words: tuple[Word, ...] = ()
    if cells["words"]:
        path = inside(folder, cells["words"])
        if path not in known_words:
            known_words[path] = _read_words(path)
        words = tuple(
            Word(w.text, w.start_s - start_s, w.end_s - start_s, w.confidence)
            for w in known_words[path]
            # A word belongs to the clip in which its middle lies: a cut word is in one clip only.
            if start_s <= (w.start_s + w.end_s) / 2 < (math.inf if end_s is None else end_s)
        )
    text = cells["text"] or " ".join(w.text for w in words)
    part = cells["split"] or None
    group = cells["group"] or str(file.relative_to(folder))  # links are followed: one file is one group
    return Listed(name, group, target, part, Source(file, file, Span(start_s, end_s)), text, words)


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{what} {text!r} is no number; write one")
    return value


def _read_words(path: Path) -> list[Word]:
    words = []
    for line, text in read_lines(path):
        cells = text.split(maxsplit=2)
        try:
            start_s, end_s = float(cells[0]), float(cells[1])
            if len(cells) != 3 or not 0 <= start_s <= end_s < math.inf:
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(f"{path}: line {line}: expected 'start end word', in seconds; correct the line") from None
        words.append(Word(cells[2], start_s, end_s))
    return words
