"""What `--camera SRC` and `--mic SRC` name: an index, a device, a URL, a pipeline or a file; and which pairs make sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clcr_edge.errors import UsageError
from clcr_edge.runtime.gstreamer import is_pipeline, pipeline_of
from clcr_edge.runtime.shown_address import shown_address

Kind = Literal["device", "url", "file"]
_MEDIA = ("mp4", "m4v", "mov", "mpg", "mpeg", "avi", "mkv", "webm", "ts", "3gp", "wav", "flac", "mp3", "m4a", "ogg", "opus")


@dataclass(frozen=True)
class Source:
    """One parsed SRC. value: int or name of a device (None: the default one), the URL, or the file's path."""

    kind: Kind
    value: int | str | None

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        return Path(str(self.value)) if self.kind == "file" else None

    def __str__(self) -> str:
        """For people; passwords are left out."""
        return "default" if self.value is None else shown_address(str(self.value))


def parse_source(text: str) -> Source:
    """SRC -> Source. What looks like a path is a file even if it does not exist, so that the error names the file."""
    if not text:
        raise UsageError("empty source: give an index, a device name, a URL or a file")
    if text.isascii() and text.isdigit():
        return Source("device", int(text))
    if text[0] == "-" and text[1:].isdigit():
        raise UsageError(f"source {text}: devices are counted from 0; see clcr-edge devices")
    if "://" in text or is_pipeline(text):
        return Source("url", text)
    path = Path(text)
    if text.startswith("/dev/"):
        return Source("device", text)
    if path.exists() or path.suffix.lower()[1:] in _MEDIA or text.startswith(("/", "./", "../", "~")):
        return Source("file", str(path.expanduser()))
    return Source("device", text)


@dataclass(frozen=True)
class Plan:
    """What a run reads. Both live, or both files; None leaves a modality out."""

    camera: Source | None
    mic: Source | None

    def __str__(self) -> str:
        named = (("camera", self.camera), ("mic", self.mic))
        return "  ".join(f"{name} {source}" for name, source in named if source is not None)

    @property
    def is_live(self) -> bool:
        """Devices and streams, as opposed to files."""
        return any(s is not None and s.kind != "file" for s in (self.camera, self.mic))


def plan_sources(camera: str | None, mic: str | None, *, no_camera: bool = False, no_mic: bool = False) -> Plan:
    """Choose the sources of a run from its options.

    None: not given. If one is a file and the other is not given, the file serves both, as far as it has both; if neither
    is given, camera 0 and the default microphone. Raises `UsageError` for contradictions, and for a file beside a live
    source: they have no common clock.
    """
    if no_camera and camera is not None:
        raise UsageError(f"--camera {camera} and --no-camera contradict each other; give one of them")
    if no_mic and mic is not None:
        raise UsageError(f"--mic {mic} and --no-mic contradict each other; give one of them")
    if no_camera and no_mic:
        raise UsageError("--no-camera and --no-mic leave nothing to run on; give one of them")
    seen = None if camera is None else parse_source(camera)
    if mic is not None and is_pipeline(mic):
        raise UsageError(f"--mic {mic}: GStreamer pipelines are for cameras; give an index, a device name, a URL or a file")
    if seen is not None and is_pipeline(str(seen.value)):
        pipeline_of(str(seen.value))  # a wrong option is a wrong call, found before anything is opened
    heard = Source("device", None) if mic == "default" else None if mic is None else parse_source(mic)
    if seen is None and heard is None:
        seen, heard = Source("device", 0), Source("device", None)
    elif heard is None:
        assert seen is not None
        heard = _other_half(seen, "audio") if seen.path is not None else Source("device", None)
    elif seen is None:
        seen = _other_half(heard, "video") if heard.path is not None else Source("device", 0)
    plan = Plan(None if no_camera else seen, None if no_mic else heard)
    if plan.camera is not None and plan.mic is not None and (plan.camera.kind == "file") != (plan.mic.kind == "file"):
        raise UsageError(
            f"--camera {plan.camera} and --mic {plan.mic}: one is a file, the other live, and they have no common clock; "
            "give two files or two live sources, or leave one out"
        )
    return plan


def _other_half(source: Source, kind: Literal["audio", "video"]) -> Source | None:
    """The same file for the modality that was not asked for, if it has it."""
    import av  # not needed for live sources

    path = source.path
    assert path is not None
    if not path.is_file():
        return None  # opening it says what is wrong
    try:
        with av.open(f"file:{path}", container_options={"protocol_whitelist": "file,crypto,data"}) as container:
            streams = container.streams.video if kind == "video" else container.streams.audio
            return source if any(not _is_cover(stream) for stream in streams) else None
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture on a song's cover, which is no camera."""
    try:
        from av.stream import Disposition

        return bool(stream.disposition & Disposition.attached_pic)
    except (ImportError, AttributeError):  # PyAV before 14 does not tell
        return False
