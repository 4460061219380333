"""Write procedural shapes as a labelled folder, the form that `evaluate` reads.

python -m segvigen_model.datasets.synthetic_pack --out FOLDER --split heldout --each 12
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from segvigen_model.datasets.procedural import LabelledMesh, make_asset
from segvigen_model.datasets.voxel_samples import list_procedural_categories
from segvigen_model.mesh.io import mesh_to_glb

FIRST_SEED = 10_000_001  # training draws even seeds below 2^21


def write_object(folder: Path, made: LabelledMesh) -> dict[str, object]:
    """Write one shape's GLB and labels.

    Args:
        folder: root; files go to `objects/`.
        made: the shape.

    Returns:
        Its manifest row.
    """
    name = f"proc_{made.category}_{made.seed}"
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    (folder / f"objects/{name}.glb").write_bytes(mesh_to_glb(made.mesh))
    counts = np.bincount(made.mesh.face_material, minlength=len(made.mesh.materials))
    np.savez_compressed(
        folder / f"objects/{name}.parts.npz",
        face_part=made.face_labels.astype(np.int16),
        face_inst=made.face_labels.astype(np.int16),
        part_names=np.array(made.part_names),
        geom_names=np.array(made.mesh.geometry_names),
        geom_nfaces=counts,
    )
    return {
        "id": name,
        "source_repo": "procedural",
        "licence": "made in code",
        "category": made.category,
        "n_faces": made.mesh.num_faces,
        "n_parts": len(made.part_names),
        "n_inst": len(made.part_names),
        "part_source": "procedural",
        "textured": made.mesh.corner_uv is not None,
        "glb": f"objects/{name}.glb",
        "parts": f"objects/{name}.parts.npz",
    }


def write_pack(
    folder: Path, *, split: str, each: int, seed: int = FIRST_SEED, most: int | None = None
) -> int:
    """Write `each` shapes of every category of a split ("train" or "heldout").

    Args:
        folder: root.
        split: of the categories.
        each: shapes of a category.
        seed: of the first shape of a category.
        most: categories at most, evenly spread; None = all.

    Returns:
        The number of objects.
    """
    categories = list_procedural_categories(split=split)
    step = 1 if most is None else -(-len(categories) // most)
    rows = [
        write_object(folder, make_asset(category, seed + number))
        for category in categories[::step]
        for number in range(each)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(text)
    return len(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="heldout", choices=("train", "heldout"))
    parser.add_argument("--each", type=int, default=12)
    args = parser.parse_args(arguments)
    write_pack(args.out, split=args.split, each=args.each)


if __name__ == "__main__":
    main()
