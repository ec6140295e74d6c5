"""What `clcr-edge sync` measured, kept in the user's own folder per camera and microphone: names and figures only."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from clcr_edge import toml_io
from clcr_edge.runtime.shown_address import shown_address
from clcr_edge.runtime.sources import Plan

_SCHEMA = 1


@dataclass(frozen=True)
class Synced:
    """One calibration. offset_s: how much later than the sound the picture is stamped. made: the day, ISO 8601."""

    offset_s: float
    spread_s: float
    events: int
    kind: str
    made: str


def store_path() -> Path:
    """`sync.toml` in $XDG_CONFIG_HOME/clcr-edge (else ~/.config/clcr-edge; on Windows %APPDATA%)."""
    named = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if sys.platform == "win32" else None)
    return (Path(named) if named else Path.home() / ".config") / "clcr-edge" / "sync.toml"


def source_names(plan: Plan) -> tuple[str, str] | None:
    """What camera and microphone of a live plan are called, as far as the system knows; None unless it has both.

    As `shown_address` gives them: without passwords. Raises `SourceError` or `MissingPartError` if there is no such device.
    """
    if plan.camera is None or plan.mic is None or not plan.is_live:
        return None
    if plan.camera.kind == "url":
        camera = shown_address(str(plan.camera.value))
    else:
        from clcr_edge.runtime.opening import camera_value
        from clcr_edge.runtime.video_devices import list_video_devices

        value = camera_value(plan.camera)
        camera = next((d.name for d in list_video_devices() if value in (d.index, d.path)), f"camera {value}")
    if plan.mic.kind == "url":
        return camera, shown_address(str(plan.mic.value))
    from clcr_edge.runtime.portaudio import find_input

    return camera, find_input(plan.mic.value).name


def read_synced(camera: str, microphone: str) -> Synced | None:
    """What is stored for a pair; None if nothing is. A file that cannot be read counts as none: it is a hint."""
    return _read().get(camera, {}).get(microphone)


def _read() -> dict[str, dict[str, Synced]]:
    try:
        table = toml_io.loads(store_path().read_text("utf-8"))
        if table["schema"] != _SCHEMA:
            return {}
        return {
            camera: {mic: Synced(**{f.name: entry[f.name] for f in fields(Synced)}) for mic, entry in mics.items()}
            for camera, mics in table["pairs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_synced(camera: str, microphone: str, synced: Synced) -> Path:
    """Add or replace a pair's calibration; gives the file. Raises `OSError` if it cannot be written."""
    pairs = _read()
    pairs.setdefault(camera, {})[microphone] = synced
    table = {"schema": _SCHEMA, "pairs": {c: {m: asdict(s) for m, s in mics.items()} for c, mics in pairs.items()}}
    path = store_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=".sync.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(toml_io.dumps(table))
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path
