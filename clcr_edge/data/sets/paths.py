"""Paths and tables from files that nobody vouches for: nothing may lead out of the root, nothing may be endless."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from clcr_edge.errors import DataError

TEXT_LIMIT = 256 << 20
_MOST_FILES = 2_000_000
CACHE_FOLDER = ".clcr-edge-cache"


def existing_folder(root: Path | str, what: str) -> Path:
    """The resolved root; `DataError` if it is no folder. what: what belongs there, for the message."""
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; put {what} there, or name another --root")
    return path.resolve()


def inside(root: Path, relative: str) -> Path:
    """A path that a list names, resolved; `DataError` if it is absolute or leads out of `root`, by `..` or by a link.

    root: resolved. The file need not exist.
    """
    if not relative or "\0" in relative:
        raise DataError(f"{relative!r}: not a path; name a file below {root}")
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{relative}: leads out of {root}; name a file below it")
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise DataError(f"{relative}: a link that leads out of {root}; put the file itself there")
    return resolved


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """A UTF-8 text file, a byte order mark taken off; `DataError` naming the file if it is missing, too large or no text."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise DataError(f"{path}: {size} bytes, more than {limit}; that is no list of samples")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); put the file there") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: byte {e.start} is no UTF-8; save the file as UTF-8") from None


def read_rows(path: Path, limit: int = TEXT_LIMIT) -> list[tuple[int, list[str]]]:
    """A CSV file -> (line number, cells) of every line that is not empty; `DataError` naming file and line."""
    reader = csv.reader(io.StringIO(read_text(path, limit), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, cells) for cells in reader if any(c.strip() for c in cells))
    except csv.Error as e:
        raise DataError(f"{path}: line {reader.line_num}: no CSV ({e}); correct the line") from None
    return rows


def read_lines(path: Path) -> list[tuple[int, str]]:
    """A text file -> (line number, stripped line) of every line that is not empty."""
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1))
    return [(number, line) for number, line in lines if line]


def media_index(root: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Files below `root` with these suffixes, by name without suffix: `{stem: [paths, sorted]}`.

    Links to folders are not followed and links that lead out of the root are left out. Our own cache is passed over.
    """
    wanted = frozenset(suffixes)
    found: dict[str, list[Path]] = {}
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f != CACHE_FOLDER)
        for name in files:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in wanted:
                continue
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            count += 1
            if count > _MOST_FILES:
                raise DataError(f"{root}: more than {_MOST_FILES} media files; name a folder that holds the data set only")
            found.setdefault(stem, []).append(path)
    return {stem: sorted(paths) for stem, paths in found.items()}


def find_one(root: Path, *candidates: str) -> Path:
    """The first of some relative paths that exists below `root`; `DataError` naming them if none does."""
    for candidate in candidates:
        path = inside(root, candidate)
        if path.is_file():
            return path
    raise DataError(f"{root}: holds no {' or '.join(candidates)}; put the file there, or name another --root")
