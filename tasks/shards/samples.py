"""One training sample: everything SegviGen learns from one asset, as members of a tar.

voxels.npz (voxels, latents) · labels.npz (the label set: instance and semantic ids, levels) ·
interactive.npz (one mask per part) ·
full.npz (palettes and colourings) · guided.npz + guide<i>.png (2D part maps and their colourings) ·
rounds.npz + clicks.json (what the reviewer saw and clicked) · provenance.json.
Arrays are stored uncompressed: the same labels give the same bytes with any zlib.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from segvigen_model.archives import parse_json, read_npz, take_array, take_ids
from segvigen_model.coords import mesh_to_unit, unit_to_grid
from segvigen_model.errors import CorruptBlob
from segvigen_model.mesh.source_parts import SourceNames
from segvigen_model.partition.hierarchy import PartTree
from segvigen_model.serialization import MAX_GRID
from segvigen_model.slat_flow.palette import draw_separated_palette, paint_labels
from segvigen_model.types import AssetMesh, BoolArray, ByteArray, Encoding, FloatArray, IntArray
from tasks.labelling.label_sets import (
    LabelSet,
    check_partition,
    read_part_tree,
    read_source_names,
)
from tasks.labelling.taxonomy import Taxonomy
from tasks.rendering.part_map import guide_cameras, render_part_map
from tasks.settings import ShardSettings
from tasks.storage.canonical import json_document

SAMPLE_SCHEMA = "segvigen-sample/2"  # /1 had no categories and no levels; it is still read
MAX_GUIDE_PIXELS = 2048  # a side, as the settings allow
_SAMPLE = "a sample"
_MEMBERS = (
    *("voxels.npz", "labels.npz", "interactive.npz", "full.npz", "guided.npz", "rounds.npz"),
    *("clicks.json", "provenance.json"),
)
MASK_COLORS = ((0, 0, 0), (255, 255, 255))  # interactive target: part white, rest black (paper)


@dataclass(frozen=True, slots=True)
class SampleSource:
    """What a sample is made of.

    Attributes:
        voxel_labels: (N,) int32, the accepted partition on the encoding's voxels.
        shown: per round, (N,) int32 labels that the reviewer saw.
        taxonomy: gives semantic ids, or None.
    """

    asset_id: str
    mesh: AssetMesh
    encoding: Encoding
    label_set: LabelSet
    voxel_labels: IntArray
    shown: tuple[IntArray, ...]
    taxonomy: Taxonomy | None = None


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A sample as read back.

    Attributes:
        coords: (N, 3) int32; latent_coords: (T, 3) int32; shape_slat, tex_slat: (T, C) float32.
        voxel_labels: (N,) int32; face_labels: (F,) int32: instance ids 0..P-1.
        part_names: P names; part_categories: P taxonomy ids, "" = none.
        part_semantics: (P,) int32 semantic id = index in the manifest's taxonomy, -1 = none.
        tree: coarse and fine levels of the faces.
        source_names: object, group and material that each part mostly was in the source file;
            None in samples of before.
        part_masks: (P, N) bool, interactive targets.
        palettes: (K, P, 3) uint8; full_colors: (K, N, 3) uint8, full-mode targets.
        guide_maps: (G, S, S, 3) uint8; guided_colors: (G, N, 3) uint8, guided targets.
        shown: (R, N) int32 labels the reviewer saw, per round.
        clicks: real clicks, each with its round and `voxel` (3 grid coordinates).
        decided_by: who accepted the labels: a reviewer's name or "gate".
        provenance: of the label set.
    """

    grid: int
    factor: int
    coords: IntArray
    latent_coords: IntArray
    shape_slat: FloatArray
    tex_slat: FloatArray
    base_color: ByteArray
    voxel_labels: IntArray
    face_labels: IntArray
    part_names: tuple[str, ...]
    not_object_part: int
    part_masks: BoolArray
    palettes: ByteArray
    full_colors: ByteArray
    guide_maps: ByteArray
    guided_colors: ByteArray
    shown: IntArray
    clicks: tuple[Mapping[str, Any], ...]
    decided_by: str
    provenance: Mapping[str, Any]
    part_categories: tuple[str, ...]
    part_semantics: IntArray
    tree: PartTree
    source_names: SourceNames | None = None

    @property
    def face_semantics(self) -> IntArray:
        """(F,) int32 semantic id of each face, -1 = none."""
        semantics: IntArray = self.part_semantics[self.face_labels]
        return semantics

    @property
    def voxel_semantics(self) -> IntArray:
        """(N,) int32 semantic id of each voxel, -1 = none."""
        semantics: IntArray = self.part_semantics[self.voxel_labels]
        return semantics


