"""Configuration: refused values name themselves; TOML keeps everything."""

from __future__ import annotations

import pytest

from clcr_edge import toml_io
from clcr_edge.config import ModelConfig, StudentConfig, TickConfig, from_table, to_table
from clcr_edge.errors import ConfigError


def test_a_configuration_survives_toml() -> None:
    config = StudentConfig(("ä\n\"quoted\"", "none"), "none", TickConfig(n_mels=64), ModelConfig(window=16))
    assert from_table(StudentConfig, toml_io.loads(toml_io.dumps(to_table(config)))) == config


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (TickConfig, {"rate_hz": 0}, "rate_hz = 0"),
        (TickConfig, {"sample_rate_hz": 16_001}, "16001"),
        (TickConfig, {"n_mels": 20}, "n_mels = 20"),
        (TickConfig, {"mel_high_hz": 9_000.0}, "9000"),
        (ModelConfig, {"rank_shared": 60}, "84"),
        (ModelConfig, {"strides": (1, 3, 4)}, "(1, 3, 4)"),
        (ModelConfig, {"window": 2}, "window = 2"),
    ],
)
def test_a_bad_value_is_named(kind, values, named) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=named.replace("(", r"\(").replace(")", r"\)")):
        kind(**values)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"TickConfig\.hertz"):
        from_table(TickConfig, {"hertz": 3})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_manifest_holds_no_nan(value: float) -> None:
    with pytest.raises(ValueError, match="manifest"):
        toml_io.dumps({"x": value})
