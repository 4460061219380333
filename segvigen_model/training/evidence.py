"""Fit the two small perceptrons that weigh clicks and borders (evidence.py, borders.py).

    python -m segvigen_model.training.evidence --parts PACK [--fused FUSED_PACK] --out FOLDER
    python -m segvigen_model.training.evidence --out FOLDER --fit

The first command makes rows of features of objects as they are and fused; it continues where it
stopped. The second fits and writes the weights. Both know geometry only, no checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from segvigen_model import borders, evidence
from segvigen_model.atoms import Atoms, make_atoms
from segvigen_model.clicks import surface_clicks
from segvigen_model.errors import SegvigenError
from segvigen_model.geometry import TINY, Surface, surface_of
from segvigen_model.partition import label_histograms
from segvigen_model.procedural import make_asset
from segvigen_model.segments import segment_tree
from segvigen_model.training.data import cached_object, cached_rows, procedural_categories
from segvigen_model.training.fuse import fused_skin
from segvigen_model.training.perceptron_fit import Rows, fit
from segvigen_model.types import AssetMesh, BoolArray, FloatArray, IntArray

OBJECTS_PER_FILE = 40
QUESTIONS_PER_OBJECT = 7
PACK_SHARE = 0.7
FUSED_SHARE = 0.55
READY_SHARE = 0.6  # of fused objects come from the folder of fused ones, when given
FEW_PARTS_SHARE = 0.15
NEGATIVE_SHARE = 0.4
MIN_PART_SHARE = 0.002
CLICK_COUNTS = (1, 1, 1, 2, 2, 3, 3, 5, 7, 10)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """Geometry of one object."""

    surface: Surface
    atoms: Atoms
    pieces: evidence.Pieces


@dataclass(frozen=True, slots=True)
class Sources:
    """Where objects come from.

    Attributes:
        parts: labelled pack folder, or None for shapes made in code only.
        fused: folder of the same form whose objects are fused already, or None.
    """

    parts: Path | None = None
    fused: Path | None = None


def labelled_mesh(index: int, seed: int, sources: Sources) -> tuple[AssetMesh, IntArray] | None:
    """Object `index`: packs or made in code, as it is or fused; None = not usable."""
    rng = np.random.default_rng([seed, index, zlib.crc32(b"evidence")])
    is_fused = rng.random() < FUSED_SHARE
    if is_fused and sources.fused is not None and rng.random() < READY_SHARE:
        loaded = _pack_object(sources.fused, rng)
        is_fused = False  # it is already
    elif sources.parts is not None and rng.random() < PACK_SHARE:
        loaded = _pack_object(sources.parts, rng)
    else:
        category = str(rng.choice(procedural_categories(split="train")))
        made = make_asset(category, 2 * index)
        loaded = made.mesh, made.face_labels
    if loaded is None:
        return None
    mesh, labels = loaded
    if rng.random() < FEW_PARTS_SHARE:
        mesh, labels = few_parts(mesh, labels, rng)
    if is_fused:
        mesh, labels = fused_skin(mesh, labels, grid=int(rng.integers(64, 129)), seed=index)
    dense = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return (mesh, dense) if dense.max() > 0 else None


def _pack_object(folder: Path, rng: np.random.Generator) -> tuple[AssetMesh, IntArray] | None:
    rows = cached_rows(folder, "train")
    return cached_object(folder, int(rng.integers(len(rows))), "train")


def few_parts(
    mesh: AssetMesh, labels: IntArray, rng: np.random.Generator
) -> tuple[AssetMesh, IntArray]:
    """Keep two to four parts of an object: simple scenes with few faces."""
    parts = np.unique(labels)
    kept = np.isin(labels, rng.choice(parts, min(int(rng.integers(2, 5)), len(parts)), False))
    used = np.unique(mesh.faces[kept])
    small = replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=np.searchsorted(used, mesh.faces[kept]),
        face_material=mesh.face_material[kept],
        corner_uv=None if mesh.corner_uv is None else mesh.corner_uv[kept],
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[used],
        vertex_normals=None if mesh.vertex_normals is None else mesh.vertex_normals[used],
        face_geometry=None if mesh.face_geometry is None else mesh.face_geometry[kept],
    )
    return small, labels[kept]


def click_rows(case: Case, labels: IntArray, rng: np.random.Generator) -> list[Rows]:
    """Simulated click questions on one object."""
    surface, atoms = case.surface, case.atoms
    shares = np.bincount(labels, surface.areas) / max(surface.areas.sum(), TINY)
    usable = np.flatnonzero(shares > MIN_PART_SHARE)
    rows = []
    for part in rng.choice(usable, min(QUESTIONS_PER_OBJECT, 2 * len(usable))):
        inside = labels == part
        faces, is_positive = _clicks(case, inside, rng)
        features = evidence.click_features(case.pieces, atoms.of_face[faces], is_positive)
        target = atoms.mean(inside.astype(np.float64), surface.areas)
        rows.append(Rows(features, target.astype(np.float32), atoms.areas.astype(np.float32)))
    return rows


def border_rows(case: Case, labels: IntArray) -> list[Rows]:
    """All borders of one object: is it a border between parts?"""
    atoms = case.atoms
    if not len(atoms.pairs):
        return []
    truth = label_histograms(labels[None], atoms, case.surface.areas)
    left, right = atoms.pairs.T
    target = 1.0 - np.minimum(truth[left], truth[right]).sum(axis=1)
    features = borders.border_features(case.pieces, atoms)
    return [Rows(features, target.astype(np.float32), atoms.lengths.astype(np.float32))]


def make_rows(out: Path, files: range, seed: int, sources: Sources) -> None:
    """Make all missing files of rows; OBJECTS_PER_FILE objects each."""
    out.mkdir(parents=True, exist_ok=True)
    for number in tqdm(files, desc="evidence rows", unit="file"):
        path = out / f"rows-{number:05d}.npz"
        if path.exists():
            continue
        clicks: list[Rows] = []
        edges: list[Rows] = []
        start = number * OBJECTS_PER_FILE
        for index in range(start, start + OBJECTS_PER_FILE):
            try:
                rows = object_rows(index, seed, sources)
            except SegvigenError as err:
                log.warning("object=%d refused=%s", index, err)
                continue
            clicks += rows[0]
            edges += rows[1]
        partial = path.with_suffix(".partial.npz")
        packed = {**_packed("click", clicks), **_packed("border", edges)}
        np.savez(partial, **packed)  # type: ignore[arg-type]
        partial.rename(path)


def object_rows(index: int, seed: int, sources: Sources) -> tuple[list[Rows], list[Rows]]:
    """Click and border rows of one object."""
    made = labelled_mesh(index, seed, sources)
    if made is None:
        return [], []
    mesh, labels = made
    case = geometry_of(mesh)
    rng = np.random.default_rng([seed, index])
    return click_rows(case, labels, rng), border_rows(case, labels)


def geometry_of(mesh: AssetMesh) -> Case:
    """Geometry of an object."""
    surface = surface_of(mesh)
    tree = segment_tree(surface)
    atoms = make_atoms(surface, tree)
    return Case(surface, atoms, evidence.make_pieces(surface, tree, atoms))


def load_rows(folder: Path, kind: str) -> list[Rows]:
    """Read all rows of a kind, "click" or "border"."""
    rows: list[Rows] = []
    for path in sorted(folder.glob("rows-*.npz")):
        if "partial" in path.name:
            continue
        with np.load(path, allow_pickle=False) as stored:
            cuts = np.cumsum(stored[f"{kind}_sizes"])[:-1]
            columns = [
                np.split(stored[f"{kind}_{name}"], cuts)
                for name in ("features", "target", "weight")
            ]
        rows += [Rows(*each) for each in zip(*columns, strict=True) if len(each[1])]
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", type=Path, help="labelled pack folder; procedural only without")
    parser.add_argument("--fused", type=Path, help="labelled folder of meshes fused beforehand")
    parser.add_argument("--files", type=int, nargs=2, default=(0, 30), help="first, after last")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--weights", type=Path, default=evidence.WEIGHTS_FILE.parent)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not args.fit:
        make_rows(args.out, range(*args.files), args.seed, Sources(args.parts, args.fused))
        return
    clicks = fit(
        load_rows(args.out, "click"), width=64, epochs=args.epochs, batch=24, has_overlap=True
    )
    save_file(clicks, args.weights / evidence.WEIGHTS_FILE.name)
    edges = fit(
        load_rows(args.out, "border"), width=48, epochs=args.epochs, batch=8, has_overlap=False
    )
    save_file(edges, args.weights / borders.WEIGHTS_FILE.name)


def _clicks(case: Case, part: BoolArray, rng: np.random.Generator) -> tuple[IntArray, BoolArray]:
    """Faces of positives on a part and sometimes of negatives, most of them near; their signs."""
    count = int(rng.choice(CLICK_COUNTS))
    faces = np.array([click.face for click in surface_clicks(case.surface, part, count, rng)])
    others = case.surface.areas * ~part
    if rng.random() > NEGATIVE_SHARE or others.sum() <= 0:
        return faces, np.ones(count, bool)
    middle = case.surface.centers[faces].mean(axis=0)
    gap = np.linalg.norm(case.surface.centers - middle, axis=1) / case.surface.extent
    chance = others * (np.exp(-gap / rng.choice([0.1, 0.3, 3.0])) + 1e-12)
    wrong = rng.choice(len(part), int(rng.integers(1, 6)), p=chance / chance.sum())
    signs = np.concatenate([np.ones(count, bool), np.zeros(len(wrong), bool)])
    return np.concatenate([faces, wrong]), signs


def _packed(kind: str, rows: list[Rows]) -> dict[str, FloatArray]:
    """Rows as few arrays; features in half precision."""
    return {
        f"{kind}_sizes": np.array([len(each.target) for each in rows]),
        f"{kind}_features": np.concatenate([each.features for each in rows]).astype(np.float16),
        f"{kind}_target": np.concatenate([each.target for each in rows]),
        f"{kind}_weight": np.concatenate([each.weight for each in rows]),
    }


if __name__ == "__main__":
    main()
