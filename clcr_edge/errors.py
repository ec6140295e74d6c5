"""Every error that clcr-edge raises on purpose.

    ClcrEdgeError               exit code 1: names what was wrong and what to do about it
    ├── UsageError              exit code 2: the call itself cannot work; a path that is not there is no wrong call, but 1
    ├── ConfigError             a configuration value is outside its range
    ├── MissingPartError        an optional package, library or program is not there
    ├── SourceError             a camera, microphone or file cannot be opened, or ended badly
    ├── SinkError               an output (a port to serve on, say) cannot be had
    ├── SpeechModelError        a speech-to-text model directory is missing or broken
    ├── DataError               a data set is missing, incomplete or malformed
    ├── RecordingError          a recording of a run is damaged, foreign, of a newer schema, or does not fit the bundle
    ├── BundleError             a bundle is corrupt, foreign or of a newer schema
    ├── EngineError             an engine cannot be built, loaded or run
    ├── ExportError             an export could not prove itself
    ├── OutputError             what a command is to write cannot be written there
    └── StreamError             packets were pushed in an order that cannot be (time running backwards, say)
"""

from __future__ import annotations


class ClcrEdgeError(Exception):
    """Root of the tree. The message is one line for a person: the value, then the remedy."""

    exit_code = 1


class UsageError(ClcrEdgeError):
    """The arguments contradict each other or name something that cannot exist."""

    exit_code = 2


class ConfigError(ClcrEdgeError):
    """A configuration value is outside its range."""


class _SourceFailedError(ClcrEdgeError):
    """What the two kinds of error share that a failing camera or microphone raises."""

    def __init__(self, message: str, *, part: str | None = None) -> None:
        super().__init__(message)
        self.part = part


class MissingPartError(_SourceFailedError):
    """An optional package, shared library or program is not installed. part: see `SourceError`."""


class SourceError(_SourceFailedError):
    """A camera, microphone or media file cannot be opened or read.

    part: "camera" or "microphone" if one of them is what failed, so that a caller can say how to do without it.
    """


class SinkError(ClcrEdgeError):
    """Where results should go cannot be had: a port that another program holds."""


class SpeechModelError(ClcrEdgeError):
    """A speech-to-text model directory is missing, incomplete or would abort the process."""


class DataError(ClcrEdgeError):
    """A data set is missing, incomplete or malformed."""


class RecordingError(ClcrEdgeError):
    """A recording of a run is missing, damaged, of a schema this version does not know, or does not fit the bundle."""


class BundleError(ClcrEdgeError):
    """A bundle is corrupt, does not match its hashes, or has a schema this version does not know."""


class EngineError(ClcrEdgeError):
    """An engine cannot be built, loaded or run on this device, or failed in a step."""


class ExportError(ClcrEdgeError):
    """The exported graph failed a check that it must pass before it may be handed over."""


class OutputError(ClcrEdgeError):
    """A folder or file that a command is to write cannot be made or written."""


class StreamError(ClcrEdgeError):
    """Packets contradict each other: time runs backwards, a rate changes, a shape is wrong."""
