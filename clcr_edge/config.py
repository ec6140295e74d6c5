"""Configuration: frozen dataclasses, checked once when built, kept in a bundle's manifest and beside a checkpoint.

Nothing here is ever corrected in silence: a value outside its range raises `ConfigError` with the value and the remedy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clcr_edge.errors import ConfigError

T = TypeVar("T")


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r}: {remedy}")


@dataclass(frozen=True)
class TickConfig:
    """What one tick holds, and how raw media becomes it. The same values rule training and live use.

    rate_hz: ticks per second. sample_rate_hz: audio is resampled to this. image_size: side of the square luma frame.
    n_mels, mel_low_hz, mel_high_hz: the filter bank; it ends below 4 kHz so that telephone-band recordings and
    wide-band microphones look alike. fbank_hop: samples per fbank frame. fbank_window: samples under one window.
    words_per_tick: more words than this wait for the next tick. ngrams_per_word, ngram_buckets: hashed character
    n-grams of a word (fastText style). hold_frame_s: how long the newest frame stands in when the camera is slower
    than the ticks.
    """

    rate_hz: int = 25
    sample_rate_hz: int = 16_000
    image_size: int = 96
    n_mels: int = 40
    mel_low_hz: float = 60.0
    mel_high_hz: float = 3_800.0
    fbank_hop: int = 160
    fbank_window: int = 400
    words_per_tick: int = 4
    ngrams_per_word: int = 24
    ngram_buckets: int = 4_096
    hold_frame_s: float = 0.5

    def __post_init__(self) -> None:
        _require(self.rate_hz > 0, "rate_hz", self.rate_hz, "give a positive number of ticks per second")
        _require(
            self.sample_rate_hz % (self.rate_hz * self.fbank_hop) == 0,
            "sample_rate_hz",
            self.sample_rate_hz,
            f"must be a multiple of rate_hz x fbank_hop = {self.rate_hz * self.fbank_hop}",
        )
        _require(self.fbank_window >= self.fbank_hop, "fbank_window", self.fbank_window, "at least fbank_hop")
        _require(self.image_size % 8 == 0, "image_size", self.image_size, "must be a multiple of 8")
        _require(40 <= self.n_mels <= 80, "n_mels", self.n_mels, "use 40 to 80 mel bands")
        _require(
            0 < self.mel_low_hz < self.mel_high_hz <= self.sample_rate_hz / 2,
            "mel_high_hz",
            self.mel_high_hz,
            "needs 0 < mel_low_hz < mel_high_hz <= sample_rate_hz / 2",
        )
        _require(self.words_per_tick >= 1, "words_per_tick", self.words_per_tick, "at least 1")
        _require(self.ngrams_per_word >= 1, "ngrams_per_word", self.ngrams_per_word, "at least 1")
        _require(self.ngram_buckets >= 2, "ngram_buckets", self.ngram_buckets, "at least 2 (bucket 0 is padding)")

    @property
    def samples(self) -> int:
        """Audio samples under one tick."""
        return self.sample_rate_hz // self.rate_hz

    @property
    def fbank_frames(self) -> int:
        """Filter-bank frames under one tick."""
        return self.samples // self.fbank_hop

    @property
    def seconds(self) -> float:
        """Length of a tick in seconds."""
        return 1.0 / self.rate_hz


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the CLCR student (arXiv 2602.19605; streaming form: this project).

    width: common width d of the level tokens. rank_shared, rank_private: dimensions of the shared and private
    subspaces; their sum may not exceed the width, because the bases are jointly orthonormal. window: tokens kept per
    level and modality. word_ticks: a word is seen on every level for at least so long (the window of words is filled by
    words, not by time; recognisers tell one up to 0.8 s after its end). strides: ticks per vision/audio token at the shallow,
    mid and deep level. vision_channels:
    (channels, kernel, stride) of the frame CNN's convolutions, padded by 1. audio_context: fbank frames of the past that
    the audio front end sees beside the tick's own. embedding_width: width of the n-gram embeddings. hidden: width of the head.
    """

    width: int = 64
    rank_shared: int = 24
    rank_private: int = 24
    window: int = 16
    word_ticks: int = 25
    strides: tuple[int, int, int] = (1, 2, 4)
    vision_channels: tuple[tuple[int, int, int], ...] = ((32, 6, 4), (48, 3, 2), (64, 3, 1), (96, 3, 2), (96, 3, 1))
    audio_channels: int = 24
    audio_context: int = 16
    embedding_width: int = 32
    hidden: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require(
            self.rank_shared > 0 and self.rank_private > 0 and self.rank_shared + self.rank_private <= self.width,
            "rank_shared + rank_private",
            self.rank_shared + self.rank_private,
            f"jointly orthonormal bases need at most width = {self.width} dimensions",
        )
        _require(4 <= self.window <= 64, "window", self.window, "use 4 to 64 tokens per level")
        _require(1 <= self.word_ticks <= 1_000, "word_ticks", self.word_ticks, "use 1 to 1000 ticks")
        _require(
            self.strides[0] == 1 and all(b % a == 0 and b > a for a, b in zip(self.strides, self.strides[1:], strict=False)),
            "strides",
            self.strides,
            "start at 1, each a larger multiple of the one before",
        )
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "between 0 and 1")

    @property
    def level_ratio(self) -> tuple[int, int, int]:
        """How many tokens of the level below make one of this level (the first: ticks)."""
        a, b, c = self.strides
        return (a, b // a, c // b)


@dataclass(frozen=True)
class StudentConfig:
    """A whole student: what it reads, its shape, and what it tells apart. none_class: the label of "nothing there"."""

    classes: tuple[str, ...]
    none_class: str
    tick: TickConfig = field(default_factory=TickConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        _require(len(self.classes) >= 2, "classes", self.classes, "at least two classes")
        _require(len(set(self.classes)) == len(self.classes), "classes", self.classes, "class names must differ")
        _require(self.none_class in self.classes, "none_class", self.none_class, f"must be one of {self.classes}")
        _require(
            self.tick.fbank_frames == 4,
            "fbank_frames",
            self.tick.fbank_frames,
            "the audio front end needs 4 fbank frames a tick (it halves time twice); choose rate_hz and fbank_hop so",
        )

    @property
    def vision_memory(self) -> int:
        """Ticks before the present one that a prediction can still see of a camera: the deep level's window, its tokens' own
        past, and the ticks since its newest. What happened to the camera longer ago has left no trace."""
        deep = self.model.strides[-1]
        return (deep - 1) + (self.model.window - 1) * deep + _look_back(self.model)

    @property
    def audio_memory(self) -> int:
        """The same of a microphone: the filter bank and the front end look back as well."""
        hop, per_tick = self.tick.fbank_hop, self.tick.samples
        past = self.model.audio_context * hop + self.tick.fbank_window - hop
        return self.vision_memory + -(-past // per_tick)

    @property
    def word_memory(self) -> int:
        """Ticks after which a word has left every window, however few came since. A word's token also knows the three words
        before it, whatever their age: three words after a hole still differ."""
        return max(self.model.window * self.model.strides[-1], self.model.word_ticks)


def _look_back(model: ModelConfig) -> int:
    """Ticks that the deep level's newest token looks back over: each stage reads 2 steps of the one below, then 2 and 4 of its
    own (kernel 3; dilations 1 and 2)."""
    below = 1
    total = 0
    for stride in model.strides:
        total += 2 * below + (2 + 4) * stride
        below = stride
    return total


def to_table(config: Any) -> dict[str, Any]:
    """Dataclass -> nested dict of TOML values (tuples become lists)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        return value

    result = plain(config)
    assert isinstance(result, dict)
    return result


_NESTED: dict[str, type] = {"tick": TickConfig, "model": ModelConfig}


def from_table(kind: type[T], table: dict[str, Any]) -> T:
    """Nested dict -> dataclass. Unknown keys and wrong types raise `ConfigError` with the key."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list) else value

    if not isinstance(table, dict):
        raise ConfigError(f"{kind.__name__} = {table!r}: expected a table")
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{kind.__name__}.{key}: unknown key; known are {', '.join(known)}")
        if isinstance(value, dict) and key not in _NESTED:
            raise ConfigError(f"{kind.__name__}.{key} = {value!r}: expected a value, not a table")
        values[key] = from_table(_NESTED[key], value) if key in _NESTED else frozen(value)
    try:
        return kind(**values)
    except TypeError as e:
        raise ConfigError(f"{kind.__name__}: {e}") from None
