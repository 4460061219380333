"""Encodings as bytes: one safetensors blob, metadata in its header.

Chosen because it holds no code, maps without copying and is byte-stable: equal encodings give
equal bytes. Anything that is not such a blob is refused with CorruptBlob.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.errors import SegvigenError
from segvigen_model.types import Encoding, Frame

FORMAT = "segvigen-encoding/1"
_ARRAYS = ("coords", "latent_coords", "shape_slat", "tex_slat", "base_color", "frame_center")


class CorruptBlob(SegvigenError):
    """Stored bytes are not what their key promises."""


def encoding_to_bytes(encoding: Encoding) -> bytes:
    """Pack an encoding; the same encoding always gives the same bytes."""
    arrays = {
        "coords": encoding.coords.astype(np.int32),
        "latent_coords": encoding.latent_coords.astype(np.int32),
        "shape_slat": encoding.shape_slat.astype(np.float32),
        "tex_slat": encoding.tex_slat.astype(np.float32),
        "base_color": encoding.base_color.astype(np.uint8),
        "frame_center": np.asarray(encoding.frame.center, np.float64),
    }
    if encoding.condition is not None:
        arrays["condition"] = encoding.condition.astype(np.float32)
    meta = {
        "grid": encoding.grid,
        "factor": encoding.factor,
        "frame_scale": float(encoding.frame.scale),
        "checkpoint": encoding.checkpoint,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # One entry only: the order of several would not be fixed between runs.
    header = {"segvigen": json.dumps({"format": FORMAT, **meta}, sort_keys=True)}
    return bytes(save_tensors(contiguous, metadata=header))


def encoding_from_bytes(data: bytes) -> Encoding:
    """Unpack an encoding.

    Raises:
        CorruptBlob: the bytes are no encoding of this format.
    """
    try:
        arrays, meta = load_tensors(data), _metadata(data)
        if meta.get("format") != FORMAT:
            raise CorruptBlob(f"format is {meta.get('format')!r}, not {FORMAT!r}; encode again")
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise CorruptBlob(f"encoding lacks {missing}; encode again")
        return Encoding(
            grid=int(meta["grid"]),
            factor=int(meta["factor"]),
            coords=arrays["coords"],
            latent_coords=arrays["latent_coords"],
            shape_slat=arrays["shape_slat"],
            tex_slat=arrays["tex_slat"],
            base_color=arrays["base_color"],
            frame=Frame(center=arrays["frame_center"], scale=float(meta["frame_scale"])),
            checkpoint=str(meta["checkpoint"]),
            condition=arrays.get("condition"),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as err:
        raise CorruptBlob(f"not an encoding ({len(data)} bytes): {err}; encode again") from err


def _metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata entry of a safetensors header (the numpy loader drops it)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = header.get("__metadata__", {}).get("segvigen", "{}")
    meta = json.loads(entry)
    if not isinstance(meta, dict):
        raise CorruptBlob("encoding metadata is no object; encode again")
    return meta
