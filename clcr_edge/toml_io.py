"""Read TOML on every supported Python; write the few shapes of it that a manifest needs."""

from __future__ import annotations

import math
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOMLDecodeError = tomllib.TOMLDecodeError


def loads(text: str) -> dict[str, Any]:
    """TOML text -> nested dict. Raises `TOMLDecodeError`."""
    return tomllib.loads(text)


def dumps(table: dict[str, Any]) -> str:
    """Nested dict of str, bool, int, finite float, None-free lists and dicts -> TOML text that `loads` gives back."""
    lines: list[str] = []
    _write(lines, table, ())
    return "\n".join(lines).strip() + "\n"


def _write(lines: list[str], table: dict[str, Any], path: tuple[str, ...]) -> None:
    if path:
        lines += ["", "[" + ".".join(_key(p) for p in path) + "]"]
    nested = {k: v for k, v in table.items() if isinstance(v, dict)}
    lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items() if k not in nested]
    for key, value in nested.items():
        _write(lines, value, (*path, key))


def _key(key: str) -> str:
    plain = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if plain else _string(key)


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no place in a manifest")
        return repr(float(value))  # numpy's own floats are floats as well, and say so in their repr
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"{type(value).__name__} cannot be written as TOML")
