r"""The training set: labelled meshes, varied and voxelised, in compact npz shards.

    python -m segvigen_model.datasets.voxel_samples --out FOLDER --grid 32 --count 4000 \
        [--parts PACK]

Object i of seed s is always the same object. A shard that exists is not made again, so the
command continues where it stopped; the trainers take whatever shards are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from segvigen_model.datasets.augment import augment_mesh
from segvigen_model.datasets.fuse import sample_surface
from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.types import AssetMesh, ByteArray, IntArray, OVoxel

SHARD_OBJECTS = 100
PACK_SHARE = 0.5  # of objects come from the pack when it is there
MAX_FACES = 40_000  # of a pack object; larger ones cost more than they teach here
MAX_LABELS = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One voxelised, labelled object.

    Attributes:
        coords: (N, 3) uint8.
        dual: (N, 3) uint8, as in OVoxel.
        flags: (N, 3) bool, crossed edges.
        attributes: (N, 6) uint8: base colour, metallic, roughness, alpha.
        labels: (N,) uint8, dense.
    """

    coords: ByteArray
    dual: ByteArray
    flags: np.ndarray[Any, np.dtype[np.bool_]]
    attributes: ByteArray
    labels: ByteArray


def load_holdout() -> dict[str, Any]:
    """Sources and categories that training never sees."""
    text = resources.files("segvigen_model.datasets").joinpath("holdout.json").read_text()
    table: dict[str, Any] = json.loads(text)
    return table


def is_held_out(row: dict[str, Any]) -> bool:
    """Whether a manifest row is never trained on: by its own `split`, else source or category."""
    if "split" in row:
        return bool(row["split"] == "heldout")
    table = load_holdout()
    source = str(row["source_repo"])
    return source.startswith(tuple(table["sources"])) or row["category"] in table["pack_categories"]


def is_validation(row: dict[str, Any]) -> bool:
    """Whether a row that is not held out is kept for choosing the best weights."""
    if "split" in row:
        return bool(row["split"] == "validation")
    share = zlib.crc32(str(row["id"]).encode()) / 2**32
    return share < float(load_holdout()["validation_share"])


def read_pack_rows(folder: Path, *, split: str) -> list[dict[str, Any]]:
    """Manifest rows of one split: "train", "validation" or "heldout"."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    if split == "heldout":
        return [row for row in rows if is_held_out(row)]
    wanted = split == "validation"
    return [row for row in rows if not is_held_out(row) and is_validation(row) == wanted]


def list_procedural_categories(*, split: str) -> tuple[str, ...]:
    """Categories of one split."""
    held = set(load_holdout()["procedural_categories"])
    return tuple(c for c in CATEGORIES if (c in held) == (split == "heldout"))


def load_labelled(
    folder: Path, row: dict[str, Any], labels: str = "face_inst"
) -> tuple[AssetMesh, IntArray]:
    """Load one object of a labelled folder.

    Args:
        folder: holds `manifest.jsonl`.
        row: one manifest row.
        labels: "face_inst" or "face_part".

    Returns:
        The mesh and its (F,) int32 labels.
    """
    mesh = mesh_from_bytes((folder / row["glb"]).read_bytes(), ".glb")
    with np.load(folder / row["parts"], allow_pickle=False) as arrays:
        face_labels = arrays[labels].astype(np.int32)
    if len(face_labels) != mesh.num_faces:
        raise SegvigenError(
            f"{row['id']}: {len(face_labels)} labels for {mesh.num_faces} faces; "
            "labels must follow the file's face order"
        )
    return mesh, face_labels


def voxelise(mesh: AssetMesh, face_labels: IntArray, grid: int, seed: int = 0) -> Sample:
    """Voxelise a labelled mesh; a voxel takes the label of the nearest surface sample.

    Args:
        mesh: mesh frame.
        face_labels: (F,) int.
        grid: voxels along each axis.
        seed: of the surface samples.

    Returns:
        The sample, labels dense in order of id.
    """
    voxels = mesh_to_ovoxel(mesh, grid)
    points, faces = sample_surface(mesh.triangles, 8 * grid * grid, np.random.default_rng(seed))
    points = (points - voxels.frame.center) * voxels.frame.scale
    centers = (voxels.coords + voxels.dual / 255.0) / grid - 0.5
    labels = face_labels[faces[cKDTree(points).query(centers)[1]]]
    dense = np.minimum(np.unique(labels, return_inverse=True)[1], MAX_LABELS - 1)
    return Sample(
        coords=voxels.coords.astype(np.uint8),
        dual=voxels.dual,
        flags=voxels.intersected,
        attributes=stack_voxel_attributes(voxels),
        labels=dense.astype(np.uint8),
    )


def stack_voxel_attributes(voxels: OVoxel) -> ByteArray:
    """(N, 6) uint8 base colour, metallic, roughness, alpha."""
    rest = np.stack([voxels.metallic, voxels.roughness, voxels.alpha], axis=1)
    return np.concatenate([voxels.base_color, rest], axis=1).astype(np.uint8)


@lru_cache(maxsize=2000)
def load_cached_object(folder: Path, index: int, split: str) -> tuple[AssetMesh, IntArray] | None:
    """Load pack object `index` of a split once; None when it is too large."""
    row = load_cached_rows(folder, split)[index]
    if row["n_faces"] > MAX_FACES:
        return None
    return load_labelled(folder, row)


@lru_cache(maxsize=4)
def load_cached_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Manifest rows of a split, read once."""
    return read_pack_rows(folder, split=split)


