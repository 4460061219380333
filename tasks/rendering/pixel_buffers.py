"""From a pixel of a contact sheet back to the surface: face ids, depths and cameras, exact.

Stored as npz beside the sheet. Positions are kept as depth along known orthographic rays, a third
of the size of xyz; `locate` gives the point in the mesh frame.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segvigen_model.archives import (
    parse_json,
    read_npz,
    take_array,
    take_ids,
    take_text,
)
from segvigen_model.errors import CorruptBlob, SegvigenError
from segvigen_model.types import FloatArray, Frame, IntArray, PartTable
from tasks.rendering.views import STAND_OFF, View
from tasks.storage.canonical import canonical_json

SCHEMA = 1
# Keys of `Buffers.meta` that say how parts are called and coloured, each a list of length P.
PART_NAMES, PART_CATEGORIES, PART_SLOTS = "part_names", "part_categories", "part_slots"
MAX_BUFFER_BYTES = 768 * 2**20  # 11 bytes for each pixel of the largest sheet, 8192 a side
MIN_SCALE, MAX_CAMERA = 1e-100, 1e6  # with these no point of a tile is infinite
_BUFFERS = "review buffers"
SNAP_PIXELS = 6  # a click just off the silhouette still means the object


def part_meta(parts: PartTable) -> dict[str, Any]:
    """Entries of `Buffers.meta` for a proposal's parts."""
    return {
        PART_NAMES: list(parts.names),
        PART_CATEGORIES: list(parts.categories),
        PART_SLOTS: list(parts.color_slots),
    }


class BadBuffers(SegvigenError):
    """Stored review buffers cannot be read."""


@dataclass(frozen=True, slots=True)
class SurfacePoint:
    """A point of the surface under a sheet pixel.

    Attributes:
        face: index into AssetMesh.faces.
        xyz: (3,) float64, mesh frame.
        view: tile index.
        column, row: the pixel really used (after snapping).
    """

    face: int
    xyz: FloatArray
    view: int
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Buffers:
    """Per sheet pixel: what is there.

    Attributes:
        face: (H, W) int32, -1 = background, legend or gap.
        view: (H, W) int8 tile index, -1 outside tiles.
        part: (H, W) int16 part id as drawn, -1 where face is -1.
        depth: (H, W) float32 along the tile's ray, unit lengths, 0 where face is -1.
        cameras: (K, 16) float64: left, top, size, half, center, right, up, forward of each tile.
        frame: mesh -> unit.
        meta: what the sheet was made from: asset, round, proposal hash, view names, colours.
    """

    face: IntArray
    view: IntArray
    part: IntArray
    depth: FloatArray
    cameras: FloatArray
    frame: Frame
    meta: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet in pixels."""
        return self.face.shape[1], self.face.shape[0]

    def get_camera(self, view: int) -> View:
        """The camera of one tile."""
        row = self.cameras[view]
        name = str(self.meta["views"][view])
        return View(name, row[4:7], row[7:10], row[10:13], row[13:16], float(row[3]))

    def locate(self, column: int, row: int) -> SurfacePoint | None:
        """The surface point under the middle of a pixel, or None on the background."""
        if not (0 <= row < self.face.shape[0] and 0 <= column < self.face.shape[1]):
            return None
        face, view = int(self.face[row, column]), int(self.view[row, column])
        if face < 0 or view < 0:
            return None
        left, top, size = self.cameras[view, :3]
        camera = self.get_camera(view)
        across, down = np.array([column + 0.5 - left]), np.array([row + 0.5 - top])
        start = camera.make_ray_origins(across, down, int(size))[0]
        xyz_unit = start + float(self.depth[row, column]) * camera.forward
        return SurfacePoint(
            face, xyz_unit / self.frame.scale + self.frame.center, view, column, row
        )

    def locate_near(self, column: int, row: int, reach: int = SNAP_PIXELS) -> SurfacePoint | None:
        """Like `locate`, else the nearest object pixel of the sheet within `reach` pixels."""
        exact = self.locate(column, row)
        if exact is not None:
            return exact
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = self.face[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.nonzero(window >= 0)
        if not len(rows):
            return None
        gaps = (rows + top - row) ** 2 + (columns + left - column) ** 2
        best = int(gaps.argmin())
        if gaps[best] > reach**2:
            return None
        return self.locate(int(columns[best]) + left, int(rows[best]) + top)

    def project(self, xyz: FloatArray, view: int) -> tuple[float, float]:
        """Continuous sheet pixel (column, row) of a mesh-frame point in one tile."""
        left, top, size = self.cameras[view, :3]
        xyz_unit = (np.asarray(xyz) - self.frame.center) * self.frame.scale
        column, row, _ = self.get_camera(view).project(xyz_unit[None], int(size))[0]
        return float(column + left), float(row + top)


def make_camera_row(view: View, left: int, top: int, size: int) -> FloatArray:
    """(16,) float64 row of `Buffers.cameras`."""
    return np.array(
        [left, top, size, view.half, *view.center, *view.right, *view.up, *view.forward]
    )


def buffers_to_bytes(buffers: Buffers) -> bytes:
    """Npz; the same buffers give the same bytes."""
    out = io.BytesIO()
    meta = {**buffers.meta, "schema": SCHEMA, "stand_off": STAND_OFF}
    np.savez_compressed(
        out,
        face=buffers.face.astype(np.int32),
        view=buffers.view.astype(np.int8),
        part=buffers.part.astype(np.int16),
        depth=buffers.depth.astype(np.float32),
        cameras=buffers.cameras.astype(np.float64),
        frame=np.array([*buffers.frame.center, buffers.frame.scale], dtype=np.float64),
        meta=np.array(canonical_json(meta)),
    )
    return out.getvalue()


def buffers_from_bytes(data: bytes) -> Buffers:
    """Read what `buffers_to_bytes` wrote; raises BadBuffers."""
    try:
        held = read_npz(data, "review buffers", max_bytes=MAX_BUFFER_BYTES)
        meta = parse_json(take_text(held, "meta", _BUFFERS), "meta of review buffers")
        if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
            found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
            raise CorruptBlob(f"schema {found!r}, wanted {SCHEMA}")
        return _build_buffers(held, meta)
    except CorruptBlob as err:
        raise BadBuffers(f"review buffers are damaged: {err}; push the round again") from err


def _build_buffers(held: Mapping[str, Any], meta: Mapping[str, Any]) -> Buffers:
    """Check that every pixel has a tile, and that a point can be located in it."""
    cameras = take_array(held, "cameras", "f", (None, 16), _BUFFERS)
    frame = take_array(held, "frame", "f", (4,), _BUFFERS)
    face = take_ids(held, "face", (None, None), (-1, 2**31), _BUFFERS)
    names = meta.get("views")
    if not isinstance(names, list) or len(names) != len(cameras):
        raise CorruptBlob(f"{len(cameras)} cameras without as many names")
    if not MIN_SCALE <= frame[3] <= 1 / MIN_SCALE or np.abs(cameras).max(initial=0) > MAX_CAMERA:
        raise CorruptBlob("a frame or a camera is out of any proportion")
    if (cameras[:, 2] < 1).any() or (cameras[:, 3] <= 0).any():
        raise CorruptBlob("a tile has no pixel, or a camera sees nothing")
    return Buffers(
        face,
        take_ids(held, "view", face.shape, (-1, len(cameras)), _BUFFERS),
        take_ids(held, "part", face.shape, (-1, 2**15), _BUFFERS),
        take_array(held, "depth", "f", face.shape, _BUFFERS),
        cameras,
        Frame(frame[:3], float(frame[3])),
        meta,
    )
