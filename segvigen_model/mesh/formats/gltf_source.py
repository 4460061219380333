"""The outer layer of glTF: GLB chunks, buffers, side files, accessors, each length-checked.

No number in the JSON is trusted: an accessor is read only if its bytes are there,
and a URI is served only from inside the file (`data:`) or, for .gltf, from the given side files.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error

MAGIC = b"glTF"
CHUNK_JSON, CHUNK_BIN = 0x4E4F534A, 0x004E4942
DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


@dataclass(frozen=True, slots=True)
class GltfSource:
    """Parsed JSON and the bytes that it may refer to.

    Attributes:
        header: the JSON object.
        blob: the GLB's binary chunk, or None.
        side_files: name -> bytes; empty for GLB.
        is_binary: the file is a GLB, which must be complete in itself.
        buffers: by number, those that were requested: an inline one is decoded once.
    """

    header: Mapping[str, Any]
    blob: bytes | None
    side_files: Mapping[str, bytes]
    is_binary: bool
    buffers: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)


def open_glb(data: bytes) -> GltfSource:
    """Split a GLB into its JSON and its binary chunk."""
    if len(data) < 20:
        raise AssetRejected(
            "truncated", f"the GLB has {len(data)} bytes, its header alone needs 20; fetch it again"
        )
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise make_unreadable_error(f"GLB version {version} is not 2", "convert it to glTF 2.0")
    if length > len(data):
        raise AssetRejected(
            "truncated", f"the GLB says {length} bytes and has {len(data)}; fetch it again"
        )
    text, blob = None, None
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise AssetRejected(
                "truncated",
                f"a GLB chunk of {size} bytes at {offset} passes the end at {length}; fetch it "
                "again",
            )
        chunk = data[offset + 8 : offset + 8 + size]
        if text is None and kind == CHUNK_JSON:
            text = chunk
        elif blob is None and kind == CHUNK_BIN:
            blob = chunk
        offset += 8 + size
    if text is None:
        raise make_unreadable_error("the GLB has no JSON chunk")
    return GltfSource(parse_header(text), blob, {}, is_binary=True)


def parse_header(text: bytes) -> Mapping[str, Any]:
    """Parse the JSON of a glTF file and check its version."""
    try:
        header = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as err:
        raise make_unreadable_error(f"the glTF JSON does not parse: {err}") from err
    if not isinstance(header, dict) or not isinstance(header.get("asset"), dict):
        raise make_unreadable_error("the glTF JSON has no `asset` object")
    version = str(header["asset"].get("version", ""))
    if not version.startswith("2."):
        raise make_unreadable_error(
            f"glTF version {version[:20]!r} is not 2.x", "convert it to glTF 2.0"
        )
    return header


def get_item(source: GltfSource, kind: str, index: Any) -> Mapping[str, Any]:
    """Give `header[kind][index]`, or raise naming the broken reference."""
    items = source.header.get(kind, [])
    is_index = isinstance(index, int) and not isinstance(index, bool)
    if not is_index or not isinstance(items, list) or not 0 <= index < len(items):
        raise make_unreadable_error(f"glTF refers to {kind}[{str(index)[:20]}] that is not there")
    if not isinstance(items[index], dict):
        raise make_unreadable_error(f"glTF {kind}[{index}] is no object")
    found: Mapping[str, Any] = items[index]
    return found


def read_count(owner: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Give a whole number >= 0 from the JSON."""
    value = owner.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise make_unreadable_error(f"glTF {key} is {str(value)[:40]!r}, not a whole number >= 0")
    return value


def read_uri(source: GltfSource, uri: Any) -> bytes:
    """Give the bytes behind a URI: inline data, or one of the given side files."""
    if not isinstance(uri, str):
        raise make_unreadable_error(f"glTF uri is {type(uri).__name__}, not text")
    if uri.startswith("data:"):
        head, comma, body = uri.partition(",")
        if not comma or not head.endswith(";base64"):
            raise make_unreadable_error(f"glTF data URI {uri[:40]!r} is not base64")
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as err:
            raise make_unreadable_error(f"glTF data URI does not decode: {err}") from err
    return get_side_file(unquote(uri), source.side_files, is_allowed=not source.is_binary)


