"""glTF materials to ours: PBR metallic-roughness, and specular-glossiness turned into it.

Only images that a drawn primitive uses are opened, all headers before the first pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_accessors import read_view_bytes
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    check_mapping,
    get_item,
    parse_whole,
    read_uri,
)
from segvigen_model.mesh.formats.images import Texture, check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import ByteArray, FloatArray, Material

log = logging.getLogger(__name__)

# Where a texture keeps an image that plain viewers cannot read.
IMAGE_EXTENSIONS = ("EXT_texture_webp", "KHR_texture_basisu", "MSFT_texture_dds")
SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
TEXTURE_TRANSFORM = "KHR_texture_transform"


@dataclass(frozen=True, slots=True)
class GltfMaterial:
    """A material and how its primitives find their texture coordinates.

    Attributes:
        material: ready for use.
        uv_set: n of TEXCOORD_n.
        uv_transform: (3, 3) on homogeneous texture coordinates, or None.
    """

    material: Material
    uv_set: int = 0
    uv_transform: FloatArray | None = None


def read_materials(
    source: GltfSource, indices: Sequence[int], max_pixels: int
) -> dict[int, GltfMaterial]:
    """Read the materials with the given numbers; -1 stands for glTF's default material."""
    slots = {
        i: _find_slots(get_item(source, "materials", i)) for i in sorted(set(indices)) if i >= 0
    }
    wanted = {image for found in slots.values() for image in _list_images(source, found).values()}
    images = {i: _open_texture(source, i) for i in sorted(wanted)}
    check_pixels(images.values(), max_pixels)
    decoded: dict[tuple[int, str], ByteArray] = {}
    result = {i: _read_material(source, i, slots[i], images, decoded) for i in slots}
    return result | {-1: GltfMaterial(Material())}


