"""PortAudio through sounddevice: imported when first used, every call that can hang behind a deadline."""

from __future__ import annotations

import atexit
import gc
import importlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from clcr_edge.errors import MissingPartError, SourceError
from clcr_edge.runtime.deadline import within

T = TypeVar("T")

_SERVERS = frozenset({"pulse", "pipewire"})
# A stalled sound server blocks even the listing of devices, for ever.
_DEADLINE_S = 5.0


@dataclass(frozen=True)
class InputDevice:
    """A microphone as PortAudio lists it. rates_hz: of 16000, 44100, 48000, those it takes."""

    index: int
    name: str
    channels: int
    default_rate_hz: int
    is_default: bool
    rates_hz: tuple[int, ...] = ()


def sounddevice() -> Any:
    """The sounddevice module. Raises `MissingPartError` if it or the PortAudio library is not installed.

    The first import freezes PortAudio's list of devices: PULSE_SERVER and the like must be set before.
    """
    try:
        return within(_DEADLINE_S, "PortAudio", lambda: importlib.import_module("sounddevice"))
    except ImportError:
        raise MissingPartError(
            "microphone: the sounddevice package is not installed; pip install 'clcr-edge[audio]'", part="microphone"
        ) from None
    except OSError:
        raise MissingPartError(
            "microphone: the PortAudio library is not installed; apt install libportaudio2", part="microphone"
        ) from None


def guarded(what: str, call: Callable[[], T]) -> T:
    """Run a PortAudio call with a deadline; after a hang, PortAudio's own clean-up at exit is given up as well."""
    try:
        return within(_DEADLINE_S, what, call)
    except SourceError as e:
        forget_exit_handler()
        e.part = "microphone"
        raise


def forget_exit_handler() -> None:
    """Unregister sounddevice's exit handler, which would wait for the hung server for ever."""
    handler = getattr(sounddevice(), "_exit_handler", None)
    if handler is not None:
        atexit.unregister(handler)


def input_devices(*, with_rates: bool = False, anew: bool = False) -> list[InputDevice]:
    """Every device with input channels. with_rates: also ask each which sample rates it takes (opens none).

    PortAudio looks once and keeps its list; a device that was plugged in since is not on it. anew: have it look again, unless
    a stream is open somewhere in this process, which that would end.
    """
    sd = sounddevice()

    def listed() -> list[InputDevice]:
        if not len(sd.query_devices()) or (anew and not _any_stream(sd)):
            # Where nothing was there at first, a sound server may have started since.
            sd._terminate()
            sd._initialize()
        default = sd.default.device[0]
        found = []
        for index, info in enumerate(sd.query_devices()):
            if info["max_input_channels"] < 1:
                continue
            rates = tuple(r for r in (16_000, 44_100, 48_000) if with_rates and takes_rate(sd, index, 1, r))
            found.append(
                InputDevice(
                    index=index,
                    name=info["name"],
                    channels=int(info["max_input_channels"]),
                    default_rate_hz=int(info["default_samplerate"]),
                    is_default=index == default,
                    rates_hz=rates,
                )
            )
        return found

    return guarded("PortAudio", listed)


def behind_server(device: InputDevice, names: Collection[str]) -> bool:
    """Whether a sound server stands between this device and the card. names: of all devices that PortAudio lists.

    Known of ALSA's names for PulseAudio and PipeWire, and of its `default` where one of them answers; of nothing else.
    """
    return device.name in _SERVERS or (device.name == "default" and not _SERVERS.isdisjoint(names))


def _any_stream(sd: Any) -> bool:
    base = getattr(sd, "_StreamBase", None)
    # By type: isinstance would ask every object of the process for its class, and proxies answer with warnings or worse.
    return base is None or any(issubclass(type(o), base) and not o.closed for o in gc.get_objects())


def takes_rate(sd: Any, device: int, channels: int, rate_hz: int) -> bool:
    """Whether the device records at this rate."""
    try:
        sd.check_input_settings(device=device, channels=channels, samplerate=rate_hz)
    except (sd.PortAudioError, ValueError):
        return False
    return True


def find_input(wanted: int | str | None, before: InputDevice | None = None, *, anew: bool = False) -> InputDevice:
    """The microphone of an index, of a (part of a) name, or the default one; `SourceError` names what there is.

    before: what an index meant when the run began. Plugged in again, a device may come back under another number, and its old
    one may be another's. anew: as for `input_devices`.
    """
    devices = input_devices(anew=anew)
    if not devices:
        raise SourceError(
            "microphone: none found (PortAudio lists no input); plug one in or start the sound server", part="microphone"
        )
    names = ", ".join(f"{d.index} {d.name!r}" for d in devices[:6])
    if wanted is None:
        return next((d for d in devices if d.is_default), devices[0])
    if isinstance(wanted, int) and before is not None:
        named = [d for d in devices if d.name == before.name]
        chosen = [d for d in named if d.index == wanted] or named
        chosen = chosen or [d for d in devices if _product(d.name) == _product(before.name)]
        wanted = before.name
    elif isinstance(wanted, int):
        chosen = [d for d in devices if d.index == wanted]
    else:
        chosen = [d for d in devices if d.name == wanted] or [d for d in devices if wanted.casefold() in d.name.casefold()]
    if not chosen:
        raise SourceError(f"microphone {wanted!r}: no such input; found {names}; name one of these", part="microphone")
    return chosen[0]


def _product(name: str) -> str:
    """A device's name without the number of its card, as in "USB Microphone: Audio (hw:2,0)"."""
    return re.sub(r"\s*\(hw:\d+,\d+\)$", "", name)