def build_sample_members(source: SampleSource, settings: ShardSettings) -> dict[str, bytes]:
    """Build a sample: member name (without the asset id) -> bytes; deterministic."""
    return {
        "voxels.npz": _encode_npz(**_encode_voxels(source.encoding)),
        "labels.npz": _encode_npz(**_encode_labels(source)),
        "interactive.npz": _encode_npz(**_encode_interactive(source)),
        "full.npz": _encode_npz(**_encode_full(source, settings.num_palettes)),
        **_encode_guided(source, settings),
        "rounds.npz": _encode_npz(shown=_stack_arrays(source.shown, source.voxel_labels)),
        "clicks.json": json_document(_encode_clicks(source)),
        "provenance.json": json_document(source.label_set.provenance),
    }


def decode_sample(members: Mapping[str, bytes]) -> TrainingSample:
    """Turn a sample's members back into arrays.

    Raises:
        CorruptBlob, BadLabels: a member is absent or damaged, or members do not fit together.
    """
    lacking = [name for name in _MEMBERS if name not in members]
    if lacking:
        raise CorruptBlob(f"a sample lacks {', '.join(lacking)}")
    provenance = parse_json(members["provenance.json"], "the provenance of a sample")
    clicks = parse_json(members["clicks.json"], "the clicks of a sample")
    if not isinstance(provenance, dict) or not isinstance(clicks, list):
        raise CorruptBlob("a sample's provenance is no object, or its clicks are no list")
    voxels = _decode_voxels(members["voxels.npz"])
    num_voxels = len(voxels["coords"])
    labels = _decode_labels(members["labels.npz"], num_voxels)
    num_parts = len(labels["part_names"])
    rounds = read_npz(members["rounds.npz"], _SAMPLE)
    shown = take_array(rounds, "shown", "iu", (None, num_voxels), _SAMPLE)
    return TrainingSample(
        **voxels,
        **labels,
        **_decode_targets(members, num_parts, num_voxels),
        shown=shown.astype(np.int32),
        clicks=tuple(clicks),
        decided_by=str(provenance.get("decided_by", "")),
        provenance=provenance,
    )


