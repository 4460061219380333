"""Materials of USD: `UsdPreviewSurface` with its textures; others keep their name and are white."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segvigen_model.mesh.formats.images import Texture, check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.usd_layers import UsdLayers
from segvigen_model.mesh.formats.usd_library import import_usd
from segvigen_model.types import ByteArray, Material

PREVIEW, TEXTURE = "UsdPreviewSurface", "UsdUVTexture"
READER, TRANSFORM = "UsdPrimvarReader_float2", "UsdTransform2d"
CHANNELS = {"r": 0, "g": 1, "b": 2, "a": 3}
PLAIN_TRANSFORM = {"scale": (1.0, 1.0), "rotation": (0.0,), "translation": (0.0, 0.0)}
MAX_HOPS = 8  # between a texture and its coordinates
# What the shader is without a value.
GREY, ROUGH = 0.18, 0.5


@dataclass(frozen=True, slots=True)
class _Linked:
    """A texture behind an input: its shader, the output that is used, and its pixels (RGBA)."""

    shader: Any
    output: str
    pixels: ByteArray


class UsdMaterials:
    """Reads each material and each texture of one scene once.

    Args:
        layers: where textures are.
        limits: of texture pixels.

    Attributes:
        plain: of faces without material.
        counts: what was left out.
    """

    def __init__(self, layers: UsdLayers, limits: MeshLimits) -> None:
        self.plain = Material(name="plain", metallic_factor=0.0)
        self.counts: Counter[str] = Counter()
        self._layers = layers
        self._limits = limits
        self._materials: dict[str, Material] = {}
        self._uv_names: dict[str, str] = {}
        self._images: dict[bytes, Texture] = {}
        self._pixels: dict[bytes, ByteArray] = {}

    def read(self, material: Any, time: Any) -> Material:
        """One material; one object however often it is asked for."""
        path = str(material.GetPath())
        if path not in self._materials:
            self._materials[path] = self._convert(material, time)
        return self._materials[path]

    def get_uv_name(self, materials: Sequence[Any]) -> str:
        """The texture coordinates that the first textured one of some read materials asks for."""
        names = (self._uv_names.get(str(material.GetPath()), "") for material in materials)
        return next(filter(None, names), "")

    def _convert(self, material: Any, time: Any) -> Material:
        name = str(material.GetPrim().GetName())
        shader = material.ComputeSurfaceSource()[0]
        if not shader or _get_id(shader) != PREVIEW:
            self.counts["materials_without_preview"] += 1
            return Material(name=name, metallic_factor=0.0)
        linked = {
            slot: self._load(shader, slot, time)
            for slot in ("diffuseColor", "metallic", "roughness", "opacity", "emissiveColor",
                         "normal")
        }  # fmt: skip
        first = next((each for each in linked.values() if each is not None), None)
        if first is not None:
            self._uv_names[str(material.GetPath())] = self._find_uv_name(first.shader, time)
        color, alpha = linked["diffuseColor"], _read_numbers(shader, "opacity", (1.0,), time)[0]
        red, green, blue = _read_numbers(shader, "diffuseColor", (GREY,) * 3, time)
        if color is not None:
            red, green, blue = _read_numbers(color.shader, "scale", (1.0,) * 4, time)[:3]
        base = self._join_alpha(color, linked["opacity"])
        glow = 0.0 if linked["emissiveColor"] is None else 1.0  # a texture takes its place
        light = _read_numbers(shader, "emissiveColor", (glow,) * 3, time)
        cutoff = _read_numbers(shader, "opacityThreshold", (0.0,), time)[0]
        is_clear = linked["opacity"] is not None or alpha < 1.0
        metal, rough, both = self._join_surface(shader, linked, time)
        return Material(
            name=name,
            base_color_factor=(_clip(red), _clip(green), _clip(blue), _clip(alpha)),
            metallic_factor=metal,
            roughness_factor=rough,
            emissive_factor=(_clip(light[0]), _clip(light[1]), _clip(light[2])),
            alpha_mode=("MASK" if cutoff > 0 else "BLEND") if is_clear else "OPAQUE",
            alpha_cutoff=_clip(cutoff) if cutoff > 0 else 0.5,
            base_color_texture=base,
            metallic_roughness_texture=both,
            emissive_texture=_take_rgb(linked["emissiveColor"]),
            normal_texture=_take_rgb(linked["normal"]),
        )

    def _load(self, shader: Any, slot: str, time: Any) -> _Linked | None:
        """The texture that an input of the surface is connected to."""
        found = _find_source(shader, slot)
        if found is None or _get_id(found[0]) != TEXTURE:
            return None
        texture, output = found
        asset = texture.GetInput("file")
        value = asset.Get(time) if asset else None
        token = str(getattr(value, "path", "") or "")
        if not token:
            self.counts["textures_without_file"] += 1
            return None
        name, data = self._layers.read_file(token)
        if data is None:
            return None
        if data not in self._images:
            self._images[data] = open_image(data, name)
            check_pixels(self._images.values(), self._limits.max_texture_pixels)
            self._pixels[data] = decode_pixels(self._images[data], "RGBA", name)
        return _Linked(texture, output, self._pixels[data])

    def _find_uv_name(self, texture: Any, time: Any) -> str:
        """Name of the texture coordinates of a texture; a transform on the way is counted."""
        found = _find_source(texture, "st")
        for _ in range(MAX_HOPS):
            if found is None or _get_id(found[0]) != TRANSFORM:
                break
            moved = any(
                _read_numbers(found[0], name, plain, time) != plain
                for name, plain in PLAIN_TRANSFORM.items()
            )
            self.counts["texture_transforms_left_out"] += int(moved)
            found = _find_source(found[0], "in")
        if found is None or _get_id(found[0]) != READER:
            return ""
        held = found[0].GetInput("varname")
        attributes = held.GetValueProducingAttributes() if held else []
        value = attributes[0].Get(time) if attributes else None
        return str(value or "")

    def _join_alpha(self, color: _Linked | None, opacity: _Linked | None) -> ByteArray | None:
        """(H, W, 4) colour with the opacity's channel as alpha."""
        if opacity is None:
            return None if color is None else color.pixels
        alpha = opacity.pixels[:, :, CHANNELS.get(opacity.output, 3)]
        if color is None:
            joined: ByteArray = np.full((*alpha.shape, 4), 255, dtype=np.uint8)
        else:
            joined = color.pixels.copy()
        joined[:, :, 3] = _resize(alpha, joined.shape[:2])
        return joined

    def _join_surface(
        self, shader: Any, linked: dict[str, _Linked | None], time: Any
    ) -> tuple[float, float, ByteArray | None]:
        """Factors of metal and roughness, and their (H, W, 3) texture."""
        metal, rough = linked["metallic"], linked["roughness"]
        metallic = _clip(_read_numbers(shader, "metallic", (0.0,), time)[0])
        roughness = _clip(_read_numbers(shader, "roughness", (ROUGH,), time)[0])
        given = metal or rough
        if given is None:
            return metallic, roughness, None
        both: ByteArray = np.full((*given.pixels.shape[:2], 3), 255, dtype=np.uint8)
        for place, each in ((2, metal), (1, rough)):
            if each is not None:
                channel = each.pixels[:, :, CHANNELS.get(each.output, 0)]
                both[:, :, place] = _resize(channel, both.shape[:2])
        return (1.0 if metal else metallic), (1.0 if rough else roughness), both