def _find_slots(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Texture infos by our field name."""
    pbr = check_mapping(entry.get("pbrMetallicRoughness"))
    gloss = check_mapping(check_mapping(entry.get("extensions")).get(SPECULAR_GLOSSINESS))
    infos = {
        "base_color": pbr.get("baseColorTexture") or gloss.get("diffuseTexture"),
        "metallic_roughness": None if gloss else pbr.get("metallicRoughnessTexture"),
        "emissive": entry.get("emissiveTexture"),
        "normal": entry.get("normalTexture"),
    }
    return {name: info for name, info in infos.items() if isinstance(info, dict)}


def _list_images(source: GltfSource, slots: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Image of each slot; a texture without a source is none, as the standard allows."""
    found = {slot: _find_image(source, info) for slot, info in slots.items()}
    return {slot: image for slot, image in found.items() if image is not None}


def _find_image(source: GltfSource, info: Mapping[str, Any]) -> int | None:
    texture = get_item(source, "textures", info.get("index"))
    found: Any = texture.get("source")
    for name, extension in check_mapping(texture.get("extensions")).items():
        if found is None and name in IMAGE_EXTENSIONS:
            found = check_mapping(extension).get("source")
    if found is None:
        log.info("glTF texture without an image left out texture=%s", str(info.get("index"))[:20])
        return None
    get_item(source, "images", found)
    return parse_whole(found)


def _open_texture(source: GltfSource, index: int) -> Texture:
    image = get_item(source, "images", index)
    name = str(image.get("name") or f"image {index}")
    if "bufferView" in image:
        return open_image(bytes(read_view_bytes(source, image["bufferView"])[0]), name)
    if "uri" in image:
        return open_image(read_uri(source, image["uri"]), name)
    raise AssetRejected("bad_texture", f"texture {name[:80]!r} has no data; export it again")


def _read_numbers(
    owner: Mapping[str, Any], key: str, default: tuple[float, ...]
) -> tuple[float, ...]:
    value = owner.get(key, default)
    if not isinstance(value, list | tuple) or len(value) != len(default):
        raise make_unreadable_error(
            f"glTF {key} is {str(value)[:40]!r}, not {len(default)} numbers"
        )
    return tuple(_read_number({key: part}, key, 0.0) for part in value)


def _read_number(owner: Mapping[str, Any], key: str, default: float) -> float:
    value = owner.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < 1e9:  # also catches NaN
        raise make_unreadable_error(f"glTF {key} is {str(value)[:40]!r}, not a number")
    return float(value)


def _read_material(
    source: GltfSource,
    index: int,
    slots: Mapping[str, Mapping[str, Any]],
    images: Mapping[int, Texture],
    decoded: dict[tuple[int, str], ByteArray],
) -> GltfMaterial:
    entry = get_item(source, "materials", index)
    name = str(entry.get("name") or f"material_{index}")

    image_of = _list_images(source, slots)

    def load_texture(slot: str, mode: str) -> ByteArray | None:
        if slot not in image_of:
            return None
        key = (image_of[slot], mode)
        if key not in decoded:
            decoded[key] = decode_pixels(images[key[0]], mode, name)
        return decoded[key]

    color, metallic, roughness = _read_factors(entry)
    red, green, blue, alpha = color
    glow = _read_numbers(entry, "emissiveFactor", (0.0, 0.0, 0.0))
    mode = entry.get("alphaMode", "OPAQUE")
    material = Material(
        name=name,
        base_color_factor=(red, green, blue, alpha),
        metallic_factor=metallic,
        roughness_factor=roughness,
        emissive_factor=(glow[0], glow[1], glow[2]),
        alpha_mode=mode if mode in ("OPAQUE", "MASK", "BLEND") else "OPAQUE",
        alpha_cutoff=_read_number(entry, "alphaCutoff", 0.5),
        base_color_texture=load_texture("base_color", "RGBA"),
        metallic_roughness_texture=load_texture("metallic_roughness", "RGB"),
        emissive_texture=load_texture("emissive", "RGB"),
        normal_texture=load_texture("normal", "RGB"),
    )
    # One set of coordinates per surface: the colour's, or else the first texture's.
    leading = next((slots[slot] for slot in image_of), {})
    uv_set, transform = _read_uv_rule(leading)
    return GltfMaterial(material, uv_set, transform)


def _read_factors(entry: Mapping[str, Any]) -> tuple[tuple[float, ...], float, float]:
    white = (1.0, 1.0, 1.0, 1.0)
    gloss = check_mapping(check_mapping(entry.get("extensions")).get(SPECULAR_GLOSSINESS))
    if gloss and "pbrMetallicRoughness" not in entry:
        roughness = 1.0 - _read_number(gloss, "glossinessFactor", 1.0)
        return _read_numbers(gloss, "diffuseFactor", white), 0.0, roughness
    pbr = check_mapping(entry.get("pbrMetallicRoughness"))
    color = _read_numbers(pbr, "baseColorFactor", white)
    return (
        color,
        _read_number(pbr, "metallicFactor", 1.0),
        _read_number(pbr, "roughnessFactor", 1.0),
    )


def _read_uv_rule(info: Mapping[str, Any]) -> tuple[int, FloatArray | None]:
    uv_set = info.get("texCoord", 0)
    extension = check_mapping(check_mapping(info.get("extensions")).get(TEXTURE_TRANSFORM))
    uv_set = extension.get("texCoord", uv_set)
    number = parse_whole(uv_set)
    if number is None or not 0 <= number < 16:
        raise make_unreadable_error(f"glTF texCoord is {str(uv_set)[:20]!r}")
    if not extension:
        return number, None
    shift = _read_numbers(extension, "offset", (0.0, 0.0))
    scale = _read_numbers(extension, "scale", (1.0, 1.0))
    angle = _read_number(extension, "rotation", 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    move = np.array([[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]], [0.0, 0.0, 1.0]])
    return number, move @ turn @ np.diag([scale[0], scale[1], 1.0])
