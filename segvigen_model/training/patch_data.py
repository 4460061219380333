"""Labelled objects as patches, in compact npz shards: what the patch network learns from.

    python -m segvigen_model.training.patch_data --out FOLDER --files 0 100 [--parts PACK]

With `--crops N` every object is followed by N crops of it (crops.py), as clicks on a random
part would have them. Object i of seed s is always the same object. A shard that exists is not made
again, so the command continues where it stopped, and several processes may make different shards.
"""

from __future__ import annotations

import argparse
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from segvigen_model.config import SegmenterConfig
from segvigen_model.datasets.augment import draw_pose, keep_few_parts, pose_mesh
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.voxel_samples import (
    list_procedural_categories,
    load_cached_object,
    load_cached_rows,
)
from segvigen_model.errors import SegvigenError
from segvigen_model.interactive.crops import compute_geodesic_distances, select_nearest_faces
from segvigen_model.surface.adjacency import build_superfaces
from segvigen_model.surface.arrays import densify_ids
from segvigen_model.surface.feature_schema import check_columns, stored_columns
from segvigen_model.surface.geometry import Surface, cut_surface, measure_surface
from segvigen_model.surface.patch_features import (
    FAR,
    SCALAR_COLUMNS,
    PatchFeatures,
    compute_patch_features,
)
from segvigen_model.surface.region_merging import build_segment_tree
from segvigen_model.types import AssetMesh, FloatArray, IntArray

OBJECTS_PER_FILE = 40
PACK_SHARE = 0.65
FUSED_SHARE = 0.65
FEW_PARTS_SHARE = 0.12
FUSED_GRIDS = (48, 128)
COUNTS = (192, 384)  # patches of an object
MAX_PATCHES = 900  # objects of more connected components are left out
CROP_SHARES = (0.08, 0.45)  # of the surface, evenly by their logarithm
CROP_COUNTS = (208, 400)  # patches of a crop
CROP_CLICKS = (1, 1, 1, 1, 2, 3, 5)  # that a crop is round
_DISTANCE_UNIT = FAR / 255
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExampleOptions:
    """Which objects a shard is made of, and how they are cut.

    Attributes:
        seed: object i of a seed is always the same object.
        parts: labelled pack; None = shapes made in code only.
        split: "train" or "validation".
        counts: patches of an object, at least and below.
        pack_share: of objects that come from the pack.
        num_crops: crops of each object.
        config: of the segmenter that the examples are for.
    """

    seed: int = 0
    parts: Path | None = None
    split: str = "train"
    counts: tuple[int, int] = COUNTS
    pack_share: float = PACK_SHARE
    num_crops: int = 0
    config: SegmenterConfig = field(default_factory=SegmenterConfig)


@dataclass(frozen=True, slots=True)
class PatchExample:
    """One labelled object.

    Attributes:
        features: of its patches.
        pairs: (B, 2) int64 touching patches.
        shares: (A, P) float32 share of each patch's area per true part, rows sum to 1.
    """

    features: PatchFeatures
    pairs: IntArray
    shares: FloatArray


def load_labelled_object(
    index: int, seed: int, parts: Path | None, split: str, pack_share: float = PACK_SHARE
) -> tuple[AssetMesh, IntArray] | None:
    """Object `index`: from the pack or made in code, as it is or fused; None = not usable."""
    rng = np.random.default_rng([seed, index, zlib.crc32(split.encode())])
    if parts is not None and rng.random() < pack_share:
        rows = load_cached_rows(parts, split)
        loaded = load_cached_object(parts, int(rng.integers(len(rows))), split)
        if loaded is None:
            return None
        mesh, labels = loaded
    else:
        made = make_asset(str(rng.choice(list_procedural_categories(split="train"))), 2 * index)
        mesh, labels = made.mesh, made.face_labels
    mesh = pose_mesh(mesh, draw_pose(rng))
    if rng.random() < FEW_PARTS_SHARE:
        mesh, labels = keep_few_parts(mesh, labels, rng)
    if rng.random() < FUSED_SHARE:
        grid = int(rng.integers(*FUSED_GRIDS))
        mesh, labels = fuse_mesh(mesh, labels, grid=grid, seed=index)
    dense = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return (mesh, dense) if dense.max(initial=0) > 0 else None


def make_example(
    surface: Surface, labels: IntArray, count: int, config: SegmenterConfig
) -> PatchExample:
    """Patches of one labelled surface.

    Args:
        surface: geometry, of an object or a crop of one.
        labels: (F,) int64 dense.
        count: about how many patches.
        config: of the segmenter.
    """
    tree = build_segment_tree(surface, config.regions)
    superfaces = build_superfaces(surface, tree, count, config.patches, config.components)
    features = compute_patch_features(
        surface, tree.levels, superfaces.of_face, superfaces.pairs, superfaces.folds
    )
    num_parts = int(labels.max()) + 1
    weight = np.maximum(surface.areas, 1e-30)
    table = np.bincount(
        superfaces.of_face * num_parts + labels, weight, superfaces.count * num_parts
    )
    table = table.reshape(superfaces.count, num_parts)
    shares = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    return PatchExample(features, superfaces.pairs, shares)


