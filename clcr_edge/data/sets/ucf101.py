"""UCF101 (Soomro et al., 2012): 101 actions, 13,320 films, about half of them without a sound track.

`ucfTrainTestlist/classInd.txt` (`1 ApplyEyeMakeup`), `trainlist01.txt` (`ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`,
numbered from 1), `testlist01.txt` (without a number); the films are `UCF-101/ApplyEyeMakeup/*.avi`. Films of one `gNN` of a
class show the same person and place: that is the group.
"""

from __future__ import annotations

import re
from pathlib import Path

from clcr_edge.data.sets.cache import Source
from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.media_set import Listed, Lister, build
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one, inside, read_lines
from clcr_edge.data.sets.sample import Task
from clcr_edge.errors import DataError

_NAME = re.compile(r"^v_(.+)_g([0-9]+)_c([0-9]+)\.avi$")
_CLASSES, _FILMS = 101, 13_320


def load_ucf101(root: Path | str, options: Options) -> DataSet:
    """Action, 101 classes. `options.split_number` chooses one of the three published splits, which keep the groups apart.

    "strict": a tenth of train's groups becomes val. "published": train and test only. Raises `DataError` where a list is
    missing or malformed.
    """
    folder = existing_folder(root, "UCF101 (UCF-101/*/*.avi, ucfTrainTestlist/*.txt)")
    number = f"{options.split_number:02d}"
    classes = _classes(_list(folder, "classInd.txt"))
    lister = Lister()
    for part in ("train", "test"):
        path = _list(folder, f"{part}list{number}.txt")
        for line, text in read_lines(path):
            relative, _, label = text.partition(" ")
            _add(folder, path, line, relative, label.strip(), part, classes, lister)
    lister.expect("ucf101", _FILMS, "films")
    if len(classes) != _CLASSES:
        lister.note("ucf101", f"{len(classes)} classes, the published set has {_CLASSES}")
    return build("ucf101", Task.CLASSIFICATION, classes, lister, folder, options, val_share=0.1)


def _list(folder: Path, name: str) -> Path:
    return find_one(folder, f"ucfTrainTestlist/{name}", name)


def _classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for line, text in read_lines(path):
        number, _, name = text.partition(" ")
        if number != str(len(names) + 1) or not name:
            raise DataError(f"{path}: line {line}: expected '{len(names) + 1} ClassName'; correct the line")
        names.append(name)
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"{path}: {len(names)} classes, {len(set(names))} different ones; fetch the file again")
    return tuple(names)


def _add(
    folder: Path, path: Path, line: int, relative: str, label: str, part: str, classes: tuple[str, ...], lister: Lister
) -> None:
    where = f"line {line} of {path.name}"
    name, film = relative.rpartition("/")[0], relative.rpartition("/")[2]
    match = _NAME.match(film)
    if match is None or name not in classes:
        lister.refuse(relative, f"{where}: expected Class/v_Class_gNN_cNN.avi with a class of classInd.txt")
        return
    target = classes.index(name)
    if part == "train" and label != str(target + 1):
        lister.refuse(relative, f"{where} says class {label!r}, the folder says {target + 1}")
        return
    try:
        found = next((p for p in (inside(folder, f"UCF-101/{relative}"), inside(folder, relative)) if p.is_file()), None)
    except DataError as e:
        lister.refuse(relative, str(e))
        return
    if found is None:
        lister.refuse(relative, "no such film below UCF-101/; fetch it or take it out of the list")
        return
    lister.add(Listed(film.removesuffix(".avi"), f"{name}_g{match[2]}", target, part, Source(found, found)))
