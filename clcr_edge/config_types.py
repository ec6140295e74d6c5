"""Whether a configuration's values are of the kinds that it declares. TOML knows kinds; dataclasses do not ask for them.

A width of 12.5 would pass every comparison and fail inside torch, and `causal = "no"` would be true.
"""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Union

from clcr_edge.errors import ConfigError

_SAID = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text in quotes"}


def require_types(config: object) -> None:
    """Raise `ConfigError` naming the first field of a dataclass instance whose value is not what its annotation says.

    Whole numbers count as numbers, true and false do not. Annotations that are no plain value, tuple, choice of these or class
    are not looked at. How long a tuple must be is for its owner to say, who knows what it is for.
    """
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not _fits(value, kind):
            raise ConfigError(f"{name} = {value!r}: give {_described(kind)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        wanted = [parts[0]] * len(value) if parts[-1] is Ellipsis and isinstance(value, tuple) else list(parts)
        return isinstance(value, tuple) and all(map(_fits, value, wanted))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _described(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(part) for part in parts if part is not types.NoneType)
    if origin is tuple:
        return f"a list, each entry {_described(parts[0])}"
    return _SAID.get(kind, getattr(kind, "__name__", str(kind)))
