"""MMSA's pickles of CMU-MOSI and CMU-MOSEI (Yu et al., 2021): features of utterances with a sentiment of -3..3.

`train|valid|test` -> `id` (`video$_$clip`), `raw_text`, `text` [N, L, 768] (BERT), `text_bert` [N, 3, L] (ids, mask, segments),
`audio`, `vision` [N, L, D], `audio_lengths`, `vision_lengths`, `regression_labels`. Nothing in the file is executed
(`safe_pickle`), and a sample is copied out of the mapped file only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clcr_edge.data.sets.dataset import DataSet
from clcr_edge.data.sets.media_set import PARTS
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.paths import existing_folder, find_one
from clcr_edge.data.sets.report import Remark, Report
from clcr_edge.data.sets.safe_pickle import read_pickle
from clcr_edge.data.sets.sample import BoolArray, Features, IntArray, Sample, Task
from clcr_edge.errors import DataError
from clcr_edge.packets import FloatArray, Modality

_KEYS = {"text": Modality.LANGUAGE, "vision": Modality.VISION, "audio": Modality.AUDIO}
_PARTS = {"train": "train", "val": "valid", "test": "test"}
_BLOCK = 256
_MOST = 3.0


@dataclass(frozen=True)
class Published:
    """What is known of a set. folder: its name in MMSA's download. widths: of text, audio, vision. train: samples in train."""

    folder: str
    widths: tuple[int, int, int]
    train: int


@dataclass(frozen=True, eq=False)
class _Part:
    """One split of the file, checked. arrays: `[N, L, D]` views; valid: steps per sample and modality, `[N, L]` masks."""

    arrays: Mapping[Modality, npt.NDArray[np.floating[Any]]]
    valid: Mapping[Modality, BoolArray]
    ids: list[str]
    texts: list[str]
    labels: npt.NDArray[np.float64]
    silenced: list[int]
    wrong: dict[int, str]


def load_mmsa(name: str, published: Published, root: Path | str, options: Options) -> DataSet:
    """Regression of the sentiment; the video is the group; language, vision and audio as features, `Sample.text` the words.

    Reads `aligned_50.pkl` or `unaligned_50.pkl` (`options.variant`) from the root, `Processed/` or MMSA's own folders. Audio of
    -inf becomes 0, as in MMSA, and is noted; any other number that is not finite refuses its sample. Raises `DataError` if the
    file is missing, holds anything but data, or its arrays do not fit each other.
    """
    folder = existing_folder(root, f"MMSA's {options.variant}_50.pkl")
    file = f"{options.variant}_50.pkl"
    path = find_one(folder, file, f"Processed/{file}", f"{published.folder}/Processed/{file}")
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected a dict of train, valid, test; give an MMSA file")
    parts = {part: _read_part(path, key, content.get(key)) for part, key in _PARTS.items()}
    notes = [
        Remark(name, f"{k} is {parts['train'].arrays[_KEYS[k]].shape[2]} wide, the published features {w}")
        for k, w in zip(("text", "audio", "vision"), published.widths, strict=True)
        if parts["train"].arrays[_KEYS[k]].shape[2] != w
    ]
    if len(parts["train"].ids) != published.train:
        notes.append(Remark(name, f"{len(parts['train'].ids)} samples in train, the published set has {published.train}"))
    return _data_set(name, parts, notes, options)


def _data_set(name: str, parts: Mapping[str, _Part], notes: list[Remark], options: Options) -> DataSet:
    refused: list[Remark] = []
    rows: list[tuple[str, int]] = []
    names: dict[str, None] = {}
    later: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for part in PARTS:
        for other in PARTS[PARTS.index(part) + 1 :]:
            later[part] |= {_video(i) for i in parts[other].ids}
    listed = 0
    for part in PARTS:
        for at, ident in enumerate(parts[part].ids):
            listed += 1
            if at in parts[part].wrong:
                refused.append(Remark(ident, parts[part].wrong[at]))
            elif ident in names:
                refused.append(Remark(ident, "listed twice; the first is used"))
            elif options.protocol == "strict" and _video(ident) in later[part]:
                reason = f'{_video(ident)!r} is in a later split too; protocol "published" keeps it in {part}'
                refused.append(Remark(ident, reason))
            else:
                names[ident] = None
                rows.append((part, at))
                if at in parts[part].silenced:
                    notes.append(Remark(ident, "audio holds -inf, read as 0"))

    def fetch(index: int) -> Sample:
        part, at = rows[index]
        source = parts[part]
        features = {m: _features(source, m, at) for m in _KEYS.values()}
        ident = source.ids[at]
        present = {m: f for m, f in features.items() if f.mask.any()}
        return Sample(ident, _video(ident), float(source.labels[at]), features=present, text=source.texts[at])

    return DataSet(
        name=name,
        task=Task.REGRESSION,
        classes=(),
        names=tuple(names),
        groups=tuple(_video(i) for i in names),
        targets=np.asarray([parts[p].labels[at] for p, at in rows], np.float32),
        splits={part: np.asarray([i for i, (p, _) in enumerate(rows) if p == part], np.int64) for part in PARTS},
        modalities=frozenset(_KEYS.values()),
        report=Report(name, listed, len(rows), tuple(refused), tuple(notes)),
        fetch=fetch,
        protocol=options.protocol,
    )


def _video(ident: str) -> str:
    return ident.partition("$_$")[0]


def _features(part: _Part, modality: Modality, at: int) -> Features:
    valid = part.valid[modality][at]
    steps = int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0
    values = _finite(part.arrays[modality][at, :steps], modality)
    values[~valid[:steps]] = 0
    return Features(values, valid[:steps].copy())


