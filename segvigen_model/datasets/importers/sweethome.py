"""Furniture libraries of Sweet Home 3D (Debian's `sweethome3d-furniture`) to labelled folders.

    apt-get download sweethome3d-furniture && dpkg-deb -x sweethome3d-furniture_*.deb DEB
    python -m segvigen_model.datasets.importers.sweethome \
        --libraries DEB/usr/share/sweethome3d/furniture --out FOLDER

Parts are (object name without numbers, material) pairs of the OBJ; where these are too many, the
materials. Parts under half a percent of the surface join the nearest. FOLDER/train holds the
libraries to train on. FOLDER/unseen holds those of `UNSEEN_LIBRARIES`: development objects of a
maker that is never trained on. Held-out themes, repeated shapes and objects without parts are left
out; FOLDER/left-out.json names each with its reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segvigen_model.datasets.importers.folder import FolderWriter
from segvigen_model.datasets.importers.obj_groups import read_obj_groups
from segvigen_model.datasets.scenes import (
    LabelledScene,
    NotAnObject,
    label_scene,
    read_fingerprints,
)
from segvigen_model.errors import SegvigenError
from segvigen_model.types import AssetMesh

# As stated in the package's copyright file and in each library's LICENSE.TXT.
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "Scopia": "CC-BY-3.0",
    "Reallusion": "CC-BY-3.0-US",
    "KatorLegaz": "CC-BY-3.0-US",
}
UNSEEN_LIBRARIES = ("KatorLegaz",)
CATALOG = "PluginFurnitureCatalog.properties"
PACKAGE = "sweethome3d-furniture"
_PROPERTY = re.compile(r"(\w+)#(\d+)=(.*)")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One model of a library's catalog.

    Attributes:
        name: for people.
        path: of the OBJ in the library.
        category: of the catalog.
        author: who made it.
        tags: free words.
    """

    name: str
    path: str
    category: str
    author: str
    tags: str


def read_catalog(text: str) -> list[CatalogModel]:
    """Models of a catalog file, in its order; those that are no OBJ are left out."""
    table: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if match := _PROPERTY.match(line.strip()):
            table.setdefault(int(match[2]), {})[match[1]] = match[3].strip()
    return [
        CatalogModel(
            name=row.get("name", ""),
            path=row["model"].lstrip("/"),
            category=row.get("category", "unknown"),
            author=row.get("creator", "unknown"),
            tags=row.get("tags", ""),
        )
        for _, row in sorted(table.items())
        if row.get("model", "").lower().endswith(".obj")
    ]


def label_model(mesh: AssetMesh) -> LabelledScene:
    """Find the parts of a model: of object names and materials, or of materials alone.

    Raises:
        NotAnObject: neither gives 2 to 30 parts.
    """
    try:
        return label_scene(mesh)
    except NotAnObject:
        names = tuple(material.name for material in mesh.materials)
        return label_scene(replace(mesh, face_geometry=mesh.face_material, geometry_names=names))


def import_libraries(folder: Path, out: Path, unlike: Sequence[Path] = ()) -> Counter[str]:
    """Import every library of a folder.

    Args:
        folder: holds `*.sh3f` files, named by a key of `LICENCES`.
        out: gets `train`, `unseen` and `left-out.json`. A model that is there is not made again.
        unlike: labelled folders whose shapes are left out, held-out ones included.

    Returns:
        How many models were taken and left out.

    Raises:
        SegvigenError: no library is there, or one is unknown or has no catalog.
    """
    libraries = sorted(folder.glob("*.sh3f"))
    if not libraries:
        raise SegvigenError(f"{folder} holds no .sh3f library; unpack {PACKAGE} there")
    seen = read_fingerprints([*unlike, out / "train", out / "unseen"])
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for library in libraries:
        if library.stem not in LICENCES:
            known = ", ".join(sorted(LICENCES))
            raise SegvigenError(f"the licence of {library.name} is not known; known are {known}")
        is_unseen = library.stem in UNSEEN_LIBRARIES
        writer = FolderWriter(out / ("unseen" if is_unseen else "train"), seen)
        with zipfile.ZipFile(library) as archive:
            _import_library(archive, library.stem, writer, is_unseen=is_unseen)
        counts[f"{library.stem} taken"] += writer.num_taken
        counts[f"{library.stem} left out"] += len(writer.left_out)
        reasons |= {f"{library.stem}/{path}": why for path, why in writer.left_out.items()}
    (out / "left-out.json").write_text(json.dumps(reasons, indent=1, sort_keys=True))
    return counts


def _import_library(
    archive: zipfile.ZipFile, library: str, writer: FolderWriter, *, is_unseen: bool
) -> None:
    if CATALOG not in archive.namelist():
        raise SegvigenError(f"{library} has no {CATALOG}; it is no furniture library")
    for model in read_catalog(archive.read(CATALOG).decode("latin-1")):
        about = {
            "source_repo": f"{PACKAGE}/{library}",
            "source_path": model.path,
            "licence": LICENCES[library],
            "author": model.author,
            "name": model.name,
            "category": f"furniture/{model.category.lower()}",
        }
        if is_unseen:
            about["split"] = "validation"  # training cannot draw such rows
        texts = [model.name, Path(model.path).stem, model.tags]
        writer.add(about, texts, partial(_read_model, archive, model.path), label_model)


def _read_model(archive: zipfile.ZipFile, path: str) -> AssetMesh:
    names = archive.namelist()
    if path not in names:
        raise NotAnObject(f"the library has no {path}")
    mtl = path[: -len("obj")] + "mtl"
    colors = archive.read(mtl).decode("latin-1") if mtl in names else ""
    return read_obj_groups(archive.read(path).decode("latin-1"), colors)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", type=Path, required=True, help="folder of .sh3f files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--unlike", type=Path, nargs="*", default=(), help="labelled folders")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = import_libraries(args.libraries, args.out, args.unlike)
    log.info("%s", ", ".join(f"{what}={count}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
