"""Labelled folders from scenes that were modelled in parts: glTF, GLB, OBJ and what else loads.

    python -m segvigen_model.datasets.scenes --scenes FOLDER --out PACK --source OWNER/NAME \
        --licence CC0-1.0 --category furniture

Adds to the folder that is there; a file that was taken before, that shows a held-out theme, or that
looks like an object of another folder (`--unlike`), is left out. Every file left out is listed with
its reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from segvigen_model.datasets.themes import find_held_out_theme
from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.files import load_mesh
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb
from segvigen_model.surface.arrays import TINY, densify_ids, label_components, sum_by
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.sampling import find_contacts, sample_faces
from segvigen_model.types import AssetMesh, IntArray

SUFFIXES = (".glb", ".gltf", ".obj")
MIN_SHARE = 0.005  # of the surface; smaller parts join the nearest
MAX_PARTS = 30
MAX_SHARE = 0.95  # of the largest part
MIN_FACES, MAX_FACES = 60, 130_000
GAP = 0.004  # of the diagonal: further apart are separate instances
log = logging.getLogger(__name__)


class NotAnObject(SegvigenError):
    """A scene that does not make a labelled object; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """A scene as a labelled object.

    Attributes:
        mesh: centred, longest side 1.
        face_part: (F,) int64 dense.
        face_inst: (F,) int64 dense, parts split where their pieces lie apart.
        part_names: one per part.
        part_source: what parts are: "node+mat" or "components".
    """

    mesh: AssetMesh
    face_part: IntArray
    face_inst: IntArray
    part_names: tuple[str, ...]
    part_source: str


def label_scene(mesh: AssetMesh) -> LabelledScene:
    """Find the parts of a scene.

    Parts are the scene's pieces (a node's share of one material), or, of a single piece, its
    connected components. Parts below half a percent of the surface join the nearest part.

    Raises:
        NotAnObject: too few or many faces or parts, or one part is nearly everything.
    """
    if not MIN_FACES <= mesh.num_faces <= MAX_FACES:
        raise NotAnObject(f"{mesh.num_faces} faces; {MIN_FACES} to {MAX_FACES} are taken")
    mesh = _center_mesh(mesh)
    surface = measure_surface(mesh)
    pieces = mesh.face_geometry
    is_single = pieces is None or (pieces == pieces[0]).all()
    raw = surface.components if is_single or pieces is None else pieces
    labels = _merge_small_parts(mesh, surface.areas, densify_ids(raw.astype(np.int64)))
    count = int(labels.max()) + 1
    if not 2 <= count <= MAX_PARTS:
        raise NotAnObject(f"{count} parts; 2 to {MAX_PARTS} are taken")
    shares = sum_by(labels, surface.areas, count) / max(float(surface.areas.sum()), TINY)
    if shares.max() > MAX_SHARE:
        raise NotAnObject(f"one part is {shares.max():.0%} of the surface")
    order = np.argsort(-shares, kind="stable")
    labels = np.argsort(order)[labels]
    first = np.unique(labels, return_index=True)[1]
    names = tuple(_make_part_name(mesh, int(face), number) for number, face in enumerate(first))
    source = "components" if is_single else "node+mat"
    instances = _split_instances(mesh, surface.components, labels)
    return LabelledScene(mesh, labels, instances, names, source)


def _make_part_name(mesh: AssetMesh, face: int, number: int) -> str:
    if mesh.face_geometry is None or not mesh.geometry_names:
        return f"part_{number}"
    return mesh.geometry_names[int(mesh.face_geometry[face])] or f"part_{number}"


def _center_mesh(mesh: AssetMesh) -> AssetMesh:
    """Middle of the bounding box to 0, longest side to 1."""
    used = mesh.vertices[np.unique(mesh.faces)]
    low, high = used.min(axis=0), used.max(axis=0)
    return replace(mesh, vertices=(mesh.vertices - 0.5 * (low + high)) / (high - low).max())


def _merge_small_parts(mesh: AssetMesh, areas: Any, labels: IntArray) -> IntArray:
    """Join parts below MIN_SHARE to the part whose surface is nearest, smallest first."""
    labels = labels.copy()
    centers = mesh.triangles.mean(axis=1)
    while True:
        count = int(labels.max()) + 1
        shares = sum_by(labels, areas, count) / max(float(areas.sum()), TINY)
        smallest = int(shares.argmin())
        if count == 1 or shares[smallest] >= MIN_SHARE:
            return labels
        own = labels == smallest
        gaps, nearest = cKDTree(centers[~own]).query(centers[own])
        labels[own] = labels[~own][nearest[gaps.argmin()]]
        labels = densify_ids(labels)


