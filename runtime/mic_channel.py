"""Which channel of a microphone array is listened to."""

from __future__ import annotations

from dataclasses import dataclass

from clcr_edge.errors import SourceError, UsageError
from clcr_edge.runtime.portaudio import InputDevice

_ANY = 32  # what PortAudio says of a sound server's device, which mixes any number of channels into any other


@dataclass(frozen=True)
class MicChannel:
    """Channel `index`, from 0 as drivers of arrays count, of `count` (None: as many as the device has)."""

    index: int
    count: int | None = None

    def count_on(self, device: InputDevice) -> int:
        """How many channels to open. A sound server asked for fewer than there are would mix them; so all are opened."""
        count = self.count
        if count is None:
            if device.channels >= _ANY:
                raise SourceError(
                    f"microphone {device.name!r}: a sound server does not say how many channels its array has; "
                    f"say it, as in --mic-channel {self.index}/{max(4, self.index + 1)}, or name the array's own device",
                    part="microphone",
                )
            count = device.channels
        if not self.index < count <= device.channels:
            text = f"microphone {device.name!r}: no channel {self.index} of {count}, counted from 0; it has {device.channels}"
            raise SourceError(text, part="microphone")
        return count


def parse_channel(text: str) -> MicChannel:
    """`N` or `N/M`, channel N of M, from 0. Raises `UsageError`."""
    index, slash, count = text.partition("/")
    numbers = [index, count] if slash else [index]
    if not all(n.isascii() and n.isdigit() for n in numbers):
        raise UsageError(f"--mic-channel {text}: give N, or N/M for channel N of M, counted from 0")
    channel = MicChannel(int(index), int(count) if slash else None)
    if channel.count is not None and channel.index >= channel.count:
        raise UsageError(f"--mic-channel {text}: channels count from 0, so the last of {channel.count} is {channel.count - 1}")
    return channel
