"""The teacher's configuration: which modalities, in what form, how wide, what task, which variant. Loads no torch.

A TOML file of it (see `teacher_to_table`) has one table per modality, in the order of the network:

    task = "classification"
    outputs = ["agree", "differ"]

    [modalities.vision]
    form = "features"
    channels = 35
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from clcr_edge.config import from_table, to_table
from clcr_edge.config_types import require_types
from clcr_edge.errors import ConfigError
from clcr_edge.model.teacher.variants import VARIANTS, Variant

FORMS = ("features", "frames", "fbank", "ngrams", "text")
TASKS = ("classification", "regression", "segments")


def _require(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(f"{name} = {value!r}: {remedy}")


@dataclass(frozen=True)
class ModalityConfig:
    """One modality of a teacher.

    form: what it reads (`clcr_edge.model.teacher.inputs` has the shapes):
        features    vectors that others made, `channels` wide
        frames      images of `channels` channels, through a small CNN
        fbank       filter-bank frames of `channels` mel bands (`clcr_edge.features.fbank`), through a small CNN
        ngrams      words as hashed character n-grams, `channels` buckets
        text        token numbers of the pretrained transformer `pretrained` (a folder or a hub name); its layers are the levels
    width: of the encoder. strides: input positions per token at the shallow, mid and deep level (not for text). causal: whether
    the TCN looks back only; the exchange between modalities reads the whole sample in any case. layers: the transformer's
    layers for the three levels, 1 is the first; empty: a third, two thirds and all of its depth. fine_tune: whether the
    transformer learns too. The rest shapes the raw front ends, as in `clcr_edge.config.ModelConfig`.
    """

    form: str
    channels: int = 0
    width: int = 128
    strides: tuple[int, int, int] = (1, 2, 4)
    causal: bool = False
    pretrained: str = ""
    layers: tuple[int, ...] = ()
    fine_tune: bool = False
    vision_channels: tuple[tuple[int, int, int], ...] = ((32, 6, 4), (48, 3, 2), (64, 3, 1), (96, 3, 2), (96, 3, 1))
    audio_channels: int = 24
    audio_context: int = 16
    embedding_width: int = 32

    def __post_init__(self) -> None:
        require_types(self)
        _require(self.form in FORMS, "form", self.form, f"use one of {', '.join(FORMS)}")
        _require(self.width >= 1, "width", self.width, "at least 1")
        if self.form == "text":
            _require(bool(self.pretrained), "pretrained", self.pretrained, "text needs a transformer: a folder or a hub name")
            rising = all(b > a for a, b in pairwise(self.layers))
            _require(
                not self.layers or (len(self.layers) == 3 and self.layers[0] >= 1 and rising),
                "layers",
                self.layers,
                "three rising numbers, 1 is the first layer, or none",
            )
        else:
            _require(self.channels >= 1, "channels", self.channels, f"{self.form} needs the number of its input channels")
            # Read as features, they would be left alone without a word.
            for key in ("pretrained", "layers", "fine_tune"):
                value = getattr(self, key)
                _require(not value, key, value, f'is for form = "text", this one is {self.form!r}; set that or take it out')
        _require(
            len(self.strides) == 3
            and all(1 <= ratio <= 4 for ratio in self.ratios)
            and all(b % a == 0 for a, b in pairwise(self.strides)),
            "strides",
            self.strides,
            "each 1 to 4 times the one before",
        )
        _require(
            bool(self.vision_channels) and all(len(s) == 3 and min(s) >= 1 for s in self.vision_channels),
            "vision_channels",
            self.vision_channels,
            "one [channels, kernel, stride] or more, each at least 1",
        )
        for key, lowest in (("audio_channels", 1), ("audio_context", 0), ("embedding_width", 1)):
            _require(getattr(self, key) >= lowest, key, getattr(self, key), f"at least {lowest}")
        if self.form == "fbank":
            _require(40 <= self.channels <= 80, "channels", self.channels, "use 40 to 80 mel bands")

    @property
    def ratios(self) -> tuple[int, int, int]:
        """How many tokens of the level below make one of this level (the first: input positions)."""
        a, b, c = self.strides
        return (a, b // max(a, 1), c // max(b, 1))


@dataclass(frozen=True)
class TeacherConfig:
    """A whole teacher (arXiv 2602.19605).

    modalities: (name, modality), in the order of every `[..., M]` array. task: "classification" (one label per sample),
    "regression" (one vector per sample) or "segments" (one label per span of a sample: AVE, utterances of a video, ticks of a
    stream). outputs: the names of the classes, background included, or of the regressed values. width: d, of the level tokens.
    rank_shared, rank_private: of the bases; jointly orthonormal, so their sum may not exceed the width. hidden: of the head.
    variant: a name of `clcr_edge.model.teacher.variants`. lambda_intra, lambda_inter: weights of the regularisers.
    """

    modalities: tuple[tuple[str, ModalityConfig], ...]
    outputs: tuple[str, ...]
    task: str = "classification"
    width: int = 128
    rank_shared: int = 48
    rank_private: int = 48
    hidden: int = 128
    dropout: float = 0.1
    variant: str = "full"
    lambda_intra: float = 0.02
    lambda_inter: float = 0.002

    def __post_init__(self) -> None:
        require_types(self)
        _require(len(self.modalities) >= 1, "modalities", self.modalities, "at least one")
        _require(len(set(self.names)) == len(self.names), "modalities", self.names, "their names must differ")
        for name in self.names:
            _require(name.isidentifier(), "modality name", name, "letters, digits and _ only: it names parameters")
        _require(self.task in TASKS, "task", self.task, f"use one of {', '.join(TASKS)}")
        least = 1 if self.task == "regression" else 2
        _require(len(self.outputs) >= least, "outputs", self.outputs, f"{self.task} needs at least {least}")
        _require(len(set(self.outputs)) == len(self.outputs), "outputs", self.outputs, "their names must differ")
        _require(
            self.rank_shared > 0 and self.rank_private > 0 and self.rank_shared + self.rank_private <= self.width,
            "rank_shared + rank_private",
            self.rank_shared + self.rank_private,
            f"jointly orthonormal bases need at most width = {self.width} dimensions",
        )
        # A basis of the whole width leaves evidence without a spread, and nothing to tell tokens apart by.
        _require(self.rank_shared < self.width, "rank_shared", self.rank_shared, f"must be below width = {self.width}")
        _require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "between 0 and 1")
        _require(self.variant in VARIANTS, "variant", self.variant, f"use one of {', '.join(VARIANTS)}")
        for key in ("lambda_intra", "lambda_inter"):
            _require(getattr(self, key) >= 0.0, key, getattr(self, key), "0 or more")

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(name for name, _ in self.modalities)

    @property
    def switches(self) -> Variant:
        """What the variant's name stands for."""
        return VARIANTS[self.variant]


