"""Materials of FBX: Phong and Lambert, and the studios' PBR shaders by the names of their maps."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.fbx_scene import FbxObject, FbxScene
from segvigen_model.mesh.formats.images import Texture, check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.types import ByteArray, Material

log = logging.getLogger(__name__)

# Our slot -> last words of the properties that studios give it, the first that is there counts.
NAMES = {
    "color": ("diffusecolor", "base_color", "basecolor", "color"),
    "color_texture": (
        *("diffusecolor", "base_color", "basecolor", "tex_color_map"),
        *("base_color_map", "basecolor_map", "color"),
    ),
    "emission": ("emissivecolor", "emit_color", "emission_color", "emissive"),
    "emission_texture": ("emissivecolor", "tex_emissive_map", "emit_color_map", "emission_color"),
    "normal_texture": ("normalmap", "tex_normal_map", "norm_map", "bump_map", "normal_camera"),
    "metalness": ("metalness", "metallic"),
    "roughness": ("roughness", "specular_roughness"),
}
MODES = {"color_texture": "RGBA", "emission_texture": "RGB", "normal_texture": "RGB"}


class MaterialReader:
    """Reads each material and each texture of one file once.

    Args:
        scene: the file's objects.
        side_files: textures by relative or base name.
        limits: of texture pixels, and whether a texture may be absent.
    """

    def __init__(
        self, scene: FbxScene, side_files: Mapping[str, bytes], limits: MeshLimits
    ) -> None:
        self.plain = Material(name="plain", metallic_factor=0.0)
        self._scene = scene
        self._side_files = {name.lower(): data for name, data in side_files.items()}
        self._limits = limits
        self._materials: dict[int, Material] = {}
        self._images: dict[int, Texture | None] = {}
        self._pixels: dict[tuple[int, str], ByteArray] = {}

    def open_textures(self, models: Sequence[FbxObject]) -> None:
        """Open all textures that models use and sum their pixels before any is decoded."""
        for model in models:
            for material, _ in self._scene.list_children(model.number, "Material"):
                for slot in MODES:
                    texture = self._find_texture(material, slot)
                    if texture is not None and texture.number not in self._images:
                        self._images[texture.number] = self._open(texture)
        found = [image for image in self._images.values() if image is not None]
        check_pixels(found, self._limits.max_texture_pixels)

    def list_repairs(self) -> tuple[tuple[str, int], ...]:
        """What was left out."""
        return (("missing_textures", sum(image is None for image in self._images.values())),)

    def read(self, material: FbxObject) -> Material:
        """One material; one object however often it is asked for."""
        if material.number not in self._materials:
            self._materials[material.number] = self._convert(material)
        return self._materials[material.number]

    def _find_texture(self, material: FbxObject, slot: str) -> FbxObject | None:
        found = {
            _shorten(by): texture
            for texture, by in reversed(self._scene.list_children(material.number, "Texture"))
        }
        return next((found[name] for name in NAMES[slot] if name in found), None)

    def _open(self, texture: FbxObject) -> Texture | None:
        name = _read_file_name(texture)
        for video, _ in self._scene.list_children(texture.number, "Video"):
            content = _read_content(video)
            if content:
                return open_image(content, name)
            name = name or _read_file_name(video)
        given = self._find_side_file(name)
        if given is not None:
            return open_image(given, name)
        if self._limits.is_side_file_required:
            raise AssetRejected(
                "missing_side_file",
                f"the FBX needs {name[:120]!r}; put it beside the mesh, or embed media on export",
            )
        log.warning("texture absent, loaded without it name=%r", name[:120])
        return None

    def _find_side_file(self, name: str) -> bytes | None:
        clean = name.replace("\\", "/").removeprefix("./").lower()
        for spelling in (clean, PurePosixPath(clean).name):
            if spelling in self._side_files:
                return self._side_files[spelling]
        return None

    def _convert(self, material: FbxObject) -> Material:
        known = {_shorten(name): values for name, values in material.properties.items()}
        color = self._load(material, "color_texture")
        factor = _read_number(known, ("diffusefactor",), 1.0)
        red, green, blue = _read_color(known, NAMES["color"], 1.0)
        if color is not None:
            red = green = blue = factor = 1.0  # in FBX a texture takes the colour's place
        glow = _read_number(known, ("emissivefactor",), 1.0)
        light = [_clip(value * glow) for value in _read_color(known, NAMES["emission"], 0.0)]
        alpha = _read_alpha(known)
        shine = max(_read_number(known, ("shininess", "shininessexponent"), 0.0), 0.0)
        rough = _read_number(known, NAMES["roughness"], float((2.0 / (shine + 2.0)) ** 0.25))
        return Material(
            name=material.name,
            base_color_factor=(red * factor, green * factor, blue * factor, alpha),
            metallic_factor=_clip(_read_number(known, NAMES["metalness"], 0.0)),
            roughness_factor=_clip(rough),
            emissive_factor=(light[0], light[1], light[2]),
            alpha_mode="BLEND" if alpha < 1.0 else "OPAQUE",
            base_color_texture=color,
            emissive_texture=self._load(material, "emission_texture"),
            normal_texture=self._load(material, "normal_texture"),
        )

    def _load(self, material: FbxObject, slot: str) -> ByteArray | None:
        texture = self._find_texture(material, slot)
        image = None if texture is None else self._images.get(texture.number)
        if texture is None or image is None:
            return None
        key = (texture.number, MODES[slot])
        if key not in self._pixels:
            self._pixels[key] = decode_pixels(image, MODES[slot], texture.name)
        return self._pixels[key]


def _shorten(name: str) -> str:
    """The last word of a property's name: studios write "Maya|baseColor"."""
    return name.rpartition("|")[2].lower()


