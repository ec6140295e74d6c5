"""The data sets of the paper and the user's own, in one shape: `load` one by name, `collate` its samples into batches.

    dataset = load("crema-d", "/data/CREMA-D")
    print(dataset.report)
    batch = collate([dataset[i] for i in dataset.split("train")[:8]])

numpy only; importing this loads no torch. Decoded media are kept in `.clcr-edge-cache` below the root, or where
`Options.cache` says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clcr_edge.data.sets.ave import load_ave
from clcr_edge.data.sets.batch import Batch, collate
from clcr_edge.data.sets.clips import load_clips
from clcr_edge.data.sets.crema_d import load_crema_d
from clcr_edge.data.sets.dataset import DataSet, folds
from clcr_edge.data.sets.decode import MediaConfig
from clcr_edge.data.sets.kinetics_sounds import load_kinetics_sounds
from clcr_edge.data.sets.mosei import load_mosei
from clcr_edge.data.sets.mosi import load_mosi
from clcr_edge.data.sets.mosi_utterance import load_mosi_utterance
from clcr_edge.data.sets.options import Options
from clcr_edge.data.sets.report import Remark, Report
from clcr_edge.data.sets.sample import Clip, Features, Sample, Task
from clcr_edge.data.sets.ucf101 import load_ucf101
from clcr_edge.errors import DataError

_LOADERS: dict[str, Callable[[Path | str, Options], DataSet]] = {
    "crema-d": load_crema_d,
    "kinetics-sounds": load_kinetics_sounds,
    "ave": load_ave,
    "ucf101": load_ucf101,
    "mosi": load_mosi,
    "mosei": load_mosei,
    "mosi-utterance": load_mosi_utterance,
    "clips": load_clips,
}
NAMES = tuple(_LOADERS)

__all__ = [
    "NAMES",
    "Batch",
    "Clip",
    "DataSet",
    "Features",
    "MediaConfig",
    "Options",
    "Remark",
    "Report",
    "Sample",
    "Task",
    "collate",
    "folds",
    "load",
]


def load(name: str, root: Path | str, options: Options | None = None) -> DataSet:
    """A data set by name (one of `NAMES`) from its folder. The report of what was read and refused is `dataset.report`.

    Raises `DataError` for an unknown name, and whatever the loader of that name raises.
    """
    loader = _LOADERS.get(name)
    if loader is None:
        raise DataError(f"data set {name!r}: choose one of {', '.join(NAMES)}")
    return loader(root, options or Options())
