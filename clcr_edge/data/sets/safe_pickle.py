"""Reads a pickle of arrays, dicts, lists, strings and numbers, and executes nothing.

A pickle is a program that may call anything. This is an interpreter of its own for the few instructions that data needs: it
imports nothing, calls nothing that the file names, and knows the seven names of `pickled_arrays` only. Everything else is
refused. Arrays are views of the mapped file: a file of 13 GB costs no memory until a sample is read, and no number in the file
can make us allocate more than the file holds.

The instructions are Python's `pickletools`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clcr_edge.data.sets.pickled_arrays import CALLS, KnownName, RefusedError, UnfinishedArray, UnfinishedType, array_of
from clcr_edge.errors import DataError

_MOST_STEPS = 50_000_000  # MOSEI has about a million; a file of nothing but instructions must end
_MOST_DEPTH = 64
_MARK = object()


def read_pickle(path: Path) -> Any:
    """The content of a pickle file (protocols 0 to 5): dicts, lists, tuples, str, bytes, numbers and numpy arrays.

    Arrays are read-only views of the mapped file (and may be unaligned: copy what you use); one-dimensional object arrays
    become lists. Raises `DataError` that names the file and what it asked for, if it holds anything else or is damaged.
    """
    try:
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or e}); fetch it again") from None
    machine = _Machine(view)
    try:
        return _plain(machine.run(), {}, 0)
    except RefusedError as e:
        raise DataError(f"{path}: {e}; nothing of it was executed; fetch it from a source that you trust") from None
    except (struct.error, IndexError, KeyError, TypeError, ValueError, UnicodeError, OverflowError, AttributeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise DataError(f"{path}: damaged or no pickle (byte {machine.at}: {reason}); fetch it again") from None


class _Machine:
    """The stack machine. Every size is compared with what is left of the file before anything is made."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Interpret up to STOP; the value on top."""
        for _ in range(_MOST_STEPS):
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return self._stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise RefusedError(f"instruction {bytes([code])!r} at byte {self.at - 1} is none that data needs")
            step(self)
        raise RefusedError(f"more than {_MOST_STEPS} instructions")

    def _take(self, count: int) -> memoryview:
        if count < 0 or count > len(self._view) - self.at:
            raise ValueError(f"{count} bytes announced, {len(self._view) - self.at} are left")
        self.at += count
        return self._view[self.at - count : self.at]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self, most: int = 1 << 20) -> str:
        # Through a bounded copy: memoryview cannot search.
        chunk = bytes(self._view[self.at : self.at + most])
        end = chunk.find(b"\n")
        if end < 0:
            raise ValueError("a line without an end")
        self.at += end + 1
        return chunk[:end].decode("latin-1")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise ValueError("no mark")

    # --- numbers, text, containers

    def skip_protocol(self) -> None:
        if self._take(1)[0] > 5:
            raise ValueError("a newer pickle protocol than 5")

    def skip_frame(self) -> None:
        self._number("<Q")

    def text_integer(self) -> None:
        line = self._line(64)
        self.push({"00": False, "01": True}[line] if line in ("00", "01") else int(line.rstrip("L")))

    def text_float(self) -> None:
        self.push(float(self._line(64)))

    def long(self, form: str) -> None:
        size = self._number(form)
        if size > 16:
            raise ValueError(f"an integer of {size} bytes")
        self.push(int.from_bytes(self._take(size), "little", signed=True))

    def old_string(self) -> None:
        line = self._line()
        if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
            raise ValueError("a string without quotes")
        self.push(line[1:-1].encode("latin-1").decode("unicode_escape"))

    def raw(self, form: str) -> None:
        self.push(self._take(self._number(form)))

    def raw_as_text(self, form: str) -> None:
        self.push(bytes(self._take(self._number(form))).decode("latin-1"))

    def text(self, form: str) -> None:
        self.push(str(self._take(self._number(form)), "utf-8", "surrogatepass"))

    def text_line(self) -> None:
        self.push(self._line().encode("latin-1").decode("raw_unicode_escape"))

    def append(self) -> None:
        value = self.pop()
        self._top(list).append(value)

    def appends(self) -> None:
        values = self._since_mark()
        self._top(list).extend(values)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._top(dict)[_key(key)] = value

    def set_items(self) -> None:
        values = self._since_mark()
        self._top(dict).update(_pairs(values))

    def _top(self, kind: type[Any]) -> Any:
        if type(self._stack[-1]) is not kind:
            raise RefusedError(f"adds to {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self.push(items)

    def put(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def get(self, key: int) -> None:
        self.push(self._memo[key])

    # --- the names that numpy needs

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if full not in CALLS:
            shown = full if len(full) < 80 and full.isprintable() else ascii(full[:60])
            raise RefusedError(f"asks for {shown}, which is no numpy array")
        self.push(KnownName(full))

    def global_name(self) -> None:
        module = self._line(512)
        self.name(module, self._line(512))

    def stack_name(self) -> None:
        name = self.pop()
        self.name(self.pop(), name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, KnownName) or not isinstance(arguments, tuple):
            raise RefusedError("calls something that is no numpy array")
        self.push(CALLS[function.name](*arguments))

    def build(self) -> None:
        state, target = self.pop(), self._stack[-1]
        if not isinstance(state, tuple):
            raise RefusedError("sets the state of something that is no numpy array")
        if isinstance(target, UnfinishedArray) and target.value is None:
            _, shape, kind, fortran, content = state
            target.value = array_of(content, kind, shape, bool(fortran))
        elif isinstance(target, UnfinishedType):
            _, order, *rest = state
            if order not in ("<", ">", "|", "=") or any(r is not None for r in rest[:3]):
                raise RefusedError("holds an array of records")
            target.order = order
        else:
            raise RefusedError("sets the state of something that is no numpy array")


def _key(key: Any) -> Any:
    if isinstance(key, memoryview):
        return bytes(key)
    if not isinstance(key, (str, int, float, type(None))):
        raise RefusedError(f"holds a dict with a {type(key).__name__} for a key")
    return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a dict with a key that has no value")
    return {_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Stand-ins -> what they stand for. Shared parts stay shared, so that no small file unfolds into a large tree."""
    if depth > _MOST_DEPTH:
        raise RefusedError(f"is nested more than {_MOST_DEPTH} deep")
    if id(value) in done:
        return done[id(value)]
    result: Any
    if isinstance(value, UnfinishedArray):
        result = _plain(value.value, done, depth + 1) if isinstance(value.value, list) else value.value
        if result is None:
            raise ValueError("an array without content")
    elif isinstance(value, dict):
        result = {k: _plain(v, done, depth + 1) for k, v in value.items()}
    elif isinstance(value, (list, tuple)):
        result = type(value)(_plain(v, done, depth + 1) for v in value)
    elif isinstance(value, memoryview):
        result = bytes(value)
    elif isinstance(value, (KnownName, UnfinishedType)) or value is _MARK:
        raise RefusedError("holds a name where data should be")
    else:
        return value
    done[id(value)] = result
    return result


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.skip_protocol,
    0x95: _Machine.skip_frame,
    ord("("): lambda m: m.push(_MARK),
    ord("0"): lambda m: (m.pop(), None)[1],
    ord("1"): lambda m: (m._since_mark(), None)[1],
    ord("2"): lambda m: m.push(m._stack[-1]),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): _Machine.text_integer,
    ord("L"): _Machine.text_integer,
    ord("J"): lambda m: m.push(m._number("<i")),
    ord("K"): lambda m: m.push(m._number("<B")),
    ord("M"): lambda m: m.push(m._number("<H")),
    0x8A: lambda m: m.long("<B"),
    0x8B: lambda m: m.long("<i"),
    ord("F"): _Machine.text_float,
    ord("G"): lambda m: m.push(m._number(">d")),
    ord("S"): _Machine.old_string,
    ord("T"): lambda m: m.raw_as_text("<i"),
    ord("U"): lambda m: m.raw_as_text("<B"),
    ord("B"): lambda m: m.raw("<I"),
    ord("C"): lambda m: m.raw("<B"),
    0x8E: lambda m: m.raw("<Q"),
    0x96: lambda m: m.raw("<Q"),
    ord("V"): _Machine.text_line,
    ord("X"): lambda m: m.text("<I"),
    0x8C: lambda m: m.text("<B"),
    0x8D: lambda m: m.text("<Q"),
    ord("]"): lambda m: m.push([]),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("l"): lambda m: m.push(m._since_mark()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m._since_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m.push({}),
    ord("d"): lambda m: m.push(_pairs(m._since_mark())),
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("p"): lambda m: m.put(int(m._line(64))),
    ord("q"): lambda m: m.put(m._number("<B")),
    ord("r"): lambda m: m.put(m._number("<I")),
    0x94: lambda m: m.put(len(m._memo)),
    ord("g"): lambda m: m.get(int(m._line(64))),
    ord("h"): lambda m: m.get(m._number("<B")),
    ord("j"): lambda m: m.get(m._number("<I")),
    ord("c"): _Machine.global_name,
    0x93: _Machine.stack_name,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
