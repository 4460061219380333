"""glTF buffers, buffer views and accessors, each checked against the bytes that are there.

No number in the JSON is trusted: an accessor is read only if its bytes exist. Arrays are views of
the file's own bytes where nothing has to be changed, so a shared accessor costs nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_compressed import MESHOPT_NAMES, decode_meshopt
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    get_extension,
    get_item,
    parse_whole,
    read_count,
    read_uri,
)
from segvigen_model.mesh.formats.limits import make_unreadable_error

DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
PADDING = 3  # bytes that a writer may count, or not, behind the last value


def read_view_bytes(source: GltfSource, index: Any) -> tuple[memoryview, int]:
    """Give a buffer view's bytes and its stride (0 = packed)."""
    view = get_item(source, "bufferViews", index)
    for name in MESHOPT_NAMES:
        packed = get_extension(view, name)
        if packed is not None:
            number = parse_whole(index) or 0
            if number not in source.views:
                data = _slice_buffer(source, packed, f"compressed buffer view {number}")
                source.views[number] = decode_meshopt(data, packed)
            return memoryview(source.views[number]), read_count(packed, "byteStride")
    return _slice_buffer(source, view, f"buffer view {index}"), read_count(view, "byteStride", 0)


def _slice_buffer(source: GltfSource, view: Mapping[str, Any], what: str) -> memoryview:
    number = read_count(view, "buffer")
    if number not in source.buffers:
        source.buffers[number] = _read_buffer(source, number)
    data = source.buffers[number]
    start, length = read_count(view, "byteOffset", 0), read_count(view, "byteLength")
    if start + length > len(data) + PADDING:
        raise AssetRejected(
            "truncated",
            f"glTF {what} ends at {start + length}, its buffer at {len(data)}; fetch the file "
            "again",
        )
    return memoryview(data)[start : start + length]


def _read_buffer(source: GltfSource, number: int) -> bytes:
    buffer = get_item(source, "buffers", number)
    if "uri" in buffer:
        data = read_uri(source, buffer["uri"])
    elif number == 0 and source.blob is not None:
        data = source.blob
    else:
        raise make_unreadable_error(f"glTF buffer {number} has no data")
    announced = read_count(buffer, "byteLength", len(data))
    if announced > len(data) + PADDING:
        raise AssetRejected(
            "truncated",
            f"glTF buffer {number} announces {announced} bytes and has {len(data)}; fetch the "
            "file again",
        )
    return data


def read_accessor(source: GltfSource, index: Any) -> NDArray[Any]:
    """Read an accessor to (count, width); normalised integers become float32. Not to be changed."""
    accessor = get_item(source, "accessors", index)
    number = parse_whole(index)
    assert number is not None  # get_item found it
    if number not in source.accessors:
        source.accessors[number] = _read_values(source, accessor, number)
    return source.accessors[number]


def _read_values(source: GltfSource, accessor: Mapping[str, Any], index: int) -> NDArray[Any]:
    count = read_count(accessor, "count")
    dtype, width = _get_layout(accessor, index)
    if "bufferView" in accessor:
        offset = read_count(accessor, "byteOffset", 0)
        values = _read_view(source, accessor["bufferView"], offset, count, dtype, width)
    else:
        values = np.zeros((count, width), dtype=dtype)
    if "sparse" in accessor:
        values = _apply_sparse(source, accessor["sparse"], values.copy())
    if accessor.get("normalized") and dtype.kind in "iu":
        scaled = values.astype(np.float32) / np.float32(np.iinfo(dtype).max)
        values = np.maximum(scaled, np.float32(-1.0))
    return values


def _get_layout(accessor: Mapping[str, Any], index: Any) -> tuple[np.dtype[Any], int]:
    component = parse_whole(accessor.get("componentType"))
    shape = accessor.get("type")
    if component not in DTYPES or not isinstance(shape, str) or shape not in WIDTHS:
        raise make_unreadable_error(
            f"glTF accessor {index} has componentType "
            f"{str(accessor.get('componentType'))[:20]} and type {str(shape)[:20]}"
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
    return np.ndarray((count, width), dtype, data, offset if count else 0, strides)


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
    if kind.kind != "u":
        raise make_unreadable_error("glTF sparse indices are not whole numbers >= 0")
    if count and int(rows.max()) >= len(values):
        raise make_unreadable_error("glTF sparse accessor writes outside its range")
    values[rows.astype(np.int64)] = new
    return values
