"""Which device a microphone is after it was plugged in again, and when PortAudio may look again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clcr_edge.errors import SourceError
from clcr_edge.packets import AudioChunk
from clcr_edge.runtime import portaudio
from clcr_edge.runtime.microphone import joined
from clcr_edge.runtime.portaudio import InputDevice, behind_server, find_input, input_devices


def device(index: int, name: str) -> InputDevice:
    return InputDevice(index, name, 2, 48_000, is_default=index == 0)


BOARD, USB = "Board: ALC (hw:0,0)", "USB Microphone: Audio (hw:1,0)"


@pytest.mark.parametrize(
    ("there", "index"),
    [
        ([BOARD, USB], 1),  # nothing has moved
        ([BOARD, "HDMI: 3 (hw:1,3)", USB], 2),  # another has its number
        ([BOARD, "HDMI: 3 (hw:1,3)", "USB Microphone: Audio (hw:2,0)"], 2),  # and its card's number too
        ([USB, USB], 1),  # two of one kind
        ([BOARD, "HDMI: 3 (hw:1,3)"], None),
    ],
)
def test_an_index_means_the_device_that_it_meant_at_first(
    there: list[str], index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "input_devices", lambda anew: [device(i, name) for i, name in enumerate(there)])
    if index is None:
        with pytest.raises(SourceError, match=r"microphone 'USB Microphone: Audio \(hw:1,0\)': no such input; found 0 "):
            find_input(1, device(1, USB), anew=True)
        return
    assert find_input(1, device(1, USB), anew=True).index == index
    assert find_input(1).index == 1  # at first an index is an index


def test_portaudio_looks_again_only_where_that_ends_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        closed = False

    looked = []
    info: dict[str, Any] = {"name": "usb", "max_input_channels": 1, "default_samplerate": 48_000.0}
    sd = SimpleNamespace(
        query_devices=lambda: [info],
        default=SimpleNamespace(device=(0, -1)),
        _StreamBase=Stream,
        _terminate=lambda: looked.append("end"),
        _initialize=lambda: looked.append("begin"),
    )
    monkeypatch.setattr(portaudio, "sounddevice", lambda: sd)

    def asked(_self: object) -> type:
        raise AssertionError("objects that are no streams are not asked what they are")

    proxy = type("Proxy", (), {"__class__": property(asked)})()  # torch and others have such objects
    playing = Stream()  # of the program around us, say
    assert [d.name for d in input_devices(anew=True)] == ["usb"]
    assert looked == []
    playing.closed = True
    input_devices()
    assert looked == []
    input_devices(anew=True)
    assert looked == ["end", "begin"]
    del proxy


@pytest.mark.parametrize(
    ("name", "there", "behind"),
    [
        ("pulse", ["pulse", "default"], True),
        ("pipewire", [BOARD, "pipewire", "default"], True),
        ("default", [BOARD, "pipewire", "default"], True),
        ("default", [BOARD, "sysdefault", "default"], False),  # no server: ALSA's default is the card
        ("sysdefault", [BOARD, "sysdefault", "pulse"], False),
        (BOARD, [BOARD, "pulse", "default"], False),
        ("MacBook Pro Microphone", ["MacBook Pro Microphone"], False),
    ],
)
def test_only_a_sound_servers_device_is_read_in_short_blocks(name: str, there: list[str], behind: bool) -> None:
    """A card keeps two blocks and no more: callbacks late by more than that would lose sound."""
    assert behind_server(device(3, name), there) is behind


def test_blocks_without_a_break_come_as_one_chunk() -> None:
    def block(first: int, t_s: float, size: int = 80) -> AudioChunk:
        return AudioChunk(np.arange(first, first + size, dtype=np.float32), 16_000, t_s)

    start_s = 123_456.789
    steady = [block(80 * k, start_s + 0.005 * k) for k in range(5)]
    moved = [block(400, start_s + 0.025 + 0.002), block(480, start_s + 0.032, 81)]
    runs = joined([*steady, *moved])
    assert [len(c.samples) for c in runs] == [400, 161]
    assert [c.t_s for c in runs] == [steady[0].t_s, moved[0].t_s]
    np.testing.assert_array_equal(np.concatenate([c.samples for c in runs]), np.arange(561, dtype=np.float32))
    assert joined([]) == []
