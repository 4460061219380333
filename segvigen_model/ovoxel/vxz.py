"""The .vxz file: voxels in octree chunks with byte attributes, every option of the format.

"VXZ", a zero, the header's length (big endian), a JSON header, then the chunks' streams. The
reader trusts nothing: offsets, counts and decompressed sizes are checked, and any damage
raises `CorruptVxz`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.ovoxel.vxz_order import (
    apply_filter,
    decode_morton,
    decode_octree,
    encode_morton,
    encode_octree,
    undo_filter,
)
from segvigen_model.ovoxel.vxz_streams import COMPRESSIONS, LEVELS, CorruptVxz, compress, decompress
from segvigen_model.types import ByteArray, Frame, IntArray, OVoxel

__all__ = ["CorruptVxz", "VxzFile", "read_vxz", "to_ovoxel", "write_ovoxel", "write_vxz"]

MAGIC = b"VXZ\x00"
FILTERS = ("none", "parent", "neighbor")
INTERLEAVES = ("as_is", "none", "all")
MAX_VOXELS = 1 << 25  # several times the surface of a 1024 grid
MAX_CHANNELS = 1024  # all attributes together
MAX_BYTES = 1 << 30  # attributes of a file, unpacked; a 1024 grid's surface needs a tenth
MAX_COORDINATE = 1 << 20  # what a Morton code of 60 bits holds


@dataclass(frozen=True, slots=True)
class VxzFile:
    """Content of a file, rows in file order.

    Attributes:
        coords: (N, 3) int32.
        attributes: name -> (N, C) uint8.
    """

    coords: IntArray
    attributes: Mapping[str, ByteArray]


@dataclass(frozen=True, slots=True)
class _Layout:
    num_voxels: int
    chunk_size: int
    filter_name: str
    compression: str
    interleave: str
    attributes: tuple[tuple[str, int], ...]

    @property
    def depth(self) -> int:
        return self.chunk_size.bit_length() - 1

    @property
    def streams(self) -> tuple[tuple[str, int], ...]:
        """Name and channels of each stored stream."""
        if self.interleave == "all":
            return (("attr", sum(channels for _, channels in self.attributes)),)
        if self.interleave == "none":
            return tuple(
                (f"{n}_{i}", 1) for n, channels in self.attributes for i in range(channels)
            )
        return self.attributes


# The options of the file format, by name.
def write_vxz(
    coords: IntArray,
    attributes: Mapping[str, ByteArray],
    *,
    chunk_size: int = 256,
    filter_name: str = "none",
    compression: str = "lzma",
    interleave: str = "as_is",
    level: int | None = None,
) -> bytes:
    """Write voxels.

    Args:
        coords: (N, 3) int >= 0, no row twice, N >= 1.
        attributes: name -> (N, C) or (N,) uint8.
        chunk_size: side of a chunk, a power of two, 2..1024.
        filter_name: "none", "parent" or "neighbor".
        compression: "lzma", "deflate", "zstd" or "none".
        interleave: "as_is" (a stream per attribute), "none" (per channel) or "all" (one).
        level: of the compression; its highest by default.

    Returns:
        The file's bytes; the same input gives the same bytes.
    """
    cells = np.asarray(coords, dtype=np.int64)
    columns = {
        name: np.asarray(v, np.uint8).reshape(len(cells), -1) for name, v in attributes.items()
    }
    sizes = tuple((name, values.shape[1]) for name, values in columns.items())
    layout = _Layout(len(cells), chunk_size, filter_name, compression, interleave, sizes)
    level = LEVELS.get(compression, 0) if level is None else level
    _check_written(cells, layout)
    order = np.lexsort((encode_morton(cells % chunk_size), *(cells // chunk_size).T[::-1]))
    body, chunks = bytearray(), []
    for rows in _split_chunks(cells[order] // chunk_size, order):
        content = {name: values[rows] for name, values in columns.items()}
        blob, entry = _pack_chunk(cells[rows], content, layout, level)
        chunks.append(entry | {"ptr": [len(body), len(blob)]})
        body += blob
    return _pack_file(layout, level, chunks, bytes(body))


def read_vxz(data: bytes) -> VxzFile:
    """Read a file.

    Raises:
        CorruptVxz: the bytes are no sound .vxz file.
    """
    header, body = _split_file(data)
    layout = _read_layout(header)
    parts: list[NDArray[np.int64]] = []
    values: dict[str, list[ByteArray]] = {name: [] for name, _ in layout.attributes}
    seen: set[tuple[int, ...]] = set()
    left = layout.num_voxels
    for chunk in _get_list(header, "chunks"):
        index = tuple(_check_triple(chunk))
        if index in seen:
            raise CorruptVxz(f"chunk {index} is there twice")
        seen.add(index)
        cells, content = _unpack_chunk(chunk, body, layout, left)
        left -= len(cells)
        parts.append(cells + np.array(index) * layout.chunk_size)
        for name, rows in content.items():
            values[name].append(rows)
    if left or not parts:
        raise CorruptVxz(f"{layout.num_voxels} voxels announced, {layout.num_voxels - left} there")
    return VxzFile(
        coords=np.concatenate(parts).astype(np.int32),
        attributes={name: np.concatenate(rows) for name, rows in values.items()},
    )


def write_ovoxel(ovoxel: OVoxel, **options: Any) -> bytes:
    """Write an O-Voxel with SegviGen's attribute names and order; options as in `write`."""
    flags = (ovoxel.intersected * np.array([1, 2, 4], dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    attributes = {
        "base_color": ovoxel.base_color,
        "metallic": ovoxel.metallic,
        "roughness": ovoxel.roughness,
        "emissive": ovoxel.emissive,
        "alpha": ovoxel.alpha,
        "normal": ovoxel.normal,
        "dual_vertices": ovoxel.dual,
        "intersected": flags,
    }
    return write_vxz(ovoxel.coords, attributes, **options)


def to_ovoxel(content: VxzFile, grid: int, frame: Frame) -> OVoxel:
    """Make an O-Voxel of a file; grid and frame are not stored in it.

    Raises:
        CorruptVxz: an attribute is absent or a voxel lies outside the grid.
    """
    wanted = {"base_color": 3, "metallic": 1, "roughness": 1, "emissive": 3, "alpha": 1,
              "normal": 3, "dual_vertices": 3, "intersected": 1}  # fmt: skip
    for name, channels in wanted.items():
        if name not in content.attributes or content.attributes[name].shape[1] != channels:
            raise CorruptVxz(f"attribute {name!r} with {channels} channels is not there")
    if len(content.coords) and int(content.coords.max()) >= grid:
        raise CorruptVxz(f"a voxel lies at {int(content.coords.max())}, outside a {grid}^3 grid")
    order = np.lexsort(content.coords.T[::-1])
    rows = {name: content.attributes[name][order] for name in wanted}
    return OVoxel(
        grid=grid,
        coords=content.coords[order],
        dual=rows["dual_vertices"],
        intersected=(rows["intersected"] >> np.arange(3, dtype=np.uint8)) & 1 == 1,
        base_color=rows["base_color"],
        metallic=rows["metallic"][:, 0],
        roughness=rows["roughness"][:, 0],
        alpha=rows["alpha"][:, 0],
        emissive=rows["emissive"],
        normal=rows["normal"],
        frame=frame,
    )


def _check_written(cells: NDArray[np.int64], layout: _Layout) -> None:
    _check_layout(layout)
    if len(cells) == 0:
        raise ValueError("no voxels to write")
    if int(cells.min()) < 0 or int(cells.max()) >= MAX_COORDINATE:
        raise ValueError(f"coordinates must lie in 0..{MAX_COORDINATE - 1}")
    if len(np.unique(encode_morton(cells))) != len(cells):
        raise ValueError("a voxel is there twice")


def _check_layout(layout: _Layout) -> None:
    size = layout.chunk_size
    if not 2 <= size <= 1024 or size & (size - 1):
        raise CorruptVxz(f"chunk size {size} is no power of two in 2..1024")
    for value, known in (
        (layout.filter_name, FILTERS),
        (layout.compression, COMPRESSIONS),
        (layout.interleave, INTERLEAVES),
    ):
        if value not in known:
            raise CorruptVxz(f"{str(value)[:40]!r} is none of {', '.join(known)}")
    channels = sum(channels for _, channels in layout.attributes)
    if channels > MAX_CHANNELS:
        raise CorruptVxz(f"{channels} attribute channels, more than {MAX_CHANNELS}")
    if layout.num_voxels * channels > MAX_BYTES:
        raise CorruptVxz(
            f"{layout.num_voxels} voxels of {channels} channels take more than {MAX_BYTES} bytes; "
            "split the asset"
        )


def _split_chunks(indices: NDArray[np.int64], order: IntArray) -> Iterator[IntArray]:
    starts = np.flatnonzero((np.diff(indices, axis=0) != 0).any(axis=1)) + 1
    yield from np.split(order, starts)


def _pack_chunk(
    cells: NDArray[np.int64], content: Mapping[str, ByteArray], layout: _Layout, level: int
) -> tuple[bytes, dict[str, Any]]:
    codes = encode_morton(cells % layout.chunk_size)
    entry: dict[str, Any] = {"idx": (cells[0] // layout.chunk_size).tolist()}
    blob = bytearray()
    streams = {"svo": encode_octree(codes, layout.depth)}
    if layout.attributes:
        table = np.concatenate(list(content.values()), axis=1)
        start = 0
        for name, channels in layout.streams:
            part = np.ascontiguousarray(table[:, start : start + channels])
            streams[name] = apply_filter(layout.filter_name, codes, part, layout.depth).tobytes()
            start += channels
    for name, plain in streams.items():
        packed = compress(plain, layout.compression, level)
        entry[name] = [len(blob), len(packed)]
        blob += packed
    return bytes(blob), entry


def _pack_file(layout: _Layout, level: int, chunks: list[dict[str, Any]], body: bytes) -> bytes:
    row_bytes = 12 + sum(channels for _, channels in layout.attributes)
    raw_size = layout.num_voxels * row_bytes  # coordinates count as three int32
    header = {
        "num_voxel": layout.num_voxels,
        "chunk_size": layout.chunk_size,
        "filter": layout.filter_name,
        "compression": layout.compression,
        "compression_level": level,
        "raw_size": raw_size,
        "compressed_size": len(body),
        "compress_ratio": raw_size / max(len(body), 1),
        "attr_interleave": layout.interleave,
        "attr": [list(entry) for entry in layout.attributes],
        "chunks": chunks,
    }
    text = json.dumps(header).encode()
    return MAGIC + struct.pack(">I", 8 + len(text)) + text + body


def _split_file(data: bytes) -> tuple[Mapping[str, Any], bytes]:
    if len(data) < 8 or data[:4] != MAGIC:
        raise CorruptVxz(f"no .vxz file: it starts with {data[:8]!r}")
    start = struct.unpack_from(">I", data, 4)[0]
    if not 8 <= start <= len(data):
        raise CorruptVxz(f"the header ends at {start} of {len(data)} bytes")
    try:
        header = json.loads(data[8:start])
    except (ValueError, RecursionError) as err:
        raise CorruptVxz(f"the header does not parse: {err}") from err
    if not isinstance(header, dict):
        raise CorruptVxz("the header is no JSON object")
    return header, data[start:]


def _read_layout(header: Mapping[str, Any]) -> _Layout:
    attributes = []
    for entry in _get_list(header, "attr"):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise CorruptVxz(f"attribute entry {str(entry)[:40]!r} is no [name, channels]")
        attributes.append(
            (entry[0], _check_integer(entry[1], f"channels of {entry[0][:40]!r}", 1, 255))
        )
    if len({name for name, _ in attributes}) != len(attributes):
        raise CorruptVxz("an attribute is named twice")
    layout = _Layout(
        num_voxels=_check_integer(header.get("num_voxel"), "num_voxel", 1, MAX_VOXELS),
        chunk_size=_check_integer(header.get("chunk_size"), "chunk_size", 2, 1024),
        filter_name=header.get("filter", "none"),
        compression=header.get("compression", "none"),
        interleave=header.get("attr_interleave", "as_is"),
        attributes=tuple(attributes),
    )
    _check_layout(layout)
    return layout


def _unpack_chunk(
    chunk: Mapping[str, Any], body: bytes, layout: _Layout, most: int
) -> tuple[NDArray[np.int64], dict[str, ByteArray]]:
    blob = _get_slice(body, chunk.get("ptr"), "chunk")
    masks = decompress(
        _get_slice(blob, chunk.get("svo"), "svo"), layout.compression, most * layout.depth
    )
    codes = decode_octree(masks, layout.depth, most)
    if codes is None:
        raise CorruptVxz(f"the octree of {len(masks)} nodes is damaged")
    tables = []
    for name, channels in layout.streams:
        size = len(codes) * channels
        plain = decompress(_get_slice(blob, chunk.get(name), name), layout.compression, size)
        if len(plain) != size:
            raise CorruptVxz(f"stream {name[:40]!r} has {len(plain)} bytes, not {size}")
        stored = np.frombuffer(plain, dtype=np.uint8).reshape(-1, channels)
        tables.append(undo_filter(layout.filter_name, codes, stored, layout.depth))
    content: dict[str, ByteArray] = {}
    if tables:
        table, start = np.concatenate(tables, axis=1), 0
        for name, channels in layout.attributes:
            content[name] = table[:, start : start + channels].copy()
            start += channels
    return decode_morton(codes), content


def _get_list(header: Mapping[str, Any], key: str) -> list[Any]:
    value = header.get(key)
    if not isinstance(value, list):
        raise CorruptVxz(f"{key!r} is no list")
    return value


def _check_integer(value: Any, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise CorruptVxz(f"{what} is {str(value)[:40]!r}, not a whole number in {low}..{high}")
    return value


def _check_triple(chunk: Any) -> list[int]:
    index = chunk.get("idx") if isinstance(chunk, dict) else None
    if not isinstance(index, list) or len(index) != 3:
        raise CorruptVxz("a chunk has no place")
    return [_check_integer(value, "chunk index", 0, MAX_COORDINATE // 1024 - 1) for value in index]


def _get_slice(data: bytes, place: Any, what: str) -> bytes:
    if not isinstance(place, list) or len(place) != 2:
        raise CorruptVxz(f"{what[:40]!r} has no place in the file")
    start, length = (
        _check_integer(value, f"place of {what[:40]!r}", 0, len(data)) for value in place
    )
    if start + length > len(data):
        raise CorruptVxz(f"{what[:40]!r} passes the end of the file")
    return data[start : start + length]
