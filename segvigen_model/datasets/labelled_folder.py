"""Labelled folders under test: which objects, as they are or fused, checked before use.

A folder holds `manifest.jsonl`, `objects/*.glb` and `*.parts.npz`. Whatever cannot be used is
refused with `AssetRejected` and a reason; nothing here repairs an object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.voxel_samples import load_labelled, read_pack_rows
from segvigen_model.errors import AssetRejected, SegvigenError
from segvigen_model.surface.geometry import Surface, measure_surface
from segvigen_model.types import AssetMesh, BoolArray, FloatArray, IntArray

SURFACES = ("as-is", "fused")
UNLABELLED = -1

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One object under test.

    Attributes:
        name: its id.
        mesh: as it is, or fused.
        labels: (F,) int32 true parts; -1 where unlabelled (any negative label of the file).
        surface: geometry of the mesh.
    """

    name: str
    mesh: AssetMesh
    labels: IntArray
    surface: Surface

    @property
    def areas(self) -> FloatArray:
        """(F,) face areas, 0 where there is no label: such faces count nowhere."""
        areas: FloatArray = np.where(self.labels == UNLABELLED, 0.0, self.surface.areas)
        return areas

    @property
    def judged_surface(self) -> Surface:
        """The surface without edges at unlabelled faces, for borders."""
        is_known = (self.labels[self.surface.pairs] != UNLABELLED).all(axis=1)
        if is_known.all():
            return self.surface
        pairs, lengths, angles = (
            column[is_known]
            for column in (self.surface.pairs, self.surface.lengths, self.surface.angles)
        )
        return replace(self.surface, pairs=pairs, lengths=lengths, angles=angles)

    def list_part_masks(self) -> list[BoolArray]:
        """(F,) masks of the true parts that have area, in order of id."""
        ids, index = np.unique(self.labels, return_inverse=True)
        area = np.bincount(index.reshape(-1), self.areas)
        return [self.labels == part for part in ids[area > 0]]


def choose_rows(folder: Path, split: str | None, limit: int | None) -> list[dict[str, Any]]:
    """Manifest rows under test, evenly spread when limited.

    Raises:
        SegvigenError: there is no readable manifest.
    """
    try:
        if split is not None:
            rows = read_pack_rows(folder, split=split)
        else:
            lines = (folder / "manifest.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError) as err:
        raise SegvigenError(
            f"{folder}/manifest.jsonl cannot be used ({type(err).__name__}: {err}); a labelled "
            "folder needs one JSON object a line with id, glb and parts"
        ) from err
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def get_row_name(row: Row) -> str:
    """An object's id, or another distinguishing text."""
    return str(row.get("id", row.get("glb", "object without id")))


def load_object(folder: Path, row: Row, labels: str, surface: str) -> LabelledObject:
    """Load one object, fused on request.

    Args:
        folder: holds `manifest.jsonl`.
        row: its manifest row.
        labels: "face_inst" or "face_part".
        surface: of SURFACES.

    Raises:
        SegvigenError: it cannot be used; the message gives the reason.
    """
    try:
        mesh, face_labels = load_labelled(folder, dict(row), labels)
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as err:
        raise AssetRejected(
            "unreadable_object", f"{get_row_name(row)}: {type(err).__name__}: {err}; see its files"
        ) from err
    return wrap_labelled_mesh(get_row_name(row), mesh, face_labels, surface)


def wrap_labelled_mesh(
    name: str, mesh: AssetMesh, face_labels: IntArray, surface: str
) -> LabelledObject:
    """Wrap a labelled mesh, fused on request; see `load_object`."""
    made = LabelledObject(name, mesh, np.maximum(face_labels, UNLABELLED), measure_surface(mesh))
    if not made.areas.sum() > 0:
        raise AssetRejected("no_labelled_area", f"{name}: no face has both area and a label >= 0")
    if surface == "as-is":
        return made
    fused_mesh, fused_labels = fuse_mesh(mesh, face_labels)
    if fused_mesh.num_faces == 0:
        raise AssetRejected("no_shell", f"{name}: fusing left no surface; use it as-is only")
    return wrap_labelled_mesh(name, fused_mesh, fused_labels, "as-is")
