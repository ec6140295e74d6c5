"""What ships inside the package: trained weights, the recogniser's model, and the streams that prove an export."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def digits_checkpoint() -> Path:
    """The trained student of the default task."""
    return _HERE / "digits-student"


def speech_model() -> Path:
    """The small Vosk model that `run` uses when no other is given."""
    return _HERE / "vosk-tiny"
