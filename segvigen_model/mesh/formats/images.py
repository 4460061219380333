"""Textures from untrusted bytes: sizes are read from the header and summed before any decoding."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from segvigen_model.errors import AssetRejected
from segvigen_model.types import ByteArray

# Formats that are pure raster decoders; others may start programs (EPS) or hold documents.
SAFE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "GIF", "TIFF", "DDS")


def open_image(data: bytes, name: str) -> Image.Image:
    """Read an image's header; pixels are decoded later, by `decode_pixels`."""
    try:
        with warnings.catch_warnings():
            # Our own limit speaks; PIL's warning about the same size would be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=SAFE_FORMATS)
    except Image.DecompressionBombError as err:
        raise AssetRejected(
            "texture_too_large", f"texture {name[:80]!r}: {err}; scale it down"
        ) from err
    except Exception as err:  # PIL's decoders raise whatever they meet
        raise AssetRejected(
            "bad_texture",
            f"texture {name[:80]!r} ({len(data)} bytes) is no readable image: {err}; "
            "export it as PNG or JPEG",
        ) from err


def check_pixels(images: Iterable[Image.Image], max_pixels: int) -> None:
    """Refuse textures that would decode to more than `max_pixels` together."""
    total = sum(image.width * image.height for image in images)
    if total > max_pixels:
        raise AssetRejected(
            "texture_too_large",
            f"textures hold {total} pixels > {max_pixels}; scale them down or raise "
            "max_texture_pixels",
        )


def decode_pixels(image: Image.Image, mode: str, name: str) -> ByteArray:
    """Decode an image to (H, W, C) uint8; `mode` is "RGB" or "RGBA"."""
    try:
        converted: Any = image.convert(mode)
        return np.array(converted, dtype=np.uint8)
    except Exception as err:  # truncated or hostile pixel data
        raise AssetRejected(
            "bad_texture",
            f"texture {name[:80]!r} does not decode: {err}; export it again",
        ) from err