def _split_instances(mesh: AssetMesh, components: IntArray, labels: IntArray) -> IntArray:
    """Parts split into pieces further apart than GAP; the parts when that is over MAX_PARTS."""
    triangles = mesh.triangles
    corners = triangles.reshape(-1, 3)
    gap = GAP * float(np.linalg.norm(np.ptp(corners, axis=0)))
    areas = 0.5 * np.linalg.norm(
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1
    )
    count = int(components.max()) + 1
    pieces = densify_ids(labels * count + components)
    part_of = np.zeros(int(pieces.max()) + 1, np.int64)
    part_of[pieces] = labels
    touching = find_contacts(sample_faces(triangles, areas, 0.5 * gap), pieces, gap)[0]
    same = part_of[touching[:, 0]] == part_of[touching[:, 1]]
    instances = label_components(len(part_of), touching[same])[pieces]
    is_many = int(instances.max()) + 1 > MAX_PARTS
    return labels if is_many else densify_ids(instances)


def compute_fingerprint(mesh: AssetMesh) -> str:
    """Same for the same shape at any place and size, however its vertices are stored."""
    triangles = _center_mesh(mesh).triangles
    edges = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2)
    lengths = np.sort(np.rint(edges.reshape(-1) * 200).astype(np.int32))
    return hashlib.sha256(lengths.tobytes()).hexdigest()[:16]


def read_fingerprints(folders: Iterable[Path]) -> set[str]:
    """Of every object of some labelled folders."""
    found = set()
    for folder in folders:
        for row in _read_rows(folder):
            found.add(
                compute_fingerprint(mesh_from_bytes((folder / row["glb"]).read_bytes(), ".glb"))
            )
    return found


# Source, licence and category are written into every row.
def import_scenes(
    scenes: Path,
    out: Path,
    *,
    source: str,
    licence: str,
    category: str,
    unlike: Sequence[Path] = (),
) -> Counter[str]:
    """Add every usable scene below a folder to a labelled folder.

    Returns:
        How many were taken, and left out by reason.
    """
    (out / "objects").mkdir(parents=True, exist_ok=True)
    used_names = {row["id"] for row in _read_rows(out)}
    seen = read_fingerprints([*unlike, out])
    counts: Counter[str] = Counter()
    for path in sorted(p for p in scenes.rglob("*") if p.suffix.lower() in SUFFIXES):
        place = path.relative_to(scenes).as_posix()
        name = f"{source.replace('/', '_')}_{hashlib.sha256(place.encode()).hexdigest()[:10]}"
        if name in used_names:
            counts["there before"] += 1
            continue
        try:
            mesh = load_mesh(path)
            theme = find_held_out_theme([place, *mesh.geometry_names])
            if theme is not None:
                raise NotAnObject(f"held-out theme {theme}")
            mark = compute_fingerprint(mesh)
            if mark in seen:
                raise NotAnObject("the same shape is there already")
            scene = label_scene(mesh)
        except SegvigenError as err:
            log.warning("scene=%s left_out=%s", place, err)
            counts["left out"] += 1
            continue
        seen.add(mark)
        about = {"source_repo": source, "source_path": place, "licence": licence}
        row = write_scene(out, name, scene) | about | {"category": category}
        with (out / "manifest.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        counts["taken"] += 1
    return counts


def write_scene(out: Path, name: str, scene: LabelledScene) -> dict[str, Any]:
    """Write an object's GLB and labels; returns what the manifest says of its form."""
    mesh = scene.mesh
    (out / f"objects/{name}.glb").write_bytes(mesh_to_glb(mesh))
    np.savez_compressed(
        out / f"objects/{name}.parts.npz",
        face_part=scene.face_part.astype(np.int16),
        face_inst=scene.face_inst.astype(np.int16),
        part_names=np.array(scene.part_names),
    )
    return {
        "id": name,
        "n_faces": mesh.num_faces,
        "n_parts": len(scene.part_names),
        "n_inst": int(scene.face_inst.max()) + 1,
        "part_source": scene.part_source,
        "textured": mesh.corner_uv is not None,
        "glb": f"objects/{name}.glb",
        "parts": f"objects/{name}.parts.npz",
    }


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "manifest.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of scenes, searched")
    parser.add_argument("--out", type=Path, required=True, help="labelled folder to add to")
    parser.add_argument("--source", required=True, help="where they come from, owner/name")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--category", default="unknown")
    parser.add_argument(
        "--unlike", type=Path, nargs="*", default=(), help="labelled folders of other objects"
    )
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = import_scenes(
        args.scenes,
        args.out,
        source=args.source,
        licence=args.licence,
        category=args.category,
        unlike=args.unlike,
    )
    text = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    log.info("%s", text or f"no scenes below {args.scenes}")


if __name__ == "__main__":
    main()
