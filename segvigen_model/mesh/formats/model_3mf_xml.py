"""The XML of a 3MF model part, streamed: objects, components, build items, materials.

The core specification and its materials extension (base materials, colours, texture coordinates);
the production extension's paths to other parts. An extension that the file requires and that is
none of these is refused. No DTD, no entity and nothing outside the package is ever looked up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.types import FloatArray

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIALS = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
PRODUCTION = "http://schemas.microsoft.com/3dmanufacturing/production/2015/06"
# Read, or of no consequence for a surface (triangle sets name groups of triangles).
KNOWN_EXTENSIONS = (
    CORE,
    MATERIALS,
    PRODUCTION,
    "http://schemas.microsoft.com/3dmanufacturing/trianglesets/2021/07",
)
# Metres of a unit.
UNITS = {
    "micron": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "inch": 0.0254,
    "foot": 0.3048,
    "meter": 1.0,
}
NONE = -1  # no property


@dataclass(slots=True)
class ObjectPart:
    """One object: a mesh, or components.

    Attributes:
        points: x, y, z of each vertex, one after the other.
        corners: three vertices of each triangle.
        properties: of each triangle the property group and an index a corner, NONE = the default.
        components: (part path or "", object id, (4, 4) transform).
        default: the object's property group and index.
    """

    name: str
    points: array[float] = field(default_factory=lambda: array("d"))
    corners: array[int] = field(default_factory=lambda: array("q"))
    properties: array[int] = field(default_factory=lambda: array("q"))
    components: list[tuple[str, int, FloatArray]] = field(default_factory=list)
    default: tuple[int, int] = (NONE, 0)
    is_support: bool = False


@dataclass(slots=True)
class ModelPart:
    """One model file of a package.

    Attributes:
        scale: metres of a unit.
        items: what is built: (part path or "", object id, (4, 4) transform).
        bases: group -> (name, RGBA) of its materials.
        colors: group -> RGBA of its colours.
        textures: id -> path of the image.
        texture_groups: group -> (texture id, u and v of its coordinates, v up).
    """

    scale: float = UNITS["millimeter"]
    objects: dict[int, ObjectPart] = field(default_factory=dict)
    items: list[tuple[str, int, FloatArray]] = field(default_factory=list)
    bases: dict[int, list[tuple[str, tuple[int, ...]]]] = field(default_factory=dict)
    colors: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)
    textures: dict[int, str] = field(default_factory=dict)
    texture_groups: dict[int, tuple[int, list[tuple[float, float]]]] = field(default_factory=dict)


class _Builder:
    """Fills a `ModelPart` from the parser's events."""

    def __init__(self, limits: MeshLimits) -> None:
        self.model = ModelPart()
        self._limits = limits
        self._object: ObjectPart | None = None
        self._group = NONE
        self._prefixes: dict[str, str] = {}
        self._num_faces = self._num_points = 0
        self._handlers: Mapping[str, Callable[[Mapping[str, str]], None]] = {
            "model": self._start_model,
            "object": self._start_object,
            "vertex": self._add_vertex,
            "triangle": self._add_triangle,
            "component": self._add_component,
            "item": self._add_item,
            "basematerials": self._start_bases,
            "base": self._add_base,
            "colorgroup": self._start_colors,
            "color": self._add_color,
            "texture2d": self._add_texture,
            "texture2dgroup": self._start_texture_group,
            "tex2coord": self._add_coordinate,
        }

    def start_prefix(self, prefix: str | None, uri: str) -> None:
        """Remember a namespace's prefix."""
        self._prefixes[prefix or ""] = uri

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """One element begins."""
        space, _, name = tag.rpartition(" ")
        handler = self._handlers.get(name) if space in ("", CORE, MATERIALS) else None
        if handler is not None:
            handler(attributes)

    def _start_model(self, attributes: Mapping[str, str]) -> None:
        unit = attributes.get("unit", "millimeter").lower()
        if unit not in UNITS:
            raise make_unreadable_error(f"3MF unit {unit[:20]!r} is unknown")
        self.model.scale = UNITS[unit]
        for prefix in attributes.get("requiredextensions", "").split():
            uri = self._prefixes.get(prefix, prefix)
            if uri not in KNOWN_EXTENSIONS:
                raise AssetRejected(
                    "unsupported_extension",
                    f"the 3MF needs {uri[:100]!r}; export it again without that extension",
                )

    def _start_object(self, attributes: Mapping[str, str]) -> None:
        number = _read_id(attributes, "id")
        if number in self.model.objects:
            raise make_unreadable_error(f"3MF object {number} is there twice")
        name = attributes.get("name") or attributes.get("partnumber") or f"object_{number}"
        self._object = ObjectPart(name, is_support=attributes.get("type") in ("support", "other"))
        self._object.default = (
            _read_id(attributes, "pid", NONE),
            _read_id(attributes, "pindex", 0),
        )
        self.model.objects[number] = self._object

    def _get_object(self) -> ObjectPart:
        if self._object is None:
            raise make_unreadable_error("3MF geometry stands outside an object")
        return self._object

    def _add_vertex(self, attributes: Mapping[str, str]) -> None:
        try:
            values = [float(attributes[axis]) for axis in "xyz"]
        except (KeyError, ValueError) as err:
            raise make_unreadable_error(f"a 3MF vertex does not parse: {err}") from err
        self._get_object().points.extend(values)
        self._num_points += 1
        if self._num_points > self._limits.max_vertices:
            check_counts(0, self._num_points, self._limits)

    def _add_triangle(self, attributes: Mapping[str, str]) -> None:
        part = self._get_object()
        try:
            part.corners.extend([int(attributes[key]) for key in ("v1", "v2", "v3")])
        except (KeyError, ValueError, OverflowError) as err:
            raise make_unreadable_error(f"a 3MF triangle does not parse: {err}") from err
        first = _read_id(attributes, "p1", NONE)
        group = _read_id(attributes, "pid", NONE if first == NONE else part.default[0])
        second, third = _read_id(attributes, "p2", first), _read_id(attributes, "p3", first)
        if first == NONE:
            group = NONE
        part.properties.extend((group, first, second, third))
        self._num_faces += 1
        if self._num_faces > self._limits.max_faces:
            check_counts(self._num_faces, 0, self._limits)

    def _add_component(self, attributes: Mapping[str, str]) -> None:
        self._get_object().components.append(_read_reference(attributes))

    def _add_item(self, attributes: Mapping[str, str]) -> None:
        self.model.items.append(_read_reference(attributes))

    def _start_bases(self, attributes: Mapping[str, str]) -> None:
        self._group = _read_id(attributes, "id")
        self.model.bases[self._group] = []

    def _add_base(self, attributes: Mapping[str, str]) -> None:
        color = _read_color(attributes.get("displaycolor", "#FFFFFF"))
        group = self.model.bases.get(self._group)
        if group is not None:
            group.append((attributes.get("name", ""), color))

    def _start_colors(self, attributes: Mapping[str, str]) -> None:
        self._group = _read_id(attributes, "id")
        self.model.colors[self._group] = []

    def _add_color(self, attributes: Mapping[str, str]) -> None:
        group = self.model.colors.get(self._group)
        if group is not None:
            group.append(_read_color(attributes.get("color", "")))

    def _add_texture(self, attributes: Mapping[str, str]) -> None:
        self.model.textures[_read_id(attributes, "id")] = attributes.get("path", "")

    def _start_texture_group(self, attributes: Mapping[str, str]) -> None:
        self._group = _read_id(attributes, "id")
        self.model.texture_groups[self._group] = (_read_id(attributes, "texid"), [])

    def _add_coordinate(self, attributes: Mapping[str, str]) -> None:
        group = self.model.texture_groups.get(self._group)
        if group is None:
            return
        try:
            group[1].append((float(attributes["u"]), float(attributes["v"])))
        except (KeyError, ValueError) as err:
            raise make_unreadable_error(f"a 3MF texture coordinate does not parse: {err}") from err


