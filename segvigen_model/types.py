"""The values that travel through the pipeline: frozen, typed, no behaviour beyond small views.

Frames (see coords.py): *mesh* = the file's own coordinates; *unit* = centred cube [-0.5, 0.5];
*grid* = integer voxel coordinates 0..G-1; *latent* = grid // factor.
Part ids are 0-based and dense; -1 means unlabelled and never leaves the model room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """How a mesh was moved into the unit cube: unit = (mesh - center) * scale.

    Attributes:
        center: (3,) float64, centre of the bounding box, mesh frame.
        scale: unit lengths per mesh length, > 0.
    """

    center: FloatArray
    scale: float


@dataclass(frozen=True, slots=True)
class Material:
    """A PBR material as O-Voxel samples it (glTF semantics; textures optional).

    Attributes:
        base_color_factor: (4,) float, 0..1, multiplied with the texture.
        base_color_texture: (H, W, 4) uint8 RGBA or None.
        metallic_roughness_texture: (H, W, 3) uint8 (blue = metallic, green = roughness) or None.
        emissive_texture, normal_texture: (H, W, 3) uint8 or None.
        alpha_mode: "OPAQUE", "MASK" or "BLEND".
    """

    name: str = ""
    base_color_factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    metallic_factor: float = 1.0
    roughness_factor: float = 1.0
    emissive_factor: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    base_color_texture: ByteArray | None = None
    metallic_roughness_texture: ByteArray | None = None
    emissive_texture: ByteArray | None = None
    normal_texture: ByteArray | None = None


@dataclass(frozen=True, slots=True)
class NameColumn:
    """A name for every row of a table: each different name once, and its number in every row.

    Attributes:
        indices: (N,) int32 into names; -1 = the source gives this row no name.
        names: different names in the order of the source; untrusted text.
    """

    indices: IntArray
    names: tuple[str, ...]

    def take(self, rows: IntArray | BoolArray) -> NameColumn:
        """Keep some rows, in the order given; the table of names stays whole."""
        return NameColumn(self.indices[rows], self.names)


@dataclass(frozen=True, slots=True)
class FaceOrigin:
    """Where each triangle comes from in the source; None = the format or file does not say.

    Attributes:
        polygons: (F,) int32 index of the source's polygon, counted from 0 in the file's order over
            the whole file. Ascending; polygons that were left out (`AssetMesh.repairs`) keep their
            number. None = every triangle is a polygon of its own.
        objects: names of objects (OBJ `o`, glTF node, solid of an STL).
        groups: names of groups (OBJ `g`, glTF mesh).
        materials: names of materials as the faces call them, also of those without a definition.
    """

    polygons: IntArray | None = None
    objects: NameColumn | None = None
    groups: NameColumn | None = None
    materials: NameColumn | None = None

    def take(self, rows: IntArray | BoolArray) -> FaceOrigin:
        """Keep some faces, in the order given."""
        columns = (self.objects, self.groups, self.materials)
        return FaceOrigin(
            None if self.polygons is None else self.polygons[rows],
            *(None if column is None else column.take(rows) for column in columns),
        )


@dataclass(frozen=True, slots=True)
class AssetMesh:
    """All geometry of one asset, flattened, in the source's own face order. Labels refer to it.

    Attributes:
        vertices: (V, 3) float64, mesh frame, Y up as in glTF. Never welded or reordered.
        faces: (F, 3) int64 into vertices. Face i of every label array is this row i.
        face_material: (F,) int32 into materials.
        materials: at least one.
        corner_uv: (F, 3, 2) float32 texture coordinates (glTF: v down), or None.
        vertex_colors: (V, 4) uint8, or None.
        vertex_normals: (V, 3) float32 unit normals, or None (then face normals are used).
        face_geometry: (F,) int32, index of the source's geometry (glTF mesh primitive) per face.
        geometry_names: the source's names, one per geometry; untrusted text.
        origin: polygon, object, group and material name of each face in the source.
        repairs: (kind, how many) of everything that was left out, mended or only guessed, e.g.
            ("degenerate_faces", 3); docs/formats.md lists the kinds. A face of the file that is not
            in `faces` is counted here.
        announced: counts by the file's own words, e.g. {"faces": 12, "vertices": 8}; all of them
            were compared with what was read.
    """

    vertices: FloatArray
    faces: IntArray
    face_material: IntArray
    materials: tuple[Material, ...]
    corner_uv: FloatArray | None = None
    vertex_colors: ByteArray | None = None
    vertex_normals: FloatArray | None = None
    face_geometry: IntArray | None = None
    geometry_names: tuple[str, ...] = ()
    origin: FaceOrigin = field(default_factory=FaceOrigin)
    repairs: tuple[tuple[str, int], ...] = ()
    announced: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_faces(self) -> int:
        """Number of triangles."""
        return len(self.faces)

    def take_faces(self, rows: IntArray) -> AssetMesh:
        """Keep some faces, in the order given; vertices and materials stay whole."""
        return replace(
            self,
            faces=self.faces[rows],
            face_material=self.face_material[rows],
            corner_uv=None if self.corner_uv is None else self.corner_uv[rows],
            face_geometry=None if self.face_geometry is None else self.face_geometry[rows],
            origin=self.origin.take(rows),
        )

    @property
    def face_polygons(self) -> IntArray:
        """(F,) int32 index of the source's polygon; the face's own where none are recorded."""
        if self.origin.polygons is None:
            return np.arange(self.num_faces, dtype=np.int32)
        return self.origin.polygons

    @property
    def triangles(self) -> FloatArray:
        """(F, 3, 3) float64 corner positions, mesh frame."""
        return self.vertices[self.faces]

    @property
    def is_vertex_used(self) -> BoolArray:
        """(V,) whether a face has the vertex; bounds and frames are of these alone."""
        is_used: BoolArray = np.zeros(len(self.vertices), dtype=np.bool_)
        is_used[self.faces.ravel()] = True
        return is_used

    @property
    def used_vertices(self) -> FloatArray:
        """(U, 3) float64 positions of the vertices that faces have, in their order."""
        return self.vertices[self.is_vertex_used]


@dataclass(frozen=True, slots=True)
class OVoxel:
    """A mesh as O-Voxel: active voxels with dual vertices, edge flags and PBR attributes.

    Rows are in ascending (x, y, z) order.

    Attributes:
        grid: voxels along each axis of the unit cube.
        coords: (N, 3) int32, 0..grid-1.
        dual: (N, 3) uint8, dual vertex inside the voxel, 0..255 = 0..1.
        intersected: (N, 3) bool, far edge along x, y, z crossed by the surface.
        base_color, normal, emissive: (N, 3) uint8; metallic, roughness, alpha: (N,) uint8.
        frame: mesh -> unit.
    """

    grid: int
    coords: IntArray
    dual: ByteArray
    intersected: BoolArray
    base_color: ByteArray
    metallic: ByteArray
    roughness: ByteArray
    alpha: ByteArray
    emissive: ByteArray
    normal: ByteArray
    frame: Frame


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the model knows of one asset, computed once: O-Voxel coordinates and latents.

    Attributes:
        grid, factor: voxel grid and compression (latent grid = grid // factor).
        coords: (N, 3) int32 active voxels, ascending (x, y, z).
        latent_coords: (T, 3) int32 = unique(coords // factor), ascending.
        shape_slat, tex_slat: (T, C) float32 latents, NOT normalised.
        base_color: (N, 3) uint8, for rendering.
        condition: (L, D) float32 image tokens of the fixed view, or None.
        frame: mesh -> unit.
        checkpoint: sha256 of the checkpoint that made it.
    """

    grid: int
    factor: int
    coords: IntArray
    latent_coords: IntArray
    shape_slat: FloatArray
    tex_slat: FloatArray
    base_color: ByteArray
    frame: Frame
    checkpoint: str
    condition: FloatArray | None = None