def make_sample(index: int, seed: int, grid: int, parts: Path | None, split: str) -> Sample | None:
    """Make object `index` of the training set; None when the draw cannot be used."""
    rng = np.random.default_rng([zlib.crc32(split.encode()), seed, index])
    if parts is not None and rng.random() < PACK_SHARE:
        loaded = load_cached_object(
            parts, int(rng.integers(len(load_cached_rows(parts, split)))), split
        )
        if loaded is None:
            return None
        mesh, labels = loaded
    else:
        categories = list_procedural_categories(split="train")
        number = int(rng.integers(1 << 20)) * 2 + (split == "validation")
        made = make_asset(str(rng.choice(categories)), number)
        mesh, labels = made.mesh, made.face_labels
    mesh, labels = augment_mesh(mesh, labels, rng, fuse_grid=2 * grid)
    sample = voxelise(mesh, labels, grid, seed=index)
    return sample if sample.labels.max() > 0 else None


def save_shard(path: Path, samples: list[Sample]) -> None:
    """Write samples as one npz; complete or absent."""
    arrays = {
        "sizes": np.array([len(s.coords) for s in samples]),
        "coords": np.concatenate([s.coords for s in samples]),
        "dual": np.concatenate([s.dual for s in samples]),
        "flags": np.packbits(np.concatenate([s.flags for s in samples]), axis=1),
        "attributes": np.concatenate([s.attributes for s in samples]),
        "labels": np.concatenate([s.labels for s in samples]),
    }
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.rename(path)


def load_shard(path: Path) -> list[Sample]:
    """Read a shard back."""
    with np.load(path, allow_pickle=False) as arrays:
        cuts = np.cumsum(arrays["sizes"])[:-1]
        flags = np.unpackbits(arrays["flags"], axis=1, count=3).astype(bool)
        names = ("coords", "dual", "attributes", "labels")
        columns = {name: np.split(arrays[name], cuts) for name in names}
    columns["flags"] = np.split(flags, cuts)
    return [
        Sample(**{name: column[i] for name, column in columns.items()})
        for i in range(len(cuts) + 1)
    ]


def list_shards(folder: Path, split: str) -> list[Path]:
    """Finished shards of a split, in order."""
    return sorted(p for p in folder.glob(f"{split}-*.npz") if "partial" not in p.name)


def make_samples(
    indices: range, seed: int, grid: int, parts: Path | None, split: str
) -> Iterator[Sample]:
    """Make the usable samples of a range; a refused mesh is logged and left out."""
    for index in indices:
        try:
            sample = make_sample(index, seed, grid, parts, split)
        except SegvigenError as err:
            log.warning("sample=%d refused=%s", index, err)
            continue
        if sample is not None:
            yield sample


# The options of the program; all but the folder by name.
def build_shards(
    out: Path, *, grid: int, count: int, parts: Path | None, seed: int, split: str
) -> None:
    """Make all missing shards of a split."""
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, SHARD_OBJECTS)
    for start in tqdm(starts, desc=f"{split} shards", unit="shard"):
        path = out / f"{split}-{start // SHARD_OBJECTS:05d}.npz"
        if not path.exists():
            indices = range(start, min(start + SHARD_OBJECTS, count))
            save_shard(path, list(make_samples(indices, seed, grid, parts, split)))
    note = {"grid": grid, "seed": seed, "parts": parts is not None}
    (out / "data.json").write_text(json.dumps(note))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", type=Path, help="labelled pack folder; procedural only without")
    parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--validation", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    common = {"grid": args.grid, "parts": args.parts, "seed": args.seed}
    build_shards(args.out, count=args.validation, split="validation", **common)
    build_shards(args.out, count=args.count, split="train", **common)


if __name__ == "__main__":
    main()
