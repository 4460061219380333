"""Geometry of glTF that is compressed: Draco primitives and meshopt buffer views.

Both are decoded by the formats' own C++ libraries, in a confined process only (`isolation.py`).
What they give is compared with what the JSON announces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.extras import import_extra
from segvigen_model.mesh.formats.gltf_source import check_mapping, parse_whole, read_count
from segvigen_model.mesh.formats.isolation import require_isolation
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import IntArray

DRACO = "KHR_draco_mesh_compression"
MESHOPT_NAMES = ("EXT_meshopt_compression", "KHR_meshopt_compression")
MESHOPT_MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")
MESHOPT_FILTERS = ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR")
MAX_STRIDE = 256  # of a row, by the extension
# 256 bytes of one column that are all alike take two bits, and nothing takes less.
MIN_BITS_PER_BYTE = 2 / 256


def decode_meshopt(data: memoryview, packed: Mapping[str, Any]) -> bytes:
    """Decode one buffer view of EXT_meshopt_compression.

    Args:
        data: the compressed bytes.
        packed: the extension's object, with count, byteStride, mode and filter.

    Returns:
        count * byteStride bytes.

    Raises:
        AssetRejected: the numbers are impossible, or the bytes do not decode to them.
    """
    require_isolation("meshopt")
    meshopt = import_extra("meshopt", "meshopt")
    count, stride = read_count(packed, "count"), read_count(packed, "byteStride")
    mode, kind = packed.get("mode"), packed.get("filter", "NONE")
    is_index = mode != "ATTRIBUTES"
    if mode not in MESHOPT_MODES or kind not in MESHOPT_FILTERS:
        raise make_unreadable_error(
            f"meshopt mode {str(mode)[:20]!r} with filter {str(kind)[:20]!r} is unknown"
        )
    if not 0 < stride <= MAX_STRIDE or (stride not in (2, 4) if is_index else stride % 4):
        raise make_unreadable_error(f"meshopt rows of {stride} bytes are impossible for {mode}")
    if count * stride * MIN_BITS_PER_BYTE > 8 * len(data) + 8 * MAX_STRIDE:
        raise AssetRejected(
            "truncated",
            f"meshopt announces {count} rows of {stride} bytes in {len(data)}; fetch the file "
            "again",
        )
    try:
        values = meshopt.decode_gltf_buffer(
            bytes(data), count, stride, mode, None if kind == "NONE" else kind
        )
    except Exception as err:  # the library raises whatever it meets
        raise make_unreadable_error(f"meshopt data does not decode: {err}") from err
    result = np.ascontiguousarray(values).tobytes()
    if len(result) != count * stride:
        raise make_unreadable_error(
            f"meshopt gave {len(result)} bytes where {count * stride} are announced"
        )
    return result


def decode_draco(
    data: memoryview, extension: Mapping[str, Any]
) -> tuple[IntArray, dict[str, NDArray[Any]]]:
    """Decode one primitive of KHR_draco_mesh_compression.

    Args:
        data: the compressed bytes.
        extension: its object; `attributes` names the Draco attribute of each glTF one.

    Returns:
        (F, 3) int64 faces, and (V, width) values by glTF name.
    """
    require_isolation("Draco")
    faces: IntArray
    library = import_extra("DracoPy", "DracoPy")
    try:
        mesh = library.decode(bytes(data))
        faces = np.asarray(mesh.faces).astype(np.int64).reshape(-1, 3)
        found = {int(entry["unique_id"]): np.asarray(entry["data"]) for entry in mesh.attributes}
    except Exception as err:  # the library raises whatever it meets
        raise make_unreadable_error(f"Draco data does not decode: {err}") from err
    values: dict[str, NDArray[Any]] = {}
    for name, number in check_mapping(extension.get("attributes")).items():
        key = parse_whole(number)
        if key not in found:
            raise make_unreadable_error(
                f"Draco data has no attribute {str(number)[:20]} for {name[:40]}"
            )
        entry = found[key]
        values[name] = entry.reshape(len(entry), -1)
    return faces, values
