"""Pickles are read without executing them: what numpy writes comes back, what calls anything is refused, and nothing ran."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clcr_edge.data.sets.safe_pickle import read_pickle
from clcr_edge.errors import DataError

DATA = {
    "f4": np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big_endian": np.arange(4, dtype=">i4"),
    "words": np.array(["x", "yé"]),
    "bytes": np.array([b"a", b"bc"]),
    "bools": np.array([True, False]),
    "empty": np.zeros((0, 3)),
}
PLAIN = {
    "list": [1, 2, 3.5, -4, 2**40, -(2**70), 300, 70_000],
    "tuple": ("a", None, True, False, ()),
    "float64": np.float64(2.5),
    "int64": np.int64(-3),
    "text": "é\n'\"\\ \U0001f600",
    "raw": b"abc\xff",
    "nested": {"a": [{"b": (1,)}], 5: []},
}


@pytest.mark.parametrize("protocol", range(6))
def test_what_numpy_writes_comes_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({**DATA, **PLAIN, "objects": np.array(["p", "qq"], object)}, protocol))
    found = read_pickle(path)
    for key, array in DATA.items():
        assert found[key].dtype == array.dtype, key
        assert np.array_equal(found[key], array), key
    for key, value in PLAIN.items():
        assert found[key] == value, key
    assert found["objects"] == ["p", "qq"]


def test_names_of_old_and_new_numpy_are_the_same(tmp_path: Path) -> None:
    # numpy 1 writes numpy.core, numpy 2 numpy._core; both numpys are supported, so are both files.
    raw = pickle.dumps(np.arange(3.0), 0)
    for name in (b"numpy.core.", b"numpy._core."):
        path = tmp_path / "x.pkl"
        path.write_bytes(raw.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", name))
        assert read_pickle(path).tolist() == [0, 1, 2]


def test_shared_parts_stay_shared(tmp_path: Path) -> None:
    # Thirty doublings: unfolded this would be a tree of a thousand million lists.
    value: Any = []
    for _ in range(30):
        value = [value, value]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value))
    found = read_pickle(path)
    assert found[0] is found[1]


class _Runs:
    """Pickled, it is an instruction to run something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._what = function, arguments

    def __reduce__(self) -> Any:
        return self._what


class _Plain:
    pass


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["alone", "in an object array", "as a state"])
def test_a_malicious_pickle_is_refused_and_nothing_of_it_ran(tmp_path: Path, protocol: int, place: str) -> None:
    marker = tmp_path / "ran"
    evil: Any = _Runs(os.mkdir, str(marker))
    if place == "in an object array":
        evil = {"train": {"id": np.array([evil, "b"], object)}}
    elif place == "as a state":
        holder = _Plain()
        holder.x = evil  # type: ignore[attr-defined]
        evil = holder
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(DataError, match="nothing of it was executed") as caught:
        read_pickle(path)
    assert "x.pkl" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    # The same file, believed: it does run. So the test above could have failed.
    pickle.loads(path.read_bytes())
    assert marker.is_dir()


@pytest.mark.parametrize(
    "function",
    [eval, exec, __import__, getattr, open, np.load, np.frombuffer, np.fromfile, bytearray, type, pickle.loads, io.FileIO],
)
def test_no_other_name_is_known(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(_Runs(function, "1")))
    with pytest.raises(DataError, match=f"asks for .*{function.__name__}, which is no numpy array"):
        read_pickle(path)


def _program(*steps: bytes) -> bytes:
    return b"\x80\x04" + b"".join(steps) + b"."


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
_F8 = b"cnumpy\ndtype\n" + _text("f8") + b"\x89\x88\x87R"


