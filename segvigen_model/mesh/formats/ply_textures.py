"""Textures of a PLY: which face has which of the files that its comments name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from segvigen_model.mesh.formats.images import check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits, make_unreadable_error
from segvigen_model.mesh.formats.polygons import PLAIN, PolygonTable
from segvigen_model.mesh.formats.references import SideFiles
from segvigen_model.types import BoolArray, ByteArray, IntArray


def apply_textures(
    table: PolygonTable,
    names: tuple[str, ...],
    numbers: IntArray | None,
    side_files: Mapping[str, bytes],
    limits: MeshLimits,
) -> PolygonTable:
    """Give each polygon the material of its texture.

    Colours under a texture are left out and counted: they are a copy of it, or a viewer's default,
    and multiplied with it they would darken the surface.

    Args:
        table: the surface, whose polygons have no materials yet.
        names: texture files in the order of the header.
        numbers: (P,) `texnumber` of each polygon, -1 = none; None = the file does not say.
        side_files: textures by name.
        limits: bound of all pixels together.

    Raises:
        AssetRejected: a texture is absent or unreadable, or a number is none of a texture.
    """
    if not names:
        return table
    files = SideFiles(side_files, limits)
    pictures = _load_textures(names, files, limits)
    repairs = {**table.repairs, **files.counts}
    if table.vertex_uv is None and table.corner_uv is None:
        return replace(table, repairs=repairs | {"textures_without_coordinates": len(names)})
    if numbers is None:
        repairs["textures_of_no_face"] = len(names) - 1
        numbers = np.zeros(len(table.sizes), dtype=np.int64)
    if int(numbers.min(initial=0)) < -1 or int(numbers.max(initial=0)) >= len(names):
        wrong = numbers[(numbers < -1) | (numbers >= len(names))]
        raise make_unreadable_error(f"texnumber {int(wrong[0])} of {len(names)} textures")
    materials = tuple(
        replace(PLAIN, name=name, base_color_texture=pictures.get(name)) for name in names
    )
    plain = (PLAIN,) if (numbers < 0).any() else ()
    has_picture = np.array([*(name in pictures for name in names), False])
    clean = _whiten(table, has_picture[numbers], repairs)
    return replace(
        clean,
        materials=materials + plain,
        polygon_material=np.where(numbers < 0, len(names), numbers),
        repairs=repairs,
    )


def _load_textures(
    names: tuple[str, ...], files: SideFiles, limits: MeshLimits
) -> dict[str, ByteArray]:
    contents = {name: files.find(name) for name in dict.fromkeys(names)}
    images = {
        name: open_image(content, name) for name, content in contents.items() if content is not None
    }
    check_pixels(images.values(), limits.max_texture_pixels)
    return {name: decode_pixels(image, "RGBA", name) for name, image in images.items()}


def _whiten(table: PolygonTable, is_textured: BoolArray, repairs: dict[str, int]) -> PolygonTable:
    """Take the colours away from polygons that have a texture."""
    vertex_colors, polygon_colors = table.vertex_colors, table.polygon_colors
    if vertex_colors is not None:
        under = np.zeros(len(table.vertices), dtype=np.bool_)
        corners = table.corners[np.repeat(is_textured, table.sizes)]
        under[corners[(corners >= 0) & (corners < len(under))]] = True
        repairs["vertex_colors_left_out"] = _count_shaded(vertex_colors[under])
        vertex_colors = _mask(vertex_colors, under, is_textured)
    if polygon_colors is not None:
        repairs["face_colors_left_out"] = _count_shaded(polygon_colors[is_textured])
        polygon_colors = _mask(polygon_colors, is_textured, is_textured)
    return replace(table, vertex_colors=vertex_colors, polygon_colors=polygon_colors)


def _count_shaded(colors: ByteArray) -> int:
    """How many colours are not white, which changes nothing."""
    return int((colors != 255).any(axis=1).sum())


def _mask(colors: ByteArray, is_white: BoolArray, is_textured: BoolArray) -> ByteArray | None:
    if is_textured.all():
        return None
    return np.where(is_white[:, None], np.uint8(255), colors)
