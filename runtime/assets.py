"""Where the parts that ship with the package lie: the bundle and the speech model that need no download."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from clcr_edge.errors import UsageError

_MADE_HERE = Path("out")


def shipped(name: str) -> Path | None:
    """Path of a shipped asset, or None if this installation has none of that name."""
    path = Path(str(files("clcr_edge.assets"))) / name
    return path if path.is_dir() else None


def default_bundle(made_in: Path = _MADE_HERE) -> Path:
    """The bundle that runs when none is named: the shipped one, else the newest in `./out`.

    Raises `UsageError` with the command that makes one.
    """
    own = shipped("digits-bundle")
    if own is not None:
        return own
    made = sorted(made_in.glob("*/manifest.toml"), key=lambda p: p.stat().st_mtime) if made_in.is_dir() else []
    if not made:
        raise UsageError(
            f"no bundle given and none in {made_in}/; make one with: clcr-edge export --int8 --out {made_in}/digits-bundle"
        )
    return made[-1].parent


def default_speech_model() -> Path | None:
    """The shipped speech model, or None."""
    return shipped("vosk-tiny")
