"""Arrays out of untrusted bytes: npz archives, and JSON, with every size checked beforehand.

`numpy.load` allocates what a header announces and raises whatever its parsers raise. Here an
archive is plain npy members of numbers, flags and text, no pickles; names, shapes, sizes and
checksums must fit together before memory is taken. Anything else raises `CorruptBlob`.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import CorruptBlob

MAX_UNPACKED_BYTES = 512 * 2**20  # of all members; 2M faces on 8 levels are an eighth
MAX_MEMBERS = 64
MAX_AXES = 4
MAX_JSON_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_MAX_HEADER_CHARS = 4096
_KINDS = "biufU"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
npy: Any = np.lib.format  # its stubs lack what is used here
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, SyntaxError),
    *(tokenize.TokenError, NotImplementedError, RuntimeError, RecursionError),
)


def read_npz(
    data: bytes, what: str, *, max_bytes: int = MAX_UNPACKED_BYTES
) -> dict[str, NDArray[Any]]:
    """Unpack an npz archive.

    Args:
        data: the archive.
        what: it should be, for messages, e.g. "a proposal".
        max_bytes: of all arrays together, unpacked.

    Returns:
        Member name without ".npy" -> array; floats may be NaN (`check_finite`).

    Raises:
        CorruptBlob: it is no such archive, or it is damaged, too large, or holds objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, max_bytes)
            return {
                entry.filename.removesuffix(".npy"): _read_member(archive, entry)
                for entry in entries
            }
    except _UNREADABLE as err:
        raise CorruptBlob(f"not {what} ({len(data)} bytes): {err}") from err


def parse_json(text: str | bytes, what: str) -> Any:
    """Read JSON without NaN and infinities.

    Raises:
        CorruptBlob: it is anything else.
    """
    if len(text) > MAX_JSON_BYTES:
        raise CorruptBlob(f"{what} has {len(text)} bytes of JSON > {MAX_JSON_BYTES}")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_finite)
    except (ValueError, RecursionError) as err:
        raise CorruptBlob(f"{what} is no JSON ({len(text)} bytes): {err}") from err


def take_array(
    members: Mapping[str, NDArray[Any]],
    name: str,
    kinds: str,
    shape: tuple[int | None, ...],
    what: str,
) -> NDArray[Any]:
    """Take one array, of the right type and shape, and finite.

    Args:
        members: of an archive.
        name: of the array.
        kinds: numpy's letters of the kinds that it may have, e.g. "iu", "f", "U".
        shape: length of each axis; None = any.
        what: the archive, for messages.

    Raises:
        CorruptBlob: it is absent, or different.
    """
    array = members.get(name)
    if array is None:
        raise CorruptBlob(f"{what} lacks {name!r}")
    is_fitting = len(array.shape) == len(shape) and all(
        wanted is None or length == wanted
        for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not is_fitting or array.dtype.kind not in kinds:
        raise CorruptBlob(f"{name!r} of {what} is {array.dtype}{array.shape}, not {kinds!r}{shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CorruptBlob(f"{name!r} of {what} is not finite")
    return array


def take_ids(
    members: Mapping[str, NDArray[Any]],
    name: str,
    shape: tuple[int | None, ...],
    span: tuple[int, int],
    what: str,
) -> NDArray[Any]:
    """Take integers within a span [low, high), as `take_array`."""
    array = take_array(members, name, "iu", shape, what)
    if array.size and not (span[0] <= int(array.min()) and int(array.max()) < span[1]):
        raise CorruptBlob(
            f"{name!r} of {what} has {int(array.min())}..{int(array.max())}, "
            f"not {span[0]}..{span[1] - 1}"
        )
    return array


def take_text(members: Mapping[str, NDArray[Any]], name: str, what: str) -> str:
    """Take one text, as `take_array`."""
    return str(take_array(members, name, "U", (), what))


def take_number(members: Mapping[str, NDArray[Any]], name: str, what: str) -> float:
    """Take one finite number, as `take_array`."""
    return float(take_array(members, name, "iuf", (), what))


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise ValueError(f"{len(names)} members, more than {MAX_MEMBERS} or two of one name")
    if not all(name.endswith(".npy") for name in names):
        raise ValueError("a member is no npy array")
    methods = {entry.compress_type for entry in entries} - {
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    }
    if methods:
        raise ValueError(f"a member is packed by method {min(methods)}")
    size = sum(entry.file_size for entry in entries)
    if size > max_bytes:
        raise ValueError(f"its arrays take {size} bytes > {max_bytes}")


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one npy member into memory of the size that its header and the archive agree on."""
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        if version != (1, 0):  # others have headers of up to 4 GiB, which numpy reads first
            raise ValueError(f"{entry.filename} has npy version {version}")
        shape, is_fortran, dtype = npy.read_array_header_1_0(
            stream, max_header_size=_MAX_HEADER_CHARS
        )
        if dtype.kind not in _KINDS or not dtype.itemsize or len(shape) > MAX_AXES:
            raise ValueError(f"{entry.filename} holds {dtype} of {len(shape)} axes")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != entry.file_size - stream.tell():
            raise ValueError(f"{entry.filename} has {entry.file_size} bytes, announces {size}")
        content, done = bytearray(size), 0
        while done < size:
            piece = stream.read(min(_PIECE_BYTES, size - done))
            if not piece:
                raise EOFError(f"{entry.filename} ends after {done} of {size} bytes")
            content[done : done + len(piece)] = piece
            done += len(piece)
        if stream.read(1):  # also compares the checksum
            raise ValueError(f"{entry.filename} is longer than announced")
    if dtype.kind == "b" and size and max(content) > 1:
        raise ValueError(f"{entry.filename} holds flags that are neither 0 nor 1")
    if dtype.kind == "U":
        _check_text(content, dtype)
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    native: NDArray[Any] = array.astype(dtype.newbyteorder("="), copy=False)
    return native


def _check_text(content: bytearray, dtype: np.dtype[Any]) -> None:
    """Refuse numbers that are no characters: numpy raises only where a text is used."""
    order = ">" if dtype.byteorder == ">" else "<"
    codes = np.frombuffer(content, f"{order}u4")
    if len(codes) and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes < 0xE000)).any()):
        raise ValueError("a text holds numbers that are no characters")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