def _state(shape: bytes, content: bytes, kind: bytes = _F8) -> bytes:
    return _ARRAY + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (_program(b"cos\nsystem\n", _text("true"), b"\x85R"), "asks for os.system"),
        (_program(_text("os"), _text("system"), b"\x93"), "asks for os.system"),
        (_program(b"(S'true'\nios\nsystem\n"), "instruction b'i'"),
        (_program(b"(cos\nsystem\n", _text("true"), b"o"), "instruction b'o'|asks for"),
        (_program(b"cnumpy\nndarray\n)\x81"), r"instruction b'\\x81'"),
        (_program(b"K\x01Q"), "instruction b'Q'"),
        (_program(b"\x82\x01"), r"instruction b'\\x82'"),
        (_program(b"\x97"), r"instruction b'\\x97'"),
        (_program(b"\x8f"), r"instruction b'\\x8f'"),
        (_program(b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R"), "damaged or no pickle"),
        (_program(b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R"), "no plain numpy array"),
        (_program(b"cnumpy\nndarray\n"), "holds a name"),
        (_program(b"cnumpy\nndarray\n}", _text("x"), b"K\x01sb"), "sets the state"),
        (_program(b"]}", _text("x"), b"K\x01sb"), "sets the state"),
        (_program(b"cnumpy\ndtype\n", _text("V16"), b"\x89\x88\x87R"), "array of type 'V16'"),
        (_program(b"cnumpy\ndtype\n", _text("f8,i4"), b"\x89\x88\x87R"), "array of type"),
        (_program(b"cnumpy\ndtype\n", _text("U99999999999"), b"\x89\x88\x87R"), "array of type"),
        (_program(b"c_codecs\nencode\n", _text("x"), _text("zip"), b"\x86R"), "another way than numpy"),
        (_program(_state(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"C\x08" + bytes(8))), "with 8 bytes"),
        (_program(_state(b"K\x02\x85", b"C\x08" + bytes(8))), "with 8 bytes"),
        (_program(_state(b"J\xff\xff\xff\xff\x85", b"C\x08" + bytes(8))), "no proper shape"),
        (_program(_state(b"K\x01\x85", b"]")), "without content"),
        (_program(_ARRAY), "without content"),
        (_program(b"}]K\x01s"), "a dict with a list for a key"),
        (_program(b"K\x01K\x02a"), "as if it were a list"),
        (_program(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"), "9223372036854775807 bytes announced"),
        (_program(b"B\xff\xff\xff\xff"), "4294967295 bytes announced"),
        (_program(b"\x8b\x00\x00\x00\x10"), "an integer of 268435456 bytes"),
        (_program(b"j\x00\x00\x00\x10"), "damaged or no pickle"),
        (_program(b"0"), "damaged or no pickle"),
        (_program(b"e"), "no mark"),
        (_program(b"]" + b"\x85" * 100), "nested more than 64 deep"),
        (_program(b"]\x94h\x00a"), "nested more than 64 deep"),  # a list that holds itself
        (b"\x80\x09N.", "newer pickle protocol"),
        (b"\x80\x04N", "damaged or no pickle"),
        (b"not a pickle at all", "fetch it"),
        (b"", "cannot be read"),
    ],
)
def test_programs_that_no_data_needs(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_hand_written_array_is_right_but_for_what_is_changed_in_it(tmp_path: Path) -> None:
    raw = _program(_state(b"K\x01\x85", b"C\x08" + struct.pack("<d", 2.5)))
    pickletools.dis(raw, io.StringIO())
    path = tmp_path / "x.pkl"
    path.write_bytes(raw)
    assert read_pickle(path).tolist() == [2.5]


def test_every_cut_and_every_flipped_byte_is_an_error_or_data(tmp_path: Path) -> None:
    raw = pickle.dumps({"a": np.arange(3.0), "b": ["x", 1, np.array(["q"])]}, 4)
    path = tmp_path / "x.pkl"
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        with pytest.raises(DataError):
            read_pickle(path)
    rng = np.random.default_rng(0)
    messages = []
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            read_pickle(path)
        except DataError as e:
            messages.append(str(e))
    assert len(messages) > len(raw) // 4
    assert not any("\n" in m for m in messages)


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(np.arange(100_000.0), 4))
    found = read_pickle(path)
    assert not found.flags.owndata
    assert not found.flags.writeable
