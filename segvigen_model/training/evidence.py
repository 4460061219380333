"""Fit the two small perceptrons that weigh clicks and borders (evidence.py, borders.py).

    python -m segvigen_model.training.evidence --parts PACK --checkpoint default --out FOLDER
    python -m segvigen_model.training.evidence --out FOLDER --fit

The first command makes rows of features, as-is and fused, with masks and draws of a checkpoint
(without --checkpoint: geometry only); it continues where it stopped. The second fits and writes
the weights. Run both again for a new checkpoint, whose opinion may be worth more than the last's.
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
from segvigen_model.coords import grid_to_latent, mesh_to_unit
from segvigen_model.errors import SegvigenError
from segvigen_model.geometry import TINY, Surface, surface_of
from segvigen_model.inference import ClickSet, draw_colorings, draw_masks
from segvigen_model.palette import decode_colors
from segvigen_model.partition import label_histograms
from segvigen_model.procedural import make_asset
from segvigen_model.segmenter import Segmenter
from segvigen_model.segments import segment_tree
from segvigen_model.training.data import cached_object, cached_rows, procedural_categories
from segvigen_model.training.fuse import fused_skin
from segvigen_model.training.perceptron_fit import Rows, fit
from segvigen_model.transfer import FaceVoxels, nearest_voxels
from segvigen_model.types import AssetMesh, BoolArray, Click, Encoding, FloatArray, IntArray

OBJECTS_PER_FILE = 40
QUESTIONS_PER_OBJECT = 7
PACK_SHARE = 0.7
FUSED_SHARE = 0.55
FEW_PARTS_SHARE = 0.15
MASKED_SHARE = 0.75  # of rows know the model's opinion, so that the rest works without
NEGATIVE_SHARE = 0.4
MIN_PART_SHARE = 0.002
CLICK_COUNTS = (1, 1, 1, 2, 2, 3, 3, 5, 7, 10)
NUM_DRAWS, NUM_STEPS = 4, 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """Geometry of one object; encoding and voxels only where a model is asked."""

    surface: Surface
    atoms: Atoms
    pieces: evidence.Pieces
    encoding: Encoding | None = None
    relation: FaceVoxels | None = None


def labelled_mesh(index: int, seed: int, parts: Path | None) -> tuple[AssetMesh, IntArray] | None:
    """Object `index`: from the pack or made in code, as it is or fused; None = not usable."""
    rng = np.random.default_rng([seed, index, zlib.crc32(b"evidence")])
    if parts is not None and rng.random() < PACK_SHARE:
        rows = cached_rows(parts, "train")
        loaded = cached_object(parts, int(rng.integers(len(rows))), "train")
        if loaded is None:
            return None
        mesh, labels = loaded
    else:
        made = make_asset(str(rng.choice(procedural_categories(split="train"))), 2 * index)
        mesh, labels = made.mesh, made.face_labels
    if rng.random() < FEW_PARTS_SHARE:
        mesh, labels = few_parts(mesh, labels, rng)
    if rng.random() < FUSED_SHARE:
        mesh, labels = fused_skin(mesh, labels, grid=int(rng.integers(64, 129)), seed=index)
    dense = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return (mesh, dense) if dense.max() > 0 else None


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


def click_rows(
    case: Case, labels: IntArray, segmenter: Segmenter | None, rng: np.random.Generator
) -> list[Rows]:
    """Simulated click questions on one object."""
    surface, atoms = case.surface, case.atoms
    shares = np.bincount(labels, surface.areas) / max(surface.areas.sum(), TINY)
    usable = np.flatnonzero(shares > MIN_PART_SHARE)
    chosen = rng.choice(usable, min(QUESTIONS_PER_OBJECT, 2 * len(usable)))
    questions = [(labels == part, _clicks(case, labels == part, rng)) for part in chosen]
    masks = model_masks(case, [clicks for _, clicks in questions], segmenter, rng)
    return [
        Rows(
            evidence.click_features(case.pieces, *_clicked_atoms(case, clicks), mask),
            atoms.mean(part.astype(np.float64), surface.areas).astype(np.float32),
            atoms.areas.astype(np.float32),
        )
        for (part, clicks), mask in zip(questions, masks, strict=True)
    ]


def border_rows(
    case: Case, labels: IntArray, segmenter: Segmenter | None, rng: np.random.Generator, seed: int
) -> list[Rows]:
    """All borders of one object: is it a border between parts?"""
    surface, atoms = case.surface, case.atoms
    if not len(atoms.pairs):
        return []
    truth = label_histograms(labels[None], atoms, surface.areas)
    left, right = atoms.pairs.T
    target = 1.0 - np.minimum(truth[left], truth[right]).sum(axis=1)
    histograms = model_histograms(case, segmenter, rng, seed)
    features = borders.border_features(case.pieces, atoms, histograms)
    return [Rows(features, target.astype(np.float32), atoms.lengths.astype(np.float32))]


def make_rows(
    out: Path,
    count: int,
    seed: int,
    parts: Path | None,
    segmenter: Segmenter | None,
) -> None:
    """Make all missing files of rows."""
    out.mkdir(parents=True, exist_ok=True)
    for start in tqdm(range(0, count, OBJECTS_PER_FILE), desc="evidence rows", unit="file"):
        path = out / f"rows-{start // OBJECTS_PER_FILE:05d}.npz"
        if path.exists():
            continue
        clicks: list[Rows] = []
        edges: list[Rows] = []
        for index in range(start, min(start + OBJECTS_PER_FILE, count)):
            try:
                rows = object_rows(index, seed, parts, segmenter)
            except SegvigenError as err:
                log.warning("object=%d refused=%s", index, err)
                continue
            clicks += rows[0]
            edges += rows[1]
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_packed("click", clicks), **_packed("border", edges))  # type: ignore[arg-type]
        partial.rename(path)


def object_rows(
    index: int,
    seed: int,
    parts: Path | None,
    segmenter: Segmenter | None,
) -> tuple[list[Rows], list[Rows]]:
    """Click and border rows of one object."""
    made = labelled_mesh(index, seed, parts)
    if made is None:
        return [], []
    mesh, labels = made
    rng = np.random.default_rng([seed, index])
    case = geometry_of(mesh, segmenter)
    return (
        click_rows(case, labels, segmenter, rng),
        border_rows(case, labels, segmenter, rng, index),
    )


def geometry_of(mesh: AssetMesh, segmenter: Segmenter | None) -> Case:
    """Geometry of an object, with voxels when there is a model."""
    if segmenter is not None:
        made = segmenter.geometry(mesh, segmenter.encode(mesh))
        return Case(made.surface, made.atoms, made.pieces, made.encoding, made.relation)
    surface = surface_of(mesh)
    tree = segment_tree(surface)
    atoms = make_atoms(surface, tree)
    return Case(surface, atoms, evidence.make_pieces(surface, tree, atoms))


def model_masks(
    case: Case, questions: list[list[Click]], segmenter: Segmenter | None, rng: np.random.Generator
) -> list[FloatArray | None]:
    """The model's mask per atom for each question; None for some, so that both are learned."""
    if segmenter is None or case.encoding is None or case.relation is None:
        return [None] * len(questions)
    sets = [_click_set(case.encoding, clicks) for clicks in questions]
    return [
        case.atoms.mean(case.relation.to_faces(mask), case.surface.areas)
        if rng.random() < MASKED_SHARE
        else None
        for mask in draw_masks(segmenter.bundle, case.encoding, sets)
    ]


