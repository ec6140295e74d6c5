"""Where calibration and check streams come from: the project's own bank, a data set, or a folder of recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clcr_edge.calibration.streams import inputs_of
from clcr_edge.config import StudentConfig
from clcr_edge.data.bank import NONE, DigitBank, IntArray, load_bank
from clcr_edge.data.conditions import BY_NAME
from clcr_edge.data.seen import Seen
from clcr_edge.data.streams import Stream, make_stream
from clcr_edge.data.synthetic import synthetic_bank, with_other_speech
from clcr_edge.errors import DataError
from clcr_edge.runtime.engine import StepInputs

_SECONDS = 20.0
_CALIBRATION_STREAMS = 12
_CHECK_STREAMS = 36  # about 150 events
_MIX = ("clean", "moderate", "heavy")  # calibration must have seen noise, or noise will be clipped


@dataclass(frozen=True)
class TickStream:
    """One stream as step inputs; read it once. labels: int64 `[T]`, where they are known."""

    inputs: Iterator[StepInputs]
    labels: IntArray | None = None

    def __iter__(self) -> Iterator[StepInputs]:
        return self.inputs


def _any(_config: StudentConfig) -> None:
    pass


def _digits_only(config: StudentConfig) -> None:
    wanted = tuple(str(d) for d in range(NONE))
    if config.classes[:NONE] != wanted or config.classes[NONE:] != (config.none_class,):
        raise DataError(
            f"this student tells apart {', '.join(config.classes[:4])}, ...; calibration and check streams are of digits only. "
            "There is nothing to calibrate and measure it on, and no INT8 without that"
        )


@dataclass(frozen=True)
class CalibrationSet:
    """Streams to observe. name: for the report. streams: opens them anew. ticks: how many in all. check: raises `DataError`
    if the set was made for another model or preprocessing. about: more for the report."""

    name: str
    streams: Callable[[StudentConfig], Iterator[TickStream]]
    ticks: int
    check: Callable[[StudentConfig], None] = _any
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckSet:
    """Labelled streams to measure on, disjoint from calibration. streams: opens them anew. check: raises `DataError` for a
    student that tells other classes apart than these."""

    name: str
    streams: Callable[[], Iterator[Stream]]
    count: int
    check: Callable[[StudentConfig], None] = _any


def _streams(bank: DigitBank, count: int, seed: int, names: tuple[str, ...]) -> Iterator[Stream]:
    for index in range(count):
        yield make_stream(bank, BY_NAME[names[index % len(names)]], _SECONDS, seed + index)


def _calibration(name: str, bank: DigitBank, seed: int, count: int = _CALIBRATION_STREAMS) -> CalibrationSet:
    def opened(config: StudentConfig) -> Iterator[TickStream]:
        for stream in _streams(bank, count, seed, _MIX):
            yield TickStream(inputs_of(stream, config), stream.labels)

    return CalibrationSet(name, opened, int(count * _SECONDS * 25), _digits_only)


def _check(name: str, bank: DigitBank, seed: int, count: int = _CHECK_STREAMS) -> CheckSet:
    return CheckSet(name, lambda: _streams(bank, count, seed, ("clean", "moderate")), count, _digits_only)


def own_sets(
    calibration_streams: int = _CALIBRATION_STREAMS, check_streams: int = _CHECK_STREAMS
) -> tuple[CalibrationSet, CheckSet]:
    """What ships with the package: digits drawn and spoken by the project itself; other hands and voices for the check."""
    what = "the project's own streams (drawn digits, espeak-ng voices)"
    return (
        _calibration(f"{what}, part calibration", synthetic_bank("calibration"), 70_000, calibration_streams),
        _check(f"{what}, part check, clean and moderate noise", synthetic_bank("check"), 80_000, check_streams),
    )


def digits_sets(root: Path, seen: Seen | None, check_streams: int = _CHECK_STREAMS) -> tuple[CalibrationSet, CheckSet]:
    """From MNIST and FSDD files: images and recordings that training never saw; the two sets share neither."""
    bank = load_bank(root)
    line = "all of it"
    if seen is not None:
        bank, line = seen.unseen(bank)
    halves = [bank.select(*_half(bank, part), f"{bank.name}/{part}") for part in (0, 1)]
    return (
        _calibration(f"digits in {root.name}, first half of: {line}", with_other_speech(halves[0], "val"), 71_000),
        _check(f"digits in {root.name}, second half of: {line}", with_other_speech(halves[1], "test"), 81_000, check_streams),
    )


def _half(bank: DigitBank, part: int) -> tuple[IntArray, IntArray]:
    return np.arange(part, len(bank.images), 2), np.arange(part, len(bank.recordings), 2)
