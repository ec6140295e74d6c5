"""What a training on a data set can be told by a TOML file. Every key is optional; an unknown one is refused by name.

    [train]                       # how it learns
    optimiser = "adamw"
    lr = 3e-4
    epochs = 30

    [data]                        # what of the data set
    protocol = "published"
    modalities = ["language", "audio"]
    [data.media]
    frames_per_s = 2.0

    [teacher]                     # the network: what differs from the data set's default
    variant = "no-hierarchy"
    [teacher.modalities.audio]
    width = 64

    [distil]                      # for clcr-edge distill only
    temperature = 3.0
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clcr_edge import toml_io
from clcr_edge.config import from_table
from clcr_edge.config_types import require_types
from clcr_edge.data.sets import MediaConfig, Options
from clcr_edge.errors import ConfigError
from clcr_edge.packets import Modality

T = TypeVar("T")
_NAMES = tuple(m.key for m in Modality)


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r}: {remedy}")


@dataclass(frozen=True)
class TrainConfig:
    """How a network learns from a data set; the defaults are the paper's.

    optimiser: "sgd" or "adamw". momentum: of SGD. weight_decay: of matrices; biases, norms and the bases are left out (decay
    would destroy the bases' parametrisation). schedule: "constant" or "one-cycle". batch: samples a step, of all processes
    together; an epoch is cut into even batches of at most that many. absent: how likely each modality of a training sample is
    taken away (one always stays), where one may be missing in use; the paper's recipe says nothing of it. clip: the largest
    norm of the gradient, 0 for any. precision: "auto" (bfloat16 where a GPU has it, else float32), "fp32" or "bf16"; exchange,
    InterCAD and losses are float32 always. device: "auto", "cpu" or "cuda". workers: processes that read samples ahead; None is
    none for features and 2 for media. threads: of torch, 0 for its own choice.
    """

    optimiser: str = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "constant"
    batch: int = 64
    epochs: int = 100
    absent: float = 0.0
    clip: float = 0.0
    precision: str = "auto"
    device: str = "auto"
    workers: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("optimiser", self.optimiser, ("sgd", "adamw")),
            ("schedule", self.schedule, ("constant", "one-cycle")),
            ("precision", self.precision, ("auto", "fp32", "bf16")),
            ("device", self.device, ("auto", "cpu", "cuda")),
        ):
            _require(value in allowed, name, value, f"choose one of {', '.join(allowed)}")
        for name in ("lr", "momentum", "weight_decay", "absent", "clip"):
            number = getattr(self, name)
            _require(_number(number), name, number, "give a number, 0 or more")
        _require(self.lr > 0.0, "lr", self.lr, "give a number above 0")
        _require(self.momentum < 1.0, "momentum", self.momentum, "below 1")
        _require(self.absent < 1.0, "absent", self.absent, "below 1")
        for name, least in (("batch", 2), ("epochs", 1), ("threads", 0)):
            _require(_whole(getattr(self, name), least), name, getattr(self, name), f"give a whole number, at least {least}")
        _require(self.workers is None or _whole(self.workers, 0), "workers", self.workers, "give a whole number, at least 0")


@dataclass(frozen=True)
class DataChoice:
    """What of a data set is used; stored with a checkpoint, so that an evaluation tests on what training did not see.

    protocol, variant, split_number, table, task, cache, media: see `clcr_edge.data.sets.Options`. modalities: which to use,
    empty for all. folds, fold: instead of the data set's own split, fold number `fold` of `folds` is the test split, and a
    tenth of the other speakers or videos is val.
    """

    protocol: str = "strict"
    variant: str = "unaligned"
    split_number: int = 1
    table: str = "clips.csv"
    task: str = "classification"
    cache: str = ""
    modalities: tuple[str, ...] = ()
    folds: int = 0
    fold: int = 0
    media: MediaConfig = field(default_factory=MediaConfig)

    def __post_init__(self) -> None:
        require_types(self)
        for name in self.modalities:
            _require(name in _NAMES, "modalities", name, f"choose among {', '.join(_NAMES)}")
        _require(self.folds == 0 or _whole(self.folds, 2), "folds", self.folds, "at least 2, or 0 for the data set's own split")
        _require(_whole(self.fold, 0) and self.fold < max(self.folds, 1), "fold", self.fold, f"0 to {max(self.folds, 1) - 1}")
        self.options()

    def options(self) -> Options:
        """The loader's options; `ConfigError` for a value outside its range."""
        cache = Path(self.cache) if self.cache else None
        return Options(
            protocol=self.protocol,  # type: ignore[arg-type]
            media=self.media,
            cache=cache,
            variant=self.variant,  # type: ignore[arg-type]
            split_number=self.split_number,
            table=self.table,
            task=self.task,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class DistilConfig:
    """Weights of distillation's terms (`clcr_edge.train.distil`). temperature: softens both sides' logits. task: weight of the
    labels' own loss; the network's regularisers keep their weights."""

    temperature: float = 2.0
    logits: float = 1.0
    shared: float = 0.3
    private: float = 0.3
    level_weights: float = 0.1
    participation: float = 0.1
    task: float = 1.0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            _require(_number(value), f.name, value, "give a number, 0 or more")
        _require(self.temperature > 0.0, "temperature", self.temperature, "above 0")

    def plain(self) -> DistilConfig:
        """The same with the logits only."""
        return dataclasses.replace(self, shared=0.0, private=0.0, level_weights=0.0, participation=0.0)


@dataclass(frozen=True)
class Settings:
    """A whole file. teacher: the table as it is, laid over the data set's default network."""

    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataChoice = field(default_factory=DataChoice)
    teacher: dict[str, Any] = field(default_factory=dict)
    distil: DistilConfig = field(default_factory=DistilConfig)


def read_settings(path: Path | None) -> Settings:
    """A TOML file -> settings; the defaults without one. Raises `ConfigError` naming file and key."""
    if path is None:
        return Settings()
    try:
        table = toml_io.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); name another --config") from None
    except (toml_io.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not TOML ({e}); correct it") from None
    unknown = sorted(set(table) - {"train", "data", "teacher", "distil"})
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}: unknown table; known are train, data, teacher, distil")
    try:
        network = table.get("teacher", {})
        _require(isinstance(network, dict), "teacher", network, "expected a table")
        return Settings(
            _section(TrainConfig, table, "train"), choice_from_table(table.get("data", {})), network,
            _section(DistilConfig, table, "distil"),
        )
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None


def choice_from_table(table: Any) -> DataChoice:
    """A `[data]` table -> what of a data set is used."""
    if isinstance(table, dict) and "media" in table:
        table = table | {"media": _section(MediaConfig, table, "media")}
    return _section(DataChoice, {"data": table}, "data")


def _section(kind: type[T], table: dict[str, Any], name: str) -> T:
    try:
        return from_table(kind, table.get(name, {}))
    except (ConfigError, TypeError) as e:
        raise ConfigError(f"[{name}] {str(e).removeprefix(kind.__name__ + '.')}") from None


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < float("inf")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
