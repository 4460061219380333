"""Arrays out of untrusted bytes: what is plain comes back, everything else is refused."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segvigen_model.archives import (
    parse_json,
    read_npz,
    take_array,
    take_ids,
    take_number,
    take_text,
)
from segvigen_model.errors import CorruptBlob

KINDS = st.sampled_from(["<i4", ">i4", "u1", "<f4", ">f8", "bool", "<U3", ">U3", "<f2", "i8"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=3)


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@given(st.data(), KINDS, SHAPES, st.booleans())
def test_plain_arrays_come_back_as_numpy_reads_them(data, kind, shape, is_fortran):
    elements = TEXTS if "U" in kind else None
    array = data.draw(arrays.arrays(kind, shape, elements=elements))
    array = np.asfortranarray(array) if is_fortran else array
    stored = pack({"a.npy": npy(array)})
    read = read_npz(stored, "it")["a"]
    with np.load(io.BytesIO(stored)) as expected:
        np.testing.assert_array_equal(read, expected["a"])
    assert read.dtype.isnative and read.shape == array.shape


HEADER = b"{'descr': '<i4', 'fortran_order': False, 'shape': (%s), }"


def headed(shape: bytes, content: bytes) -> bytes:
    text = (HEADER % shape).ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a zip"),
        (b"PK\x03\x04" + b"\0" * 40, "not a zip"),
        (pack({"a.txt": b"x"}), "no npy array"),
        (pack({"a.npy": b"x"}), "it"),
        (pack({f"{i}.npy": b"" for i in range(65)}), "65 members"),
        (pack({"a.npy": npy(np.zeros(3, object))}), "holds object"),
        (pack({"a.npy": npy(np.zeros(3, "M8[s]"))}), "holds datetime64"),
        (pack({"a.npy": npy(np.zeros((1,) * 5))}), "of 5 axes"),
        (pack({"a.npy": npy(np.zeros(9, np.int32))[:-1]}), "announces 36"),
        (pack({"a.npy": npy(np.zeros(9, np.int32)) + b"\0"}), "announces 36"),
        (pack({"a.npy": headed(b"99999999999,", b"\0" * 8)}), "announces 399999999996"),
        (pack({"a.npy": headed(b"-2,", b"\0" * 8)}), "announces -8"),
        (pack({"a.npy": headed(b"-1, -2,", b"\0" * 8)}), "announces 8"),
        (pack({"a.npy": headed(b"(" * 60, b"\0" * 8)}), "it"),
        (pack({"a.npy": b"\x93NUMPY\x02\x00" + b"\xff" * 20}), "npy version"),
        (pack({"a.npy": npy(np.array([True]))[:-1] + b"\x02"}), "neither 0 nor 1"),
        (pack({"a.npy": npy(np.array(["x"]))[:-4] + b"\xff" * 4}), "no characters"),
        (pack({"a.npy": npy(np.zeros(9))}, zipfile.ZIP_BZIP2), "packed by method 12"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str):
    with pytest.raises(CorruptBlob, match=message):
        read_npz(data, "it")


def test_a_bomb_is_refused_by_its_announcement_and_a_lie_by_its_size():
    stored = pack({"a.npy": npy(np.zeros(2**20))})
    with pytest.raises(CorruptBlob, match="take 8388736 bytes > 1000000"):
        read_npz(stored, "it", max_bytes=10**6)
    lying = stored.replace((8388736).to_bytes(4, "little"), (136).to_bytes(4, "little"))
    assert lying != stored
    with pytest.raises(CorruptBlob, match=r"CRC|announces 8388608"):
        read_npz(lying, "it", max_bytes=10**6)


def test_every_flipped_bit_of_the_content_is_noticed():
    stored = bytearray(pack({"a.npy": npy(np.arange(64))}, zipfile.ZIP_STORED))
    stored[300] ^= 4
    with pytest.raises(CorruptBlob, match="CRC"):
        read_npz(bytes(stored), "it")


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", "{", "[" * 9000, b"\xff", '"\t"'])
def test_json_that_is_none_is_refused(text: str | bytes):
    with pytest.raises(CorruptBlob, match="it is no JSON"):
        parse_json(text, "it")


def test_json_comes_back():
    value = {"a": [1, 2.5, None, "ü"]}
    assert parse_json(json.dumps(value), "it") == value


def test_taken_arrays_have_the_wanted_type_shape_and_range():
    held = {
        "ids": np.array([0, 3]),
        "odd": np.array([0.5, np.nan]),
        "text": np.array("x"),
        "number": np.array(2.5),
        "flags": np.array([True]),
    }
    assert take_ids(held, "ids", (2,), (0, 4), "it").tolist() == [0, 3]
    assert take_text(held, "text", "it") == "x" and take_number(held, "number", "it") == 2.5
    for take, message in (
        (lambda: take_ids(held, "ids", (2,), (0, 3), "it"), "'ids' of it has 0..3, not 0..2"),
        (lambda: take_ids(held, "ids", (2,), (1, 9), "it"), "has 0..3"),
        (lambda: take_ids(held, "ids", (None, 2), (0, 9), "it"), "'ids' of it is"),
        (lambda: take_array(held, "odd", "f", (2,), "it"), "'odd' of it is not finite"),
        (lambda: take_array(held, "flags", "iu", (1,), "it"), "is bool"),
        (lambda: take_array(held, "none", "iu", (1,), "it"), "it lacks 'none'"),
        (lambda: take_text(held, "ids", "it"), "'ids' of it is"),
    ):
        with pytest.raises(CorruptBlob, match=message):
            take()
