"""O-Voxel against the official converter: voxels, flags, duals, attributes, meshes, .vxz files.

Coordinates, flags, faces and files must be equal; dual vertices agree within 2/255 with the
official float32 or float64 build in all but 0.5 % of rows (float32 noise there, not here);
attributes within one step of 255, but for the few voxels where an alpha cut-off falls between
two roundings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segvigen_model.ovoxel import vxz
from segvigen_model.ovoxel.attributes import Surface
from segvigen_model.ovoxel.convert import quantise, to_voxel_units, voxelise
from segvigen_model.ovoxel.mesh import Split, dual_grid_to_mesh
from segvigen_model.ovoxel.on_device import convert as on_device
from segvigen_model.ovoxel.voxel_set import VoxelAttributes
from segvigen_model.ovoxel.vxz_order import encode_morton
from segvigen_model.parity.golden import find_grid
from segvigen_model.parity.row import ParityRow, compare_each, make_left_out_row, make_row
from segvigen_model.types import ByteArray, IntArray, Material

DUAL_STEPS = 2  # of 255
DUAL_SHARE = 0.005  # rows that may be further off, see the module's first lines
CUTOFF_SHARE = 0.001  # rows whose alpha may fall on the other side of a cut-off
VERTEX_TOLERANCE = 1e-7
ATTRIBUTES = ("base_color", "metallic", "roughness", "emissive", "alpha", "normal")
TEXTURE_KEYS = (
    ("base_color_texture", "baseColorTexture", "RGBA"),
    ("metallic_roughness_texture", "metallicRoughnessTexture", "RGB"),
    ("emissive_texture", "emissiveTexture", "RGB"),
    ("normal_texture", "normalTexture", "RGB"),
)
Converter = Callable[[Surface, IntArray, tuple[Material, ...], int], VoxelAttributes]
BITS = np.array([1, 2, 4], dtype=np.uint8)


def compare_ovoxel(
    folder: Path, converters: Mapping[str, Converter] | None = None
) -> list[ParityRow]:
    """Compare with one golden folder: converter outputs, mesh extraction or shipped files.

    Args:
        folder: the golden set.
        converters: what converts meshes, by the mark on its rows; by default the compiled
            kernels, and torch on CUDA where there is one.
    """
    chosen = list_converters() if converters is None else converters

    def parts() -> Iterator[tuple[str, Callable[[], Iterable[ParityRow]]]]:
        for path in sorted(folder.glob("*_input.npz")):
            name = path.name.removesuffix("_input.npz")
            for mark, converter in chosen.items():
                yield f"{name}{mark}", partial(_compare_mesh, folder, name, mark, converter)
        if (folder / "vxz").is_dir():
            yield "vxz", partial(_compare_files, folder / "vxz", folder.name)
        if (folder / "inputs.npz").is_file():
            yield "extraction", partial(_compare_extraction, folder)
        if (folder / "vxz_hashes.json").is_file():
            yield "shipped files", partial(_compare_shipped_files, folder)

    return compare_each(folder.name, parts())


def list_converters() -> dict[str, Converter]:
    """Return the conversions that this machine can run, by mark."""
    if not torch.cuda.is_available():
        return {"": voxelise}
    return {"": voxelise, " [cuda]": partial(on_device.voxelise, device=torch.device("cuda"))}


def _compare_mesh(folder: Path, name: str, mark: str, converter: Converter) -> Iterator[ParityRow]:
    with np.load(folder / f"{name}_input.npz", allow_pickle=False) as archive:
        given = {key: archive[key] for key in archive.files}
    stems = [path.stem.removeprefix(f"{name}_") for path in folder.glob(f"{name}_*.npz")]
    grids = sorted(int(stem) for stem in stems if stem.isdigit())
    hashes = _read_hashes(folder, name)
    materials = tuple(_read_materials(folder, name, given))
    faces = given["fdg_faces"].astype(np.int64)
    for grid in sorted({*grids, *hashes}):
        label = f"{folder.name}/{name}_{grid}{mark}"
        surface = _build_surface(given, _read_triangles(given, grid))
        found = converter(surface, faces, materials or (Material(),), grid)
        if grid in hashes:
            yield make_row(f"{label} hashes", _count_hash_errors(found, hashes[grid]), 0)
        if grid not in grids:
            continue
        with np.load(folder / f"{name}_{grid}.npz", allow_pickle=False) as archive:
            wanted = _sort_rows({key: archive[key] for key in archive.files})
        num_wrong = _count_voxel_errors(found.coords, wanted["coords"])
        yield make_row(f"{label} voxels", num_wrong, 0)
        if num_wrong == 0:
            yield from _compare_values(label, wanted, found, materials)


def _compare_values(
    label: str,
    wanted: Mapping[str, NDArray[Any]],
    found: VoxelAttributes,
    materials: tuple[Material, ...],
) -> Iterator[ParityRow]:
    bits = (found.intersected * BITS).sum(axis=1)
    yield make_row(f"{label} flags", np.count_nonzero(bits != wanted["intersected"].reshape(-1)), 0)
    if "dual_u8" in wanted:
        yield make_row(
            f"{label} duals (share off)", _compute_dual_share(found.dual, wanted), DUAL_SHARE
        )
    if not materials:
        yield make_left_out_row(
            f"{label} attributes", "no materials in index.json or beside the mesh"
        )
        return
    is_cut = any(material.alpha_mode == "MASK" for material in materials)
    for key in ATTRIBUTES:
        if key not in wanted:
            yield make_left_out_row(f"{label} {key}", "not in this set")
            continue
        values = found.attributes[key].reshape(wanted[key].shape)
        steps = np.abs(values.astype(int) - wanted[key].astype(int))
        if key == "alpha" and is_cut:
            yield make_row(f"{label} alpha (share off)", float((steps > 1).mean()), CUTOFF_SHARE)
        else:
            yield make_row(f"{label} {key}", steps.max(initial=0) / 255.0, 1.0 / 255.0)


def _read_triangles(given: Mapping[str, NDArray[Any]], grid: int) -> NDArray[np.float64]:
    corners = to_voxel_units(given["fdg_vertices"].astype(np.float32), grid)[given["fdg_faces"]]
    return np.ascontiguousarray(corners, dtype=np.float64)


def _build_surface(given: Mapping[str, NDArray[Any]], triangles: NDArray[np.float64]) -> Surface:
    uvs = given["uvs"].astype(np.float32)
    uvs = np.stack([uvs[..., 0], np.float32(1.0) - uvs[..., 1]], axis=-1)  # stored with v up
    return Surface(
        triangles=triangles,
        normals=np.ascontiguousarray(given["normals"], dtype=np.float32),
        uvs=uvs,
        colors=np.ones((1, 3, 4), dtype=np.float32),
        material=given["material_ids"].astype(np.int32),
    )


def _sort_rows(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    order = np.lexsort(arrays["coords"].T[::-1])
    return {key: values[order] for key, values in arrays.items()}


def _count_voxel_errors(found: IntArray, wanted: IntArray) -> int:
    return len(np.setxor1d(encode_morton(found), encode_morton(wanted)))


def _compute_dual_share(dual: NDArray[Any], wanted: Mapping[str, NDArray[Any]]) -> float:
    steps = quantise(dual).astype(int)
    off = np.abs(steps - wanted["dual_u8"].astype(int)).max(axis=1)
    if "dual_f64frac" in wanted:
        off = np.minimum(off, np.abs(dual - wanted["dual_f64frac"]).max(axis=1) * 255.0)
    return float((off > DUAL_STEPS).mean())


def _read_index(folder: Path) -> Mapping[str, Any]:
    path = folder / "index.json"
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _read_hashes(folder: Path, name: str) -> dict[int, Mapping[str, Any]]:
    grids = _read_index(folder).get(name, {}).get("grids", {})
    return {int(grid): entry for grid, entry in grids.items() if "sha_coords_int32" in entry}


def _count_hash_errors(found: VoxelAttributes, entry: Mapping[str, Any]) -> int:
    """Number of hashes that differ: rows in Morton order, first 16 digits of sha256."""
    order = np.argsort(encode_morton(found.coords))
    coords = found.coords[order].astype(np.int32)
    bits = (found.intersected[order] * BITS).sum(axis=1, dtype=np.uint8)
    return int(_hash_values(coords) != entry["sha_coords_int32"]) + int(
        _hash_values(bits) != entry["sha_intersected_u8"]
    )


def _hash_values(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def _read_material_specs(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}_materials.json"
    if path.is_file():
        specs: list[dict[str, Any]] = json.loads(path.read_text())
        return specs
    known: list[dict[str, Any]] = _read_index(folder).get(name, {}).get("materials", [])
    return known


def _read_materials(
    folder: Path, name: str, given: Mapping[str, NDArray[Any]]
) -> Iterator[Material]:
    specs = _read_material_specs(folder, name)
    for number, spec in enumerate(specs):
        known = {key: value for key, value in spec.items() if value is not None}
        textures: dict[str, Any] = {}
        for field, key, mode in TEXTURE_KEYS:
            if f"mat{number}_{key}" in given:
                textures[field] = given[f"mat{number}_{key}"]
            elif isinstance(known.get(key), str):
                textures[field] = _read_texture(folder / f"{name}_tex" / known[key], mode)
        red, green, blue, alpha = known.get("baseColorFactor", (255, 255, 255, 255))
        glow = known.get("emissiveFactor", (0.0, 0.0, 0.0))
        yield Material(
            base_color_factor=(red / 255, green / 255, blue / 255, alpha / 255),
            metallic_factor=known.get("metallicFactor", 1.0),
            roughness_factor=known.get("roughnessFactor", 1.0),
            emissive_factor=(glow[0], glow[1], glow[2]),
            alpha_mode=known.get("alphaMode", "OPAQUE"),
            alpha_cutoff=known.get("alphaCutoff", 0.5),
            **textures,
        )


@cache
def _read_texture(path: Path, mode: str) -> ByteArray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode), dtype=np.uint8)


def _compare_files(folder: Path, label: str) -> Iterator[ParityRow]:
    """Each tiny file is read, compared with the plain npz, written again and read back."""
    plainly = sorted(folder.glob("*.npz"))
    if not plainly:
        yield make_left_out_row(f"{label}/vxz", "no npz with the plain arrays")
        return
    with np.load(plainly[0], allow_pickle=False) as archive:
        plain = {key: archive[key] for key in archive.files}
    plain["coords"] = plain.pop("coord").astype(np.int64)
    wanted = _sort_rows(plain)
    for path in sorted(folder.glob("f_*.vxz")):
        yield make_row(f"{label}/vxz/{path.stem}", _count_file_errors(path, wanted), 0)


def _count_file_errors(path: Path, wanted: Mapping[str, NDArray[Any]]) -> int:
    data = path.read_bytes()
    content = vxz.read_vxz(data)
    wrong = _count_differences(content, wanted)
    _, filter_name, compression, interleave = path.stem.split("_", 3)
    again = vxz.write_vxz(
        content.coords,
        content.attributes,
        chunk_size=_read_chunk_size(data),
        filter_name=filter_name,
        compression=compression,
        interleave=interleave,
    )
    # Compressors change from version to version, the bytes before them do not.
    wrong += int(compression == "none" and again != data)
    return wrong + _count_differences(vxz.read_vxz(again), wanted)


def _count_differences(content: vxz.VxzFile, wanted: Mapping[str, NDArray[Any]]) -> int:
    found = _sort_rows({"coords": content.coords, **content.attributes})
    return int(found.keys() != wanted.keys()) + sum(
        not np.array_equal(found[key], wanted[key]) for key in found.keys() & wanted.keys()
    )


def _read_chunk_size(data: bytes) -> int:
    header = json.loads(data[8 : int.from_bytes(data[4:8], "big")])
    return int(header["chunk_size"])


def _compare_extraction(folder: Path) -> Iterator[ParityRow]:
    with np.load(folder / "inputs.npz", allow_pickle=False) as archive:
        weights = {key.removesuffix("_split"): archive[key] for key in archive.files}
    with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
        wanted = {key: archive[key] for key in archive.files}
    for name, weight in weights.items():
        source, grid = find_grid(folder, name, len(weight))
        with np.load(source, allow_pickle=False) as archive:
            coords = archive["coords"].astype(np.int64)
            dual = archive["dual_u8"].astype(np.float32) / np.float32(255.0)
            flags = (archive["intersected"].reshape(-1, 1) & BITS) > 0
        label = f"{folder.name}/{name}"
        for split, key in ((Split.FIXED, "angle"), (Split.WEIGHT, "split"), (Split.TRAIN, "train")):
            vertices, faces = dual_grid_to_mesh(coords, dual, flags, grid, weight, split)
            goal = wanted.get(f"{name}_{key}_f")
            if goal is None:
                yield make_left_out_row(f"{label} {key} faces", "not in this set")
                continue
            is_same = faces.shape == goal.shape and np.array_equal(faces, goal)
            yield make_row(f"{label} {key} faces", 0.0 if is_same else np.inf, 0)
            if f"{name}_{key}_v" in wanted:
                points = wanted[f"{name}_{key}_v"]
                # The training split stores the added mid vertices only.
                error = np.abs(vertices[-len(points) :] - points).max()
                yield make_row(f"{label} {key} vertices", error, VERTEX_TOLERANCE)


def _compare_shipped_files(folder: Path) -> Iterator[ParityRow]:
    """The authors' own files, where they lie beside the hashes."""
    files = json.loads((folder / "vxz_hashes.json").read_text())["files"]
    for name, hashes in files.items():
        if not (folder / name).is_file():
            yield make_left_out_row(f"{folder.name}/{name}", "file not here")
            continue
        content = vxz.read_vxz((folder / name).read_bytes())
        wrong = int(len(content.coords) != hashes["n"])
        wrong += int(_hash_values(content.coords) != hashes["coords_int32"])
        wrong += sum(
            _hash_values(values) != hashes[key]
            for key, values in content.attributes.items()
            if key in hashes
        )
        yield make_row(f"{folder.name}/{name}", wrong, 0)
