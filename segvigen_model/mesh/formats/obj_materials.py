"""Materials that the faces of an OBJ call by name, from its libraries to glTF's terms.

Only materials in use are made, and only their textures are asked for. A name without definition
stays a material of that name: white, rough, not metallic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segvigen_model.mesh.formats.images import check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.mtl import (
    MaterialTable,
    MtlMaterial,
    TextureReference,
    parse_mtl,
)
from segvigen_model.mesh.formats.obj_text import read_name
from segvigen_model.mesh.formats.references import SideFiles
from segvigen_model.types import ByteArray, Material

PLAIN = Material(name="plain", metallic_factor=0.0)
BYTE_SCALE_FROM = 2.0  # a colour above it was written as 0..255


@dataclass(slots=True)
class ObjMaterials:
    """Materials of a mesh.

    Attributes:
        materials: in the order in which faces use them.
        names: as the faces call them, one per material; "" = none.
        placements: number of a material -> its texture line, where that moves or scales.
        counts: what was left out or guessed, by kind.
    """

    materials: list[Material] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    placements: dict[int, TextureReference] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def read_materials(
    used: Sequence[bytes | None], libraries: Sequence[str], files: SideFiles, max_pixels: int
) -> tuple[ObjMaterials, list[int]]:
    """Make the materials that faces use.

    Args:
        used: what stands behind `usemtl`, in the order of use; None = no such line came before.
        libraries: names of the material libraries.
        files: gives libraries and textures.
        max_pixels: of all textures together.

    Returns:
        Materials, and the number of the material of each entry of `used`.

    Raises:
        AssetRejected: a side file is missing or leads outside, or a texture cannot be used.
    """
    found = [data for name in libraries if (data := files.find(name)) is not None]
    table = MaterialTable(material for data in found for material in parse_mtl(data))
    made = ObjMaterials()
    sources = [None if rest is None else table.find(rest) for rest in used]
    textures = _read_textures(
        [source for source in sources if source is not None], files, max_pixels
    )
    numbers: dict[int | str, int] = {}
    rows = []
    for rest, source in zip(used, sources, strict=True):
        name = "" if rest is None else read_name(rest)
        key = name if source is None else id(source)
        if key not in numbers:
            numbers[key] = len(made.materials)
            _add_material(made, name, source, textures)
        rows.append(numbers[key])
    return made, rows


def _add_material(
    made: ObjMaterials, name: str, source: MtlMaterial | None, textures: dict[str, ByteArray]
) -> None:
    if source is None:
        made.counts["materials_without_definition"] += bool(name)
        made.materials.append(Material(name, metallic_factor=0.0) if name else PLAIN)
        made.names.append(name)
        return
    line = source.textures.get("map_kd")
    if line is not None and (line.scale != (1.0, 1.0) or line.offset != (0.0, 0.0)):
        made.placements[len(made.materials)] = line
    made.counts["material_lines_unread"] += source.num_unread
    texture = None if line is None else textures.get(line.name)
    made.materials.append(_convert_material(source, texture, made.counts))
    made.names.append(source.alias)


def _read_textures(
    materials: Sequence[MtlMaterial], files: SideFiles, max_pixels: int
) -> dict[str, ByteArray]:
    """Decode the textures of materials; each file once."""
    names = [m.textures["map_kd"].name for m in materials if "map_kd" in m.textures]
    found = {name: files.find(name) for name in dict.fromkeys(names)}
    images = {name: open_image(data, name) for name, data in found.items() if data is not None}
    check_pixels(images.values(), max_pixels)
    return {name: decode_pixels(image, "RGBA", name) for name, image in images.items()}


def _convert_material(
    source: MtlMaterial, texture: ByteArray | None, counts: Counter[str]
) -> Material:
    values = source.values
    color = _scale_color(values.get("Kd", (1.0, 1.0, 1.0)))
    if texture is not None and not any(color):
        color = (1.0, 1.0, 1.0)  # exporters write Kd 0 beside a texture and mean the texture alone
    alpha = values["d"][0] if "d" in values else 1.0 - values.get("Tr", (0.0,))[0]
    alpha = min(max(alpha, 0.0), 1.0)
    if alpha == 0:  # some write the other meaning of Tr; a surface is there to be seen
        counts["invisible_materials_shown"] += 1
        alpha = 1.0
    shine = max(values.get("Ns", (0.0,))[0], 0.0)
    roughness = values.get("Pr", (float((2.0 / (shine + 2.0)) ** 0.25),))[0]
    return Material(
        name=source.alias,
        base_color_factor=(*color, alpha),
        metallic_factor=min(max(values.get("Pm", (0.0,))[0], 0.0), 1.0),
        roughness_factor=min(max(roughness, 0.0), 1.0),
        emissive_factor=_scale_color(values.get("Ke", (0.0, 0.0, 0.0))),
        alpha_mode="OPAQUE" if alpha == 1 else "BLEND",
        base_color_texture=texture,
    )


def _scale_color(values: Sequence[float]) -> tuple[float, float, float]:
    scale = 255.0 if max(values) > BYTE_SCALE_FROM else 1.0
    red, green, blue = np.clip(np.array(values) / scale, 0.0, 1.0).tolist()
    return red, green, blue