def _finite(block: npt.NDArray[np.floating[Any]], modality: Modality) -> FloatArray:
    values = np.array(block, np.float32)
    if modality is Modality.AUDIO:
        values[np.isneginf(values)] = 0
    return values


def _read_part(path: Path, key: str, part: Any) -> _Part:
    where = f"{path}: {key}"
    if not isinstance(part, dict):
        raise DataError(f"{where}: missing; give an MMSA file with train, valid and test")
    missing = [k for k in ("id", "text", "audio", "vision", "regression_labels") if k not in part]
    if missing:
        raise DataError(f"{where}: lacks {', '.join(missing)}; give an MMSA file")
    ids = _strings(part["id"], f"{where}.id")
    count = len(ids)
    arrays = {m: _sequence(part[k], count, f"{where}.{k}") for k, m in _KEYS.items()}
    labels = np.asarray(_column(part["regression_labels"], count, f"{where}.regression_labels"), np.float64)
    texts = _strings(part["raw_text"], f"{where}.raw_text") if "raw_text" in part else [""] * count
    if len(texts) != count:
        raise DataError(f"{where}.raw_text: {len(texts)} entries, id has {count}; fetch the file again")
    valid = _masks(part, arrays, count, where)
    wrong = {i: f"not an id like video$_$clip: {ident[:60]!r}" for i, ident in enumerate(ids) if not _is_id(ident)}
    wrong.update({i: f"sentiment {labels[i]}, expected -3 to 3" for i in np.flatnonzero(~(np.abs(labels) <= _MOST)).tolist()})
    silenced: list[int] = []
    for start in range(0, count, _BLOCK):  # in blocks: the file may be larger than the memory
        stop = min(start + _BLOCK, count)
        for modality, values in arrays.items():
            block = np.asarray(values[start:stop])
            odd = ~np.isfinite(block) & valid[modality][start:stop, :, None]
            if modality is Modality.AUDIO and odd.any():
                silent = odd & np.isneginf(block)
                silenced += (start + np.flatnonzero(silent.any(axis=(1, 2)))).tolist()
                odd &= ~silent
            for at in (start + np.flatnonzero(odd.any(axis=(1, 2)))).tolist():
                wrong.setdefault(at, f"{modality.key} holds a number that is not finite")
    return _Part(arrays, valid, ids, texts, labels, silenced, wrong)


def _is_id(ident: str) -> bool:
    video, mark, clip = ident.partition("$_$")
    return bool(video and mark and clip)


def _strings(value: Any, where: str) -> list[str]:
    items = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, (str, bytes)) for i in items):
        raise DataError(f"{where}: expected a list of strings; give an MMSA file")
    return [i.decode("utf-8", "replace") if isinstance(i, bytes) else i for i in items]


def _sequence(value: Any, count: int, where: str) -> npt.NDArray[np.floating[Any]]:
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.dtype.kind not in "fiu":
        raise DataError(f"{where}: expected an array [samples, steps, width]; give an MMSA file")
    if len(value) != count or not value.shape[1] or not value.shape[2]:
        raise DataError(f"{where}: shape {value.shape}, id has {count} entries; fetch the file again")
    return value


def _column(value: Any, count: int, where: str) -> npt.NDArray[Any]:
    items = np.asarray(value)
    if items.dtype.kind not in "fiub" or items.size != count:
        raise DataError(f"{where}: {items.size} entries of type {items.dtype}, id has {count}; fetch the file again")
    return items.reshape(-1)


def _masks(
    part: Mapping[str, Any], arrays: Mapping[Modality, npt.NDArray[Any]], count: int, where: str
) -> dict[Modality, BoolArray]:
    """Which steps are real: by BERT's mask for text, by the lengths for the others; in aligned files by BERT's mask for all."""
    masks: dict[Modality, BoolArray] = {}
    bert: BoolArray | None = None
    steps = arrays[Modality.LANGUAGE].shape[1]
    if "text_bert" in part:
        tokens = part["text_bert"]
        if not isinstance(tokens, np.ndarray) or tokens.shape != (count, 3, steps) or tokens.dtype.kind not in "fiu":
            shape = getattr(tokens, "shape", None)
            raise DataError(f"{where}.text_bert: shape {shape}, expected {(count, 3, steps)}; fetch the file again")
        bert = np.asarray(tokens[:, 1] > 0)
    for key, modality in _KEYS.items():
        longest = arrays[modality].shape[1]
        lengths = part.get(f"{key}_lengths")
        if lengths is not None:
            ends = np.asarray(_column(lengths, count, f"{where}.{key}_lengths"), np.int64)
            if count and (ends.min() < 0 or ends.max() > longest):
                found = f"{ends.min()} to {ends.max()}"
                raise DataError(f"{where}.{key}_lengths: {found}, expected 0 to {longest}; fetch the file again")
            masks[modality] = np.arange(longest) < ends[:, None]
        elif bert is not None and longest == bert.shape[1]:
            masks[modality] = bert
        else:
            masks[modality] = _up_to_last(arrays[modality])
    return masks


def _up_to_last(values: npt.NDArray[Any]) -> BoolArray:
    """Without lengths: steps up to the last one that is not all zero."""
    count, longest = values.shape[:2]
    ends: IntArray = np.zeros(count, np.int64)
    for start in range(0, count, _BLOCK):
        there = np.any(values[start : start + _BLOCK] != 0, axis=2)
        ends[start : start + _BLOCK] = np.where(there.any(axis=1), longest - np.argmax(there[:, ::-1], axis=1), 0)
    return np.asarray(np.arange(longest) < ends[:, None])