def _read_file_name(found: FbxObject) -> str:
    for key in ("RelativeFilename", "FileName", "Filename"):
        node = found.node.find(key)
        if node is not None and node.read_text():
            return node.read_text()
    return found.name


def _read_content(video: FbxObject) -> bytes:
    """Bytes that the file holds itself: raw in binary files, base64 in text files."""
    node = video.node.find("Content")
    parts = [] if node is None else [value for value in node.values if isinstance(value, bytes)]
    try:  # each piece is padded for itself
        return b"".join(base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):
        return b"".join(parts)


def list_texture_names(scene: FbxScene) -> list[str]:
    """Textures that the file does not hold itself: relative names, of others the base name."""
    names = []
    for texture in [found for found in scene.objects.values() if found.kind == "Texture"]:
        videos = scene.list_children(texture.number, "Video")
        if any(_read_content(video) for video, _ in videos):
            continue
        name = _read_file_name(texture).replace("\\", "/").removeprefix("./")
        is_outside = name.startswith("/") or ":" in name or ".." in name.split("/")
        names.append(PurePosixPath(name).name if is_outside else name)
    return names


def _read_number(known: Mapping[str, Sequence[Any]], names: Sequence[str], default: float) -> float:
    for name in names:
        values = known.get(name, ())
        if len(values) and isinstance(values[0], int | float):
            return float(values[0])
    return default


def _read_color(
    known: Mapping[str, Sequence[Any]], names: Sequence[str], default: float
) -> tuple[float, float, float]:
    for name in names:
        values = list(known.get(name, ()))[:3]
        if len(values) == 3 and all(isinstance(value, int | float) for value in values):
            return _clip(values[0]), _clip(values[1]), _clip(values[2])
    return default, default, default


def _read_alpha(known: Mapping[str, Sequence[Any]]) -> float:
    opacity = _clip(_read_number(known, ("opacity",), -1.0))
    if _read_number(known, ("opacity",), -1.0) < 0.0:
        opacity = 1.0 - _clip(_read_number(known, ("transparencyfactor",), 0.0))
    return opacity or 1.0  # writers say 0 and do not mean that nothing is to be seen


def _clip(value: float) -> float:
    return min(max(float(value), 0.0), 1.0) if value == value else 0.0