def model_histograms(
    case: Case, segmenter: Segmenter | None, rng: np.random.Generator, seed: int
) -> FloatArray | None:
    """Shares of the labels of a few draws per atom, for most objects."""
    if segmenter is None or case.encoding is None or case.relation is None:
        return None
    if rng.random() >= MASKED_SHARE:
        return None
    colorings = draw_colorings(
        segmenter.bundle, case.encoding, num_draws=NUM_DRAWS, num_steps=NUM_STEPS, seed=seed
    )
    draws = [
        case.relation.labels_to_faces(decode_colors(each, case.encoding.coords))
        for each in colorings
    ]
    return label_histograms(np.stack(draws), case.atoms, case.surface.areas)


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
    parser.add_argument("--checkpoint", help="name or folder; geometry only without")
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--weights", type=Path, default=evidence.WEIGHTS_FILE.parent)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not args.fit:
        model = Segmenter.from_checkpoint(args.checkpoint) if args.checkpoint else None
        make_rows(args.out, args.count, args.seed, args.parts, model)
        return
    clicks = fit(
        load_rows(args.out, "click"), width=64, epochs=args.epochs, batch=24, has_overlap=True
    )
    save_file(clicks, args.weights / evidence.WEIGHTS_FILE.name)
    edges = fit(
        load_rows(args.out, "border"), width=48, epochs=args.epochs, batch=8, has_overlap=False
    )
    save_file(edges, args.weights / borders.WEIGHTS_FILE.name)


def _clicks(case: Case, part: BoolArray, rng: np.random.Generator) -> list[Click]:
    """Positives on a part, sometimes negatives, most of them near."""
    clicks = surface_clicks(case.surface, part, int(rng.choice(CLICK_COUNTS)), rng)
    others = case.surface.areas * ~part
    if rng.random() > NEGATIVE_SHARE or others.sum() <= 0:
        return clicks
    middle = np.mean([click.xyz for click in clicks], axis=0)
    gap = np.linalg.norm(case.surface.centers - middle, axis=1) / case.surface.extent
    chance = others * np.exp(-gap / rng.choice([0.1, 0.3, 3.0])) + 1e-12 * others
    faces = rng.choice(len(part), int(rng.integers(1, 6)), p=chance / chance.sum())
    return clicks + [
        Click(int(face), case.surface.centers[face], is_positive=False) for face in faces
    ]


def _clicked_atoms(case: Case, clicks: list[Click]) -> tuple[IntArray, BoolArray]:
    faces = np.array([click.face for click in clicks])
    return case.atoms.of_face[faces], np.array([click.is_positive for click in clicks])


def _click_set(encoding: Encoding, clicks: list[Click]) -> ClickSet:
    points = mesh_to_unit(np.array([click.xyz for click in clicks]), encoding.frame)
    rows = nearest_voxels(points, encoding.coords, encoding.grid)
    cells = grid_to_latent(encoding.coords[rows], encoding.factor)
    return ClickSet(cells, np.array([click.is_positive for click in clicks]))


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