def _take_rgb(linked: _Linked | None) -> ByteArray | None:
    return None if linked is None else np.ascontiguousarray(linked.pixels[:, :, :3])


def _resize(channel: ByteArray, shape: Sequence[int]) -> ByteArray:
    """(H, W) to another size, by the nearest pixel."""
    rows = np.arange(shape[0]) * channel.shape[0] // shape[0]
    columns = np.arange(shape[1]) * channel.shape[1] // shape[1]
    resized: ByteArray = channel[rows[:, None], columns]
    return resized


def _get_id(shader: Any) -> str:
    return str(shader.GetIdAttr().Get() or "")


def _find_source(shader: Any, slot: str) -> tuple[Any, str] | None:
    """Shader and output behind an input, through the inputs of materials and node graphs."""
    held = shader.GetInput(slot)
    usd = import_usd("UsdShade")
    for attribute in held.GetValueProducingAttributes() if held else []:
        if usd.Output.IsOutput(attribute):
            return usd.Shader(attribute.GetPrim()), str(usd.Output(attribute).GetBaseName())
    return None


def _read_numbers(
    shader: Any, slot: str, default: tuple[float, ...], time: Any
) -> tuple[float, ...]:
    """Value of an input that is not a texture."""
    held = shader.GetInput(slot)
    for attribute in held.GetValueProducingAttributes() if held else []:
        value = attribute.Get(time)
        numbers = np.atleast_1d(np.asarray(0.0 if value is None else value))
        if value is not None and numbers.dtype.kind in "fiu" and numbers.shape == (len(default),):
            return tuple(float(each) for each in numbers)
    return default


def _clip(value: float) -> float:
    return min(max(float(value), 0.0), 1.0) if value == value else 0.0