def make_crop_examples(
    surface: Surface,
    labels: IntArray,
    number: int,
    rng: np.random.Generator,
    config: SegmenterConfig,
) -> Iterator[PatchExample]:
    """Crops around clicks on random parts, whatever their size; none where the mesh is too coarse.

    Args:
        surface: geometry of an object.
        labels: (F,) int64 dense.
        number: of crops, at most.
        rng: source of chance.
        config: of the segmenter.
    """
    for _ in range(number):
        inside = np.where(labels == rng.integers(labels.max() + 1), surface.areas, 0.0)
        count = int(rng.integers(*CROP_COUNTS))
        share = float(np.exp(rng.uniform(*np.log(CROP_SHARES))))
        num_clicks = int(rng.choice(CROP_CLICKS))
        if not inside.sum() > 0:
            continue
        clicked = np.unique(rng.choice(len(labels), num_clicks, p=inside / inside.sum()))
        faces = select_nearest_faces(surface, compute_geodesic_distances(surface, clicked), share)
        if len(faces) >= count:
            yield make_example(
                cut_surface(surface, faces), densify_ids(labels[faces]), count, config
            )


def make_file(path: Path, indices: range, options: ExampleOptions) -> None:
    """Make one shard of objects cut into patches, with crops of each."""
    packed: dict[str, Any] = {"columns": np.array(SCALAR_COLUMNS)}
    number = 0
    for index in indices:
        try:
            made = load_labelled_object(
                index, options.seed, options.parts, options.split, options.pack_share
            )
            if made is None:
                continue
            rng = np.random.default_rng([options.seed, index])
            mesh, labels = made
            surface = measure_surface(mesh)
            examples = [
                make_example(surface, labels, int(rng.integers(*options.counts)), options.config),
                *make_crop_examples(surface, labels, options.num_crops, rng, options.config),
            ]
        except SegvigenError as err:
            log.warning("object=%d refused=%s", index, err)
            continue
        for example in examples:
            if example.features.count <= MAX_PATCHES:
                packed |= {f"{number}|{name}": array for name, array in _to_arrays(example).items()}
                number += 1
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **packed)
    partial.rename(path)


def read_file(path: Path) -> Iterator[PatchExample]:
    """Examples of one shard.

    Raises:
        CheckpointMismatch: they were measured with other columns.
    """
    table = "patch_scalars"
    with np.load(path, allow_pickle=False) as stored:
        check_columns(path, stored_columns(stored, table), {table: SCALAR_COLUMNS})
        count = len({name.partition("|")[0] for name in stored.files if "|" in name})
        for number in range(count):
            arrays = {}
            for name in _FIELDS:
                key = f"{number}|{name}"
                is_earlier = key not in stored.files and name in _EARLIER_FIELDS
                arrays[name] = stored[f"{number}|{_EARLIER_FIELDS[name]}" if is_earlier else key]
            yield _from_arrays(arrays)


_FIELDS = (
    *(
        "centers",
        "normals",
        "areas",
        "levels",
        "materials",
        "geodesic_distances",
        "scalars",
        "pairs",
        "shares",
    ),
)


_EARLIER_FIELDS = {"geodesic_distances": "ways"}  # in shards of version 0.1.0


def _to_arrays(example: PatchExample) -> dict[str, Any]:
    features = example.features
    distances = np.rint(features.geodesic_distances / _DISTANCE_UNIT)
    return {
        "centers": features.centers,
        "normals": features.normals.astype(np.float16),
        "areas": features.areas,
        "levels": features.levels.astype(np.int16),
        "materials": features.materials.astype(np.int16),
        "geodesic_distances": distances.astype(np.uint8),
        "scalars": features.scalars.astype(np.float16),
        "pairs": example.pairs.astype(np.int16),
        "shares": np.rint(example.shares * 255).astype(np.uint8),
    }


def _from_arrays(arrays: dict[str, Any]) -> PatchExample:
    features = PatchFeatures(
        centers=arrays["centers"],
        normals=arrays["normals"],
        areas=arrays["areas"],
        levels=arrays["levels"],
        materials=arrays["materials"],
        geodesic_distances=arrays["geodesic_distances"],  # in _DISTANCE_UNIT, to save memory
        scalars=arrays["scalars"],
    )
    return PatchExample(features, arrays["pairs"], arrays["shares"])


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", type=Path, help="labelled pack; procedural only without")
    parser.add_argument("--files", type=int, nargs=2, default=(0, 100), help="first, after last")
    parser.add_argument(
        "--patches", type=int, nargs=2, default=COUNTS, help="of an object: at least, below"
    )
    parser.add_argument("--pack-share", type=float, default=PACK_SHARE, help="of objects")
    parser.add_argument("--crops", "--looks", type=int, default=0, help="of each object")
    parser.add_argument("--split", default="train", choices=("train", "validation"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    options = ExampleOptions(
        args.seed, args.parts, args.split, tuple(args.patches), args.pack_share, args.crops
    )
    for number in tqdm(range(*args.files), desc="patch shards", mininterval=10):
        path = args.out / f"{args.split}-{number:05d}.npz"
        if not path.exists():
            start = number * OBJECTS_PER_FILE
            make_file(path, range(start, start + OBJECTS_PER_FILE), options)


if __name__ == "__main__":
    main()