def _decode_voxels(data: bytes) -> dict[str, Any]:
    held = read_npz(data, _SAMPLE)
    grid = int(take_ids(held, "grid", (), (1, MAX_GRID + 1), _SAMPLE))
    factor = int(take_ids(held, "factor", (), (1, MAX_GRID + 1), _SAMPLE))
    coords = take_ids(held, "coords", (None, 3), (0, grid), _SAMPLE)
    latent = take_ids(held, "latent_coords", (None, 3), (0, grid // factor + 1), _SAMPLE)
    return {
        "grid": grid,
        "factor": factor,
        "coords": coords.astype(np.int32),
        "latent_coords": latent.astype(np.int32),
        "shape_slat": take_array(held, "shape_slat", "f", (len(latent), None), _SAMPLE),
        "tex_slat": take_array(held, "tex_slat", "f", (len(latent), None), _SAMPLE),
        "base_color": take_array(held, "base_color", "u", (len(coords), 3), _SAMPLE),
    }


def _decode_labels(data: bytes, num_voxels: int) -> dict[str, Any]:
    """Labels, names, categories and levels; a sample of schema 1 has neither of the last two."""
    held = read_npz(data, _SAMPLE)
    names = take_array(held, "part_names", "U", (None,), _SAMPLE)
    num_parts = len(names)
    parts = (0, max(num_parts, 1))
    faces = take_ids(held, "face_labels", (None,), parts, _SAMPLE).astype(np.int32)
    check_partition(faces, len(faces), num_parts)
    categories = ("",) * num_parts
    semantics: IntArray = np.full(num_parts, -1, np.int32)
    if "levels" in held:
        stored = take_array(held, "part_categories", "U", (num_parts,), _SAMPLE)
        categories = tuple(map(str, stored))
        semantics = take_ids(held, "part_semantics", (num_parts,), (-1, 2**31), _SAMPLE)
    voxels = take_ids(held, "voxel_labels", (num_voxels,), parts, _SAMPLE)
    return {
        "voxel_labels": voxels.astype(np.int32),
        "face_labels": faces,
        "part_names": tuple(map(str, names)),
        "not_object_part": int(take_ids(held, "not_object_part", (), (-1, num_parts), _SAMPLE)),
        "part_categories": categories,
        "part_semantics": semantics,
        "tree": read_part_tree(held, faces, _SAMPLE),
        "source_names": read_source_names(held, num_parts, _SAMPLE),
    }


def _decode_targets(
    members: Mapping[str, bytes], num_parts: int, num_voxels: int
) -> dict[str, Any]:
    """What the three modes of the model are trained to paint."""
    interactive = read_npz(members["interactive.npz"], _SAMPLE)
    full, guided = read_npz(members["full.npz"], _SAMPLE), read_npz(members["guided.npz"], _SAMPLE)
    guides = sorted(name for name in members if name.startswith("guide") and name.endswith(".png"))
    packed = take_array(interactive, "masks", "u", (num_parts, -(-num_voxels // 8)), _SAMPLE)
    palettes = take_array(full, "palettes", "u", (None, num_parts, 3), _SAMPLE)
    colors = take_array(full, "colors", "u", (len(palettes), num_voxels, 3), _SAMPLE)
    return {
        "part_masks": np.unpackbits(packed, axis=1, count=num_voxels).astype(bool),
        "palettes": palettes,
        "full_colors": colors,
        "guide_maps": _stack_guides([members[name] for name in guides]),
        "guided_colors": take_array(guided, "colors", "u", (len(guides), num_voxels, 3), _SAMPLE),
    }


def _stack_guides(pictures: Sequence[bytes]) -> ByteArray:
    """(G, S, S, 3) uint8 of PNGs, whose sizes are checked before they are unpacked."""
    maps = []
    for data in pictures:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                if max(picture.size) > MAX_GUIDE_PIXELS or picture.mode != "RGB":
                    raise ValueError(f"{picture.mode} of {picture.size} pixels")
                maps.append(np.asarray(picture))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, zlib.error) as err:
            raise CorruptBlob(f"a guide map of a sample is damaged: {err}") from err
    if not maps or len({each.shape for each in maps}) > 1:
        raise CorruptBlob(f"a sample has {len(maps)} guide maps, or maps of different sizes")
    return np.stack(maps)


def _encode_voxels(encoding: Encoding) -> dict[str, Any]:
    return {
        "grid": np.array(encoding.grid, np.int32),
        "factor": np.array(encoding.factor, np.int32),
        "coords": encoding.coords.astype(np.int16),
        "latent_coords": encoding.latent_coords.astype(np.int16),
        "shape_slat": encoding.shape_slat.astype(np.float32),
        "tex_slat": encoding.tex_slat.astype(np.float32),
        "base_color": encoding.base_color.astype(np.uint8),
        "frame_center": np.asarray(encoding.frame.center, np.float64),
        "frame_scale": np.array(encoding.frame.scale, np.float64),
    }


def _encode_labels(source: SampleSource) -> dict[str, Any]:
    labels = source.label_set
    return {
        "voxel_labels": _shrink_dtype(source.voxel_labels),
        "face_labels": _shrink_dtype(labels.face_labels),
        "part_names": np.array(labels.part_names),
        "not_object_part": np.array(labels.not_object_part, np.int32),
        "part_categories": np.array(labels.part_categories, np.str_),
        "part_semantics": _map_categories(labels.part_categories, source.taxonomy),
        "levels": _shrink_dtype(labels.tree.levels),
        "level_offsets": labels.tree.offsets.astype(np.int32),
        "parents": labels.tree.parents.astype(np.int32),
        "part_level": np.array(labels.tree.part_level, np.int32),
        **_encode_source_names(labels.source_names),
    }


def _encode_source_names(names: SourceNames | None) -> dict[str, Any]:
    """What the parts were in the source file; a label set of before does not know."""
    if names is None:
        return {}
    return {f"part_{kind}": np.array(column, np.str_) for kind, column in asdict(names).items()}


def _map_categories(categories: tuple[str, ...], taxonomy: Taxonomy | None) -> IntArray:
    """(P,) int32 place of each category in the taxonomy, -1 where it has none."""
    ids = [-1 if taxonomy is None else taxonomy.find_index(each) for each in categories]
    return np.array(ids, np.int32)


def _encode_interactive(source: SampleSource) -> dict[str, Any]:
    parts = np.arange(len(source.label_set.part_names))
    masks = source.voxel_labels[None, :] == parts[:, None]
    return {
        "parts": parts.astype(np.int32),
        "masks": np.packbits(masks, axis=1),
        "colors": np.array(MASK_COLORS, np.uint8),
    }


def _encode_full(source: SampleSource, num_palettes: int) -> dict[str, Any]:
    palettes = np.stack([_make_palette(source, f"full{i}") for i in range(num_palettes)])
    colors = np.stack([paint_labels(source.voxel_labels, palette) for palette in palettes])
    return {"palettes": palettes, "colors": colors}


def _encode_guided(source: SampleSource, settings: ShardSettings) -> dict[str, bytes]:
    unit = mesh_to_unit(source.mesh.triangles.reshape(-1, 3), source.encoding.frame)
    triangles = np.asarray(unit).reshape(-1, 3, 3)
    cameras = guide_cameras(settings.num_guide_views)
    palettes = np.stack([_make_guide_palette(source, i) for i in range(len(cameras))])
    members: dict[str, bytes] = {}
    for number, (camera, palette) in enumerate(zip(cameras, palettes, strict=True)):
        colors = palette[source.label_set.face_labels]
        picture = render_part_map(triangles, colors, camera, settings.guide_pixels)
        members[f"guide{number:02d}.png"] = _encode_png(picture)
    colors = np.stack([paint_labels(source.voxel_labels, palette) for palette in palettes])
    angles = np.array([[c.azimuth_deg, c.elevation_deg] for c in cameras])
    lens = np.array([cameras[0].distance, cameras[0].field_of_view_deg])
    members["guided.npz"] = _encode_npz(
        palettes=palettes, colors=colors, angles_deg=angles, lens=lens
    )
    return members


def _make_guide_palette(source: SampleSource, number: int) -> ByteArray:
    """A palette without its darkest colour: black is the background of a map."""
    palette = _make_palette(source, f"guided{number}", num_spare=1)
    is_kept = np.arange(len(palette)) != palette.astype(int).sum(axis=1).argmin()
    kept: ByteArray = palette[is_kept]
    return kept


def _make_palette(source: SampleSource, purpose: str, num_spare: int = 0) -> ByteArray:
    """A palette that depends on the asset and the purpose only."""
    digest = hashlib.sha256(f"{source.asset_id}:{purpose}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return draw_separated_palette(len(source.label_set.part_names) + num_spare, rng)


def _encode_clicks(source: SampleSource) -> list[dict[str, Any]]:
    given = source.label_set.clicks
    if not given:
        return []
    frame, grid = source.encoding.frame, source.encoding.grid
    xyz = np.array([click["xyz"] for click in given], np.float64)
    voxels = unit_to_grid(mesh_to_unit(xyz, frame), grid)
    return [
        {**click, "voxel": [int(v) for v in voxel]}
        for click, voxel in zip(given, voxels, strict=True)
    ]


def _stack_arrays(shown: tuple[IntArray, ...], like: IntArray) -> IntArray:
    return _shrink_dtype(np.stack(shown)) if shown else np.zeros((0, len(like)), np.uint8)


def _shrink_dtype(labels: IntArray) -> IntArray:
    """The smallest unsigned type that holds the ids."""
    return labels.astype(np.min_scalar_type(int(labels.max(initial=0))))


def _encode_npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _encode_png(picture: ByteArray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", compress_level=6)
    return buffer.getvalue()