def parse_model(text: bytes, limits: MeshLimits) -> ModelPart:
    """Parse one model part.

    Raises:
        AssetRejected: unreadable, unsupported_extension, or too much of something.
    """
    builder = _Builder(limits)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartNamespaceDeclHandler = builder.start_prefix
    parser.StartElementHandler = builder.start
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError, LookupError) as err:  # also an unknown encoding
        raise make_unreadable_error(f"the 3MF model does not parse: {err}") from err
    return builder.model


def _refuse_doctype(*_: Any) -> None:
    raise make_unreadable_error("the 3MF model holds a DTD, which the format forbids")


def _read_reference(attributes: Mapping[str, str]) -> tuple[str, int, FloatArray]:
    path = attributes.get(f"{PRODUCTION} path", "")
    return path, _read_id(attributes, "objectid"), _read_transform(attributes.get("transform"))


def _read_transform(text: str | None) -> FloatArray:
    """(4, 4) of twelve numbers, three of each row of a matrix that is applied from the right."""
    matrix = np.eye(4)
    if text is None:
        return matrix
    try:
        values = np.array([float(word) for word in text.split()])
        matrix[:3, :] = values.reshape(4, 3).T
    except ValueError as err:
        raise make_unreadable_error(f"a 3MF transform does not parse: {err}") from err
    if not np.isfinite(matrix).all():
        raise make_unreadable_error("a 3MF transform is not finite")
    return matrix


def _read_id(attributes: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = attributes.get(key)
    if text is None and default is not None:
        return default
    if text is None or not text.strip().isdecimal() or len(text) > 10:
        raise make_unreadable_error(f"3MF {key} is {str(text)[:20]!r}, not a whole number >= 0")
    return int(text)


def _read_color(text: str) -> tuple[int, ...]:
    """(R, G, B, A) of #RRGGBB or #RRGGBBAA."""
    digits = text.strip().removeprefix("#")
    try:
        values = bytes.fromhex(digits)
    except ValueError:
        values = b""
    if len(values) not in (3, 4):
        raise make_unreadable_error(f"3MF colour {text[:20]!r} is no #RRGGBB")
    return (*values, 255)[:4]
