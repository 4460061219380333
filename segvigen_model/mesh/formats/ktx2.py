"""KTX2 textures with Basis Universal supercompression (ETC1S and UASTC), as glTF has them.

The size is read from the header, so that it counts before anything is decoded. Decoding is the
format's own C++ transcoder, in a confined process only (`isolation.py`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.formats.extras import import_extra
from segvigen_model.mesh.formats.isolation import require_isolation
from segvigen_model.types import ByteArray

MAGIC = b"\xabKTX 20\xbb\r\n\x1a\n"
HEADER_BYTES = 80


@dataclass(frozen=True, slots=True)
class Ktx2Image:
    """A KTX2 file whose header was read."""

    data: bytes
    width: int
    height: int


def open_ktx2(data: bytes, name: str) -> Ktx2Image:
    """Read the header.

    Raises:
        AssetRejected: bad_texture.
    """
    if len(data) < HEADER_BYTES:
        raise make_bad_texture_error(name, f"a KTX2 of {len(data)} bytes is cut off")
    width, height, depth = struct.unpack_from("<III", data, 20)
    if not width or not height or depth:
        raise make_bad_texture_error(
            name, f"a KTX2 of {width} x {height} x {depth} is no flat image"
        )
    return Ktx2Image(data, width, height)


def decode_ktx2(image: Ktx2Image, name: str) -> ByteArray:
    """(H, W, 4) uint8 RGBA of the largest level, first row on top.

    Raises:
        AssetRejected: bad_texture, or needs_sandbox outside a confined process.
        MissingExtra: the transcoder is not installed.
    """
    require_isolation("KTX2")
    library = import_extra("opengl_basisu", "opengl_basisu")
    try:
        texture = library.open(image.data)
        pixels = np.asarray(texture.transcode(library.Target.RGBA8, level=0).data)
    except MissingExtra:
        raise
    except Exception as err:  # the library raises whatever it meets
        raise make_bad_texture_error(name, f"KTX2 does not decode: {err}") from err
    if pixels.shape != (image.height, image.width, 4) or pixels.dtype != np.uint8:
        raise make_bad_texture_error(
            name, f"KTX2 announces {image.width} x {image.height}, gives {pixels.shape}"
        )
    return pixels


def make_bad_texture_error(name: str, what: str) -> AssetRejected:
    """Make the error for a texture that cannot be used."""
    return AssetRejected("bad_texture", f"texture {name[:80]!r}: {what}; export it as PNG or JPEG")