def get_side_file(name: str, side_files: Mapping[str, bytes], *, is_allowed: bool = True) -> bytes:
    """Give one side file by the name that is written in the mesh file.

    Raises:
        AssetRejected: external_reference for a name that leads elsewhere (absolute, `..`, an
            address, or any name in a GLB), missing_side_file for a fair name that was not given.
    """
    clean = name.strip().replace("\\", "/")
    while clean.startswith("./"):
        clean = clean[2:]
    is_outside = clean.startswith(("/", "~")) or ":" in clean or ".." in clean.split("/")
    if is_outside or not is_allowed:
        raise AssetRejected(
            "external_reference",
            f"the file refers to {name[:120]!r} outside itself; embed it (GLB) or put it beside "
            "the file under a plain relative name",
        )
    if clean not in side_files:
        raise AssetRejected(
            "missing_side_file",
            f"the file needs {name[:120]!r}; put it beside the mesh, or export one GLB",
        )
    return side_files[clean]


def read_view_bytes(source: GltfSource, index: Any) -> tuple[memoryview, int]:
    """Give a buffer view's bytes and its stride (0 = packed)."""
    view = get_item(source, "bufferViews", index)
    number = read_count(view, "buffer")
    if number not in source.buffers:
        source.buffers[number] = _read_buffer(source, number)
    data = source.buffers[number]
    start, length = read_count(view, "byteOffset", 0), read_count(view, "byteLength")
    if start + length > len(data):
        raise AssetRejected(
            "truncated",
            f"glTF buffer view {index} ends at {start + length}, its buffer at {len(data)}; fetch "
            "the file again",
        )
    return memoryview(data)[start : start + length], read_count(view, "byteStride", 0)


def _read_buffer(source: GltfSource, number: int) -> bytes:
    buffer = get_item(source, "buffers", number)
    if "uri" in buffer:
        return read_uri(source, buffer["uri"])
    if number == 0 and source.blob is not None:
        return source.blob
    raise make_unreadable_error(f"glTF buffer {number} has no data")


def read_accessor(source: GltfSource, index: Any) -> NDArray[Any]:
    """Read an accessor to (count, width); normalised integers become float32."""
    accessor = get_item(source, "accessors", index)
    count = read_count(accessor, "count")
    dtype, width = _get_layout(accessor, index)
    if "bufferView" in accessor:
        offset = read_count(accessor, "byteOffset", 0)
        values = _read_view(source, accessor["bufferView"], offset, count, dtype, width)
    else:
        values = np.zeros((count, width), dtype=dtype)
    if "sparse" in accessor:
        values = _apply_sparse(source, accessor["sparse"], values)
    if accessor.get("normalized") and dtype.kind in "iu":
        scaled = values.astype(np.float32) / np.float32(np.iinfo(dtype).max)
        values = np.maximum(scaled, np.float32(-1.0))
    return values


def _get_layout(accessor: Mapping[str, Any], index: Any) -> tuple[np.dtype[Any], int]:
    component, shape = accessor.get("componentType"), accessor.get("type")
    if component not in DTYPES or shape not in WIDTHS:
        raise make_unreadable_error(
            f"glTF accessor {index} has componentType {str(component)[:20]} and type "
            f"{str(shape)[:20]}"
        )
    return np.dtype(DTYPES[component]), WIDTHS[shape]


def _read_view(
    source: GltfSource, view: Any, offset: int, count: int, dtype: np.dtype[Any], width: int
) -> NDArray[Any]:
    data, stride = read_view_bytes(source, view)
    stride = stride or dtype.itemsize * width
    needed = offset + (count - 1) * stride + dtype.itemsize * width if count else 0
    if needed > len(data):
        raise AssetRejected(
            "truncated",
            f"glTF accessor needs {needed} bytes of a buffer view of {len(data)}; fetch the file "
            "again",
        )
    strides = (stride, dtype.itemsize)
    return np.ndarray((count, width), dtype, data, offset if count else 0, strides).copy()


def _apply_sparse(source: GltfSource, sparse: Any, values: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(sparse, dict):
        raise make_unreadable_error("glTF sparse accessor is no object")
    count = read_count(sparse, "count")
    where, what = sparse.get("indices"), sparse.get("values")
    if not isinstance(where, dict) or not isinstance(what, dict):
        raise make_unreadable_error("glTF sparse accessor lacks indices or values")
    kind, _ = _get_layout({"componentType": where.get("componentType"), "type": "SCALAR"}, "sparse")
    rows = _read_view(
        source, where.get("bufferView"), read_count(where, "byteOffset", 0), count, kind, 1
    ).ravel()
    new = _read_view(
        source,
        what.get("bufferView"),
        read_count(what, "byteOffset", 0),
        count,
        values.dtype,
        values.shape[1],
    )
    if count and (int(rows.min()) < 0 or int(rows.max()) >= len(values)):
        raise make_unreadable_error("glTF sparse accessor writes outside its range")
    values[rows.astype(np.int64)] = new
    return values
