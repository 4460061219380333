"""Textures from untrusted bytes: sizes are read from the header and summed before any decoding.

Values of 16 bits are scaled to 8, floating point is cut to 0..1.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.ktx2 import (
    MAGIC,
    Ktx2Image,
    decode_ktx2,
    make_bad_texture_error,
    open_ktx2,
)
from segvigen_model.types import ByteArray

# Formats that are pure raster decoders; others may start programs (EPS) or hold documents.
SAFE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "GIF", "TIFF", "DDS")

Texture = Image.Image | Ktx2Image
PER_BYTE = 257.0  # 65535 / 255


def open_image(data: bytes, name: str) -> Texture:
    """Read an image's header; pixels are decoded later, by `decode_pixels`."""
    if data.startswith(MAGIC):
        return open_ktx2(data, name)
    try:
        with warnings.catch_warnings():
            # Our own limit speaks; PIL's warning about the same size would be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=SAFE_FORMATS)
    except Image.DecompressionBombError as err:
        raise AssetRejected(
            "texture_too_large", f"texture {name[:80]!r}: {err}; scale it down"
        ) from err
    except Exception as err:  # PIL's decoders raise whatever they meet; its text has addresses
        raise make_bad_texture_error(
            name,
            f"{len(data)} bytes that start with {data[:8]!r} are no readable image "
            f"({type(err).__name__})",
        ) from err


def check_pixels(images: Iterable[Texture], max_pixels: int) -> None:
    """Refuse textures that would decode to more than `max_pixels` together."""
    total = sum(image.width * image.height for image in images)
    if total > max_pixels:
        raise AssetRejected(
            "texture_too_large",
            f"textures hold {total} pixels > {max_pixels}; scale them down or raise "
            "max_texture_pixels",
        )


def decode_pixels(image: Texture, mode: str, name: str) -> ByteArray:
    """Decode an image to (H, W, C) uint8; `mode` is "RGB" or "RGBA"."""
    if isinstance(image, Ktx2Image):
        return np.ascontiguousarray(decode_ktx2(image, name)[:, :, : len(mode)])
    try:
        converted: Any = _to_eight_bits(image).convert(mode)
        return np.array(converted, dtype=np.uint8)
    except Exception as err:  # truncated or hostile pixel data
        raise AssetRejected(
            "bad_texture",
            f"texture {name[:80]!r} does not decode: {err}; export it again",
        ) from err


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 bits or floating point; PIL itself would cut them off at 255."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)) * 255.0
    elif image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64) / PER_BYTE
    else:
        return image
    return Image.fromarray(np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8))
