"""The teacher's configuration: what it refuses, and that a file of it is the same configuration again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clcr_edge import toml_io
from clcr_edge.errors import ConfigError
from clcr_edge.model.teacher.config import ModalityConfig, TeacherConfig, teacher_from_table, teacher_to_table

VISION = ("vision", ModalityConfig("features", 4))


def test_a_toml_file_of_it_is_the_same_configuration() -> None:
    config = TeacherConfig(
        (
            ("language", ModalityConfig("text", pretrained="some/model", layers=(1, 2, 3))),
            ("vision", ModalityConfig("frames", 3, strides=(2, 4, 12), causal=True)),
            ("audio", ModalityConfig("fbank", 40)),
        ),
        ("a", "b"),
        variant="dense-exchange",
        dropout=0.25,
    )
    assert teacher_from_table(toml_io.loads(toml_io.dumps(teacher_to_table(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ()}, "at least one"),
        ({"modalities": (VISION, VISION)}, "names must differ"),
        ({"modalities": (("a.b", VISION[1]),)}, "letters, digits"),
        ({"task": "guess"}, "use one of classification"),
        ({"outputs": ("one",)}, "needs at least 2"),
        ({"outputs": ("a", "a")}, "names must differ"),
        ({"rank_private": 100}, "at most width = 128"),
        ({"hidden": 0}, "at least 1"),
        ({"dropout": 1.0}, "between 0 and 1"),
        ({"variant": "no-thing"}, "use one of full, no-hierarchy"),
        ({"lambda_intra": -1.0}, "0 or more"),
        ({"lambda_inter": float("inf")}, "lambda_inter = inf: give a finite number"),
        ({"width": 12.5}, "width = 12.5: give a whole number"),
        ({"rank_shared": True}, "rank_shared = True: give a whole number"),
        ({"dropout": "0.1"}, "dropout = '0.1': give a finite number"),
    ],
)
def test_values_outside_their_range_name_the_value_and_the_remedy(changes, message) -> None:  # type: ignore[no-untyped-def]
    good = {"modalities": (VISION,), "outputs": ("a", "b")}
    TeacherConfig(**good)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        TeacherConfig(**(good | changes))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"form": "smell"}, "use one of features"),
        ({"form": "features"}, "needs the number of its input channels"),
        ({"form": "text"}, "a folder or a hub name"),
        ({"form": "text", "pretrained": "x", "layers": (3, 2, 1)}, "three rising"),
        ({"form": "features", "channels": 3, "width": 0}, "at least 1"),
        ({"form": "features", "channels": 3, "strides": (1, 2)}, "each 1 to 4 times"),
        ({"form": "features", "channels": 3, "strides": (2, 3, 6)}, "each 1 to 4 times"),
        ({"form": "features", "channels": 3, "strides": (0, 1, 2)}, "each 1 to 4 times"),
        ({"form": "features", "channels": 3, "strides": (1, 5, 5)}, "each 1 to 4 times"),
        ({"form": "fbank", "channels": 20}, "40 to 80"),
        ({"form": "features", "channels": 3, "causal": "no"}, "causal = 'no': give true or false"),
        ({"form": "features", "channels": 3, "strides": (1.0, 2.0, 4.0)}, "strides = .*: give a list, each entry a whole"),
        ({"form": "features", "channels": 3, "pretrained": "bert"}, "pretrained = 'bert': is for form = \"text\""),
        ({"form": "features", "channels": 3, "layers": (1, 2, 3)}, "layers = .*: is for form = \"text\""),
        ({"form": "frames", "channels": 3, "vision_channels": ((4, 3),)}, r"one \[channels, kernel, stride\]"),
        ({"form": "frames", "channels": 3, "vision_channels": ()}, r"one \[channels, kernel, stride\]"),
        ({"form": "fbank", "channels": 40, "audio_context": -1}, "audio_context = -1: at least 0"),
        ({"form": "ngrams", "channels": 8, "embedding_width": 0}, "embedding_width = 0: at least 1"),
    ],
)
def test_modalities_outside_their_range(values, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        ModalityConfig(**values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"\[modalities.NAME\]"),
        ({"modalities": {"v": {"form": "features", "channels": 3, "colour": 1}}}, "modalities.v.*colour"),
        ({"modalities": {"v": {"form": "features", "channels": 3}}, "outputs": ["a", "b"], "depth": 4}, "depth: unknown key"),
        ({"modalities": {"v": {"form": "features", "channels": 3}}}, "outputs"),
        ({"modalities": {"v": {}}, "outputs": ["a", "b"]}, "modalities.v.*form"),
    ],
)
def test_tables_that_are_not_a_teacher(table, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        teacher_from_table(table)


def test_reading_a_configuration_loads_no_torch() -> None:
    code = "import sys, clcr_edge.model.teacher.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
