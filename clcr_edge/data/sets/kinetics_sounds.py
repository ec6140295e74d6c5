"""Kinetics-Sounds (Arandjelovic and Zisserman, 2017): 10 s clips of 31 actions that can be seen and heard.

Lists `my_train.txt` and `my_test.txt` as in public code (OGM-GE, CVPR 2022): rows `name,10,label`, label 0..30. Train names are
`video_start_end`, test names `video_number`; a video's id has 11 characters. The media lie anywhere below the root by that
name.
"""

from __future__ import annotations

import re
from pathlib import Path

from clcr_edge.data.sets.cache import Source
from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.media_set import VIDEO, Listed, Lister, build, pick
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one, media_index, read_rows, read_text
from clcr_edge.data.sets.sample import Task
from clcr_edge.errors import DataError

_NAMES = {"train": re.compile(r"^(.{11})_[0-9]+_[0-9]+$"), "test": re.compile(r"^(.{11})_[0-9]+$")}
_CLASSES = 31
_ROWS = 14_799 + 2_597


def load_kinetics_sounds(root: Path | str, options: Options) -> DataSet:
    """Action, 31 classes; the video is the group.

    The lists number the classes; names come from `class.txt` (one line, separated by commas) where the root has it. "strict": a
    tenth of train's videos becomes val, and train clips of videos that test has are refused. "published": train and test as
    listed. Raises `DataError` where a list is missing or a line is malformed.
    """
    folder = existing_folder(root, "Kinetics-Sounds (my_train.txt, my_test.txt and the clips)")
    lists = {part: find_one(folder, f"my_{part}.txt", f"{part}.txt") for part in ("train", "test")}
    films = media_index(folder, VIDEO)
    lister = Lister()
    for part, path in lists.items():
        for line, cells in read_rows(path):
            if len(cells) != 3:
                raise DataError(f"{path}: line {line} has {len(cells)} cells, expected name,10,label; correct the line")
            name, _, label = (c.strip() for c in cells)
            match = _NAMES[part].match(name)
            if match is None:
                lister.refuse(name, f"line {line} of {path.name}: not the name of a {part} clip")
            elif not (label.isascii() and label.isdigit() and int(label) < _CLASSES):
                lister.refuse(name, f"line {line} of {path.name}: label {label!r}, expected 0 to {_CLASSES - 1}")
            else:
                found = pick(films.get(name, []), folder, part)
                if isinstance(found, str):
                    lister.refuse(name, found)
                else:
                    lister.add(Listed(name, match[1], int(label), part, Source(found, found)))
    lister.expect("kinetics-sounds", _ROWS, "clips")
    classes = _class_names(folder)
    return build("kinetics-sounds", Task.CLASSIFICATION, classes, lister, folder, options, val_share=0.1)


def _class_names(folder: Path) -> tuple[str, ...]:
    path = folder / "class.txt"
    if not path.is_file():
        return tuple(f"class_{i:02d}" for i in range(_CLASSES))
    names = tuple(n.strip() for n in read_text(path, 1 << 20).split(",") if n.strip())
    if len(names) != _CLASSES or len(set(names)) != _CLASSES:
        raise DataError(f"{path}: {len(set(names))} different names, expected {_CLASSES} on one line, separated by commas")
    return names