class ClickKind(StrEnum):
    """What a reviewer's click means."""

    BELONGS = "belongs"  # this point belongs to part `part`
    NEW_PART = "new_part"  # this point belongs to a part that is not there yet
    NOT_OBJECT = "not_object"  # this point is no part of the object (support, backdrop)


@dataclass(frozen=True, slots=True)
class Click:
    """One reviewer's point on the surface.

    Attributes:
        face: index into AssetMesh.faces.
        xyz: (3,) float64, mesh frame, on that face.
        kind: its meaning.
        part: part id for BELONGS (ids of the proposal that was shown), else -1.
        group: clicks of kind NEW_PART with the same group make one new part.
        is_positive: False means "this point does NOT belong to `part`" (only with BELONGS).
    """

    face: int
    xyz: FloatArray
    kind: ClickKind = ClickKind.BELONGS
    part: int = -1
    group: int = 0
    is_positive: bool = True


@dataclass(frozen=True, slots=True)
class PartTable:
    """What is known of parts besides their faces; each column has one entry per part.

    Attributes:
        names: as reviewers gave them, "" = not named; untrusted text.
        categories: taxonomy ids, "" = none.
        color_slots: place of each part's colour in a fixed sequence of colours, -1 = not chosen.
    """

    names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    color_slots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.categories) == len(self.color_slots):
            raise ValueError(
                f"{len(self.names)} names, {len(self.categories)} categories, "
                f"{len(self.color_slots)} colour slots; a part table needs one of each per part"
            )

    @classmethod
    def plain(cls, num_parts: int) -> PartTable:
        """Parts without name and category; part k has colour k."""
        return cls(("",) * num_parts, ("",) * num_parts, tuple(range(num_parts)))

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class RefinementState:
    """What reviewers have fixed, and how part ids moved in the last round.

    Attributes:
        anchor_faces: (K,) int, ascending: faces that clicks of all rounds fixed. They keep their
            part unless they are clicked again.
        background_part: part that is no part of the object (support, backdrop), or None.
        id_map: part id before the last round -> id in this proposal. Parts that vanished are
            absent. Ids above those shown are new parts before they were renumbered.
        pieces: part id before a split -> ids of its pieces in this proposal.
    """

    anchor_faces: tuple[int, ...] = ()
    background_part: int | None = None
    id_map: Mapping[int, int] = field(default_factory=dict)
    pieces: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A full partition of one asset's faces, with how sure the model is.

    Attributes:
        face_labels: (F,) int32, dense 0..P-1, exclusive and exhaustive.
        voxel_labels: (N,) int32, the same partition on the encoding's voxels.
        part_confidence: (P,) float32, 0..1; 1 where a person clicked.
        confidence: 0..1, the IoU to be expected of a part, area-weighted mean.
        parts: names, categories and colours of the P parts; `PartTable.plain` when left out.
        refinement: what reviewers fixed; empty in a first proposal.
        checkpoint: sha256 of the checkpoint that made it, "" = none.
        num_draws: independent draws that voted, 0 = none.
        fallbacks: what could not be done as asked, e.g. "geometry_only".
        provenance: JSON-able record of how it was made, for people and audits; never read to
            decide anything.
        finer: (L, F) int32 levels below the parts, each nested in the one before, or None.
        groups: (P,) int32 dense group of each part, the level above, or None.
    """

    face_labels: IntArray
    voxel_labels: IntArray
    part_confidence: FloatArray
    confidence: float
    parts: PartTable = PartTable()
    refinement: RefinementState = field(default_factory=RefinementState)
    checkpoint: str = ""
    num_draws: int = 0
    fallbacks: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    finer: IntArray | None = None
    groups: IntArray | None = None

    def __post_init__(self) -> None:
        if self.parts.num_parts == 0:
            object.__setattr__(self, "parts", PartTable.plain(self.num_parts))
        if self.parts.num_parts != self.num_parts:
            raise ValueError(
                f"part table of {self.parts.num_parts} parts for {self.num_parts} parts; "
                "replace `parts` together with the labels"
            )

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return len(self.part_confidence)
