"""Textures of all kinds come out as 8 bits of red, green, blue and alpha."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.images import decode_pixels, open_image
from segvigen_model.mesh.io import mesh_from_bytes


def make_png16(kind, values):
    """A PNG of 16 bits per channel, which PIL cannot write for all kinds: one pixel."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
    row = b"\x00" + struct.pack(f">{len(values)}H", *values)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (0, [0x4000], [64, 64, 64, 255]),
        (0, [0xFFFF], [255, 255, 255, 255]),
        (2, [0x4000, 0x8080, 0xFFFF], [64, 128, 255, 255]),
        (4, [0x4000, 0x8080], [64, 64, 64, 128]),
        (6, [0x4000, 0x8080, 0xFFFF, 0x2020], [64, 128, 255, 32]),
    ],
)
def test_sixteen_bits_are_scaled(gltf, kind, values, expected):
    gltf.box(material=gltf.texture(make_png16(kind, values)))
    (material,) = mesh_from_bytes(gltf.glb(), "glb").materials
    assert material.base_color_texture[0, 0].tolist() == expected


def save(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_other_depths_and_colour_models():
    def decode(image, kind="PNG", **options):
        return decode_pixels(open_image(save(image, kind, **options), "t"), "RGBA", "t")[
            0, 0
        ].tolist()

    grey16 = Image.fromarray(np.full((1, 1), 0x4000, np.uint16))
    assert decode(grey16, "TIFF") == [64, 64, 64, 255]
    floating = Image.fromarray(np.full((1, 1), 0.25, np.float32))
    assert decode(floating, "TIFF") == [64, 64, 64, 255]
    assert decode(Image.new("1", (1, 1), 1)) == [255, 255, 255, 255]
    assert decode(Image.new("LA", (1, 1), (7, 9))) == [7, 7, 7, 9]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    assert decode(palette, transparency=0) == [10, 20, 30, 0]
    assert decode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")[:3] == [255, 255, 255]
    assert decode(Image.new("RGB", (1, 1), (1, 2, 3)), "WEBP", lossless=True) == [1, 2, 3, 255]


def test_messages_are_the_same_each_time():
    found = set()
    for _ in range(2):
        with pytest.raises(AssetRejected) as caught:
            open_image(b"no image at all", "t.png")
        found.add(caught.value.message)
    assert len(found) == 1 and " at 0x" not in found.pop()


def test_a_texture_without_an_image_is_none(gltf, png):
    material = gltf.texture(png(color=(9, 9, 9)), normalTexture={"index": 1})
    gltf.header["textures"].append({"extensions": {"EXT_unknown": {"source": 0}}})
    gltf.box(material=material)
    (found,) = mesh_from_bytes(gltf.glb(), "glb").materials
    assert found.base_color_texture[0, 0].tolist() == [9, 9, 9, 255]
    assert found.normal_texture is None
    gltf.header["textures"][1] = {"extensions": {"EXT_texture_webp": {"source": 0}}}
    (found,) = mesh_from_bytes(gltf.glb(), "glb").materials
    assert found.normal_texture[0, 0].tolist() == [9, 9, 9]
    gltf.header["textures"][1] = {"source": 5}
    with pytest.raises(AssetRejected, match=r"images\[5\]"):
        mesh_from_bytes(gltf.glb(), "glb")
