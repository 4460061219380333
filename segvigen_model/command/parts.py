"""The parts of one mesh for `segvigen segment`: found by the model, written as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segvigen_model.command.clicks import PointClick, are_corrections, place_clicks
from segvigen_model.errors import MissingExtra
from segvigen_model.evaluation.pictures import four_views
from segvigen_model.mesh.io import make_part_colors, parts_to_glb
from segvigen_model.segmenter import Segmenter
from segvigen_model.session import Session
from segvigen_model.surface.arrays import TINY, sum_by
from segvigen_model.types import AssetMesh, ByteArray, Click, FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd

CUT = 0.5  # probability above which a face belongs to the clicked part
CLICKED, REST = 0, 1
CLICKED_NAMES = ("clicked part", "rest")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one mesh.

    Attributes:
        mesh: the asset.
        face_labels: (F,) int32 dense part ids.
        part_confidence: (P,) float32, 0..1.
        names: P words where clicks show one part, else none.
    """

    mesh: AssetMesh
    face_labels: IntArray
    part_confidence: FloatArray
    names: tuple[str, ...] = ()

    @property
    def colors(self) -> ByteArray:
        """(P, 3) uint8, the same in every output."""
        return make_part_colors(len(self.part_confidence))

    def rows(self) -> list[dict[str, Any]]:
        """Describe each part; JSON-able."""
        count = len(self.part_confidence)
        areas = sum_by(self.face_labels, _face_areas(self.mesh), count)
        total = float(areas.sum())
        faces = np.bincount(self.face_labels, minlength=count)
        return [
            {
                "part": part,
                "name": self.names[part] if self.names else "",
                "faces": int(faces[part]),
                "area_share": float(areas[part]) / total,
                "confidence": float(self.part_confidence[part]),
                "color": "#" + bytes(self.colors[part]).hex(),
            }
            for part in range(count)
        ]


def find_parts(
    segmenter: Segmenter,
    mesh: AssetMesh,
    clicks: Sequence[PointClick],
    *,
    granularity: str = "medium",
    seed: int = 0,
) -> Parts:
    """Propose parts, correct the proposal by clicks, or find the one part that clicks show.

    Args:
        segmenter: the model.
        mesh: the asset.
        clicks: none proposes.
        granularity: of the proposal.
        seed: of the draws.

    Raises:
        BadClicks: a click does not fit the mesh, the proposal or another click.
    """
    if clicks and not are_corrections(clicks):
        located = place_clicks(clicks, mesh)  # refused before anything is computed
        return _find_one(segmenter.open(mesh), located, seed)
    session = segmenter.open(mesh)
    found = session.propose(granularity=granularity, seed=seed)
    if clicks:
        located = place_clicks(clicks, mesh, found.num_parts)
        found = session.refine(found.face_labels, located, seed)
    return Parts(mesh, found.face_labels, found.part_confidence)


def _find_one(session: Session, clicks: list[Click], seed: int) -> Parts:
    probability = session.click(clicks, seed)
    labels = np.where(probability > CUT, CLICKED, REST).astype(np.int32)
    count = 2 if (labels == REST).any() else 1
    certainty = np.where(labels == CLICKED, probability, 1.0 - probability)
    areas = _face_areas(session.mesh)
    confidence = sum_by(labels, areas * certainty, count) / sum_by(labels, areas, count)
    return Parts(session.mesh, labels, confidence.astype(np.float32), CLICKED_NAMES[:count])


def _face_areas(mesh: AssetMesh) -> FloatArray:
    """(F,) float64, all above zero, so that a part of degenerate faces has a mean."""
    corners = mesh.triangles
    double = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas: FloatArray = 0.5 * np.linalg.norm(double, axis=1) + TINY
    return areas


def write_glb(parts: Parts, file: Path, *, is_painted: bool) -> None:
    """Write the mesh as GLB, one node per part: in its colour, or with the file's materials."""
    data = parts_to_glb(
        parts.mesh, parts.face_labels, parts.colors, parts.names, is_painted=is_painted
    )
    file.write_bytes(data)


def write_labels(parts: Parts, file: Path) -> str:
    """Write the label of every face; the name's ending chooses the form.

    NPZ: `face_labels` (F,) int32, `face_polygons` (F,) int32 (the source's polygon of each
    triangle), `part_confidence` (P,) float32. Parquet: a row per face with the same, and object,
    group and material names where the source has them. JSON: as `to_json`.

    Returns:
        What was written, for the user.

    Raises:
        MissingExtra: Parquet without pyarrow.
    """
    if file.suffix == ".json":
        file.write_text(to_json(parts) + "\n")
        return "parts, face_labels"
    columns = {"face_labels": parts.face_labels, "face_polygons": parts.mesh.face_polygons}
    if file.suffix == ".npz":
        arrays: dict[str, Any] = {**columns, "part_confidence": parts.part_confidence}
        np.savez_compressed(file, **arrays)
        return ", ".join([*columns, "part_confidence"])
    table = make_label_table(parts)
    try:
        table.to_parquet(file, index=False)
    except ImportError as err:
        raise MissingExtra("Parquet", "pip install 'segvigen-pipeline[tables]'") from err
    return f"a row per face: {', '.join(table.columns)}"


def make_label_table(parts: Parts) -> pd.DataFrame:
    """Return a row per face: face, part, polygon, and the source's names where it has any."""
    import pandas as pd

    labels, origin = parts.face_labels, parts.mesh.origin
    table = pd.DataFrame(
        {
            "face": np.arange(len(labels), dtype=np.int32),
            "part": labels,
            "polygon": parts.mesh.face_polygons,
            "confidence": parts.part_confidence[labels],
        }
    )
    for name in ("objects", "groups", "materials"):
        column = getattr(origin, name)
        if column is not None:
            names = np.array([*column.names, None], dtype=object)  # -1 = no name
            table[name.removesuffix("s")] = names[column.indices]
    return table


def write_picture(parts: Parts, file: Path) -> None:
    """Write four views as PNG."""
    four_views(parts.mesh, parts.colors[parts.face_labels]).save(file)


def to_json(parts: Parts) -> str:
    """Return the parts and the label of every face as JSON."""
    return json.dumps({"parts": parts.rows(), "face_labels": parts.face_labels.tolist()})