def teacher_to_table(config: TeacherConfig) -> dict[str, Any]:
    """TeacherConfig -> nested dict of TOML values, one table per modality."""
    table = {k: v for k, v in to_table(config).items() if k != "modalities"}
    return table | {"modalities": {name: to_table(modality) for name, modality in config.modalities}}


def teacher_from_table(table: dict[str, Any]) -> TeacherConfig:
    """The inverse. Unknown keys, missing ones and wrong values raise `ConfigError` with the key."""
    modalities = table.get("modalities")
    if not isinstance(modalities, dict) or not modalities:
        raise ConfigError(f"TeacherConfig.modalities = {modalities!r}: give one table [modalities.NAME] for each modality")
    made = tuple((name, _modality(name, values)) for name, values in modalities.items())
    known = {f.name for f in dataclasses.fields(TeacherConfig)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(f"TeacherConfig.{unknown[0]}: unknown key; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items() if k != "modalities"}
    try:
        return TeacherConfig(modalities=made, **values)
    except TypeError as e:
        raise ConfigError(f"TeacherConfig: {e}") from None


def _modality(name: str, values: Any) -> ModalityConfig:
    try:
        return from_table(ModalityConfig, values)
    except ConfigError as e:
        raise ConfigError(f"modalities.{name}: {e}") from None
