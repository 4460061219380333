"""The demo's raw bucket: procedural, part-labelled shapes in several file formats.

One file is broken and one is an exact copy. The true labels stay outside the bucket: only the
scripted reviewer and the final table use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from scipy.spatial import cKDTree

from segvigen_model.datasets.procedural import LabelledMesh, make_asset
from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb
from segvigen_model.types import AssetMesh, IntArray

PREFIX = "demo"
LICENCE = "CC0-1.0"
# category, seed, textured, suffix
SHAPES = (
    ("chair", 11, False, ".glb"),
    ("table", 3, True, ".glb"),
    ("lamp", 5, False, ".glb"),
    ("car", 2, False, ".glb"),
    ("robot", 4, True, ".glb"),
    ("hammer", 8, False, ".stl"),
    ("mug", 1, False, ".ply"),
    ("bookcase", 6, False, ".obj"),
    ("airplane", 9, False, ".glb"),
    ("sofa", 2, True, ".glb"),
    ("drone", 7, False, ".glb"),
    ("windmill", 3, False, ".obj"),
)
REJECTED = "bookcase"  # by the scripted reviewer
# Corners of one triangle differ by the rounding of the numbers in the file.
SAME_PLACE = 1e-4  # share of the longest side


@dataclass(frozen=True, slots=True)
class DemoObject:
    """One object of the raw bucket.

    Attributes:
        key: in the bucket.
        data: its bytes.
        true_labels: (F,) int32 on the faces as `mesh_from_bytes` gives them; None for companions,
            the broken file and the copy.
    """

    key: str
    data: bytes
    true_labels: IntArray | None = None

    @property
    def name(self) -> str:
        """File name without folder."""
        return PurePosixPath(self.key).name


def make_objects() -> list[DemoObject]:
    """Make everything that the demo puts into the raw bucket; the bytes are always the same."""
    objects: list[DemoObject] = []
    for category, seed, is_textured, suffix in SHAPES:
        objects += _make_files(make_asset(category, seed, textured=is_textured), category, suffix)
    chair = objects[0]
    objects.append(DemoObject(f"{PREFIX}/broken.glb", chair.data[: len(chair.data) // 2]))
    objects.append(DemoObject(f"{PREFIX}/copies/chair-again.glb", chair.data))
    objects.append(DemoObject(f"{PREFIX}/LICENSE", LICENCE.encode() + b"\n"))
    return objects


def _make_files(shape: LabelledMesh, category: str, suffix: str) -> list[DemoObject]:
    stem = f"{PREFIX}/{category}"
    side: dict[str, bytes] = {}
    if suffix == ".obj":
        side[f"{category}.mtl"] = _write_mtl(shape.mesh)
    writers: dict[str, Callable[[AssetMesh], bytes]] = {
        ".glb": mesh_to_glb,
        ".obj": lambda mesh: _write_obj(mesh, f"{category}.mtl"),
        ".ply": _write_ply,
        ".stl": _write_stl,
    }
    data = writers[suffix](shape.mesh)
    truth = sort_labels_by_file(shape, mesh_from_bytes(data, suffix, side_files=side))
    files = [DemoObject(f"{stem}{suffix}", data, truth)]
    return files + [DemoObject(f"{PREFIX}/{name}", held) for name, held in side.items()]


def sort_labels_by_file(shape: LabelledMesh, loaded: AssetMesh) -> IntArray:
    """Return the shape's labels in the face order of its file as read back.

    Raises:
        SegvigenError: the file does not hold the same triangles.
    """
    original = shape.mesh.triangles
    size = float(np.ptp(shape.mesh.vertices, axis=0).max())
    tree = cKDTree(original.reshape(-1, 9))
    turned = [np.roll(loaded.triangles, shift, axis=1).reshape(-1, 9) for shift in range(3)]
    distances, nearest = (np.stack(found) for found in zip(*map(tree.query, turned), strict=True))
    turn = distances.argmin(axis=0)
    rows = np.arange(len(turn))
    if len(turn) != len(original) or distances[turn, rows].max() > SAME_PLACE * size:
        raise SegvigenError(f"a {shape.category} differs from its mesh after writing and reading")
    labels: IntArray = shape.face_labels[nearest[turn, rows]].astype(np.int32)
    return labels


def _write_mtl(mesh: AssetMesh) -> bytes:
    blocks = []
    for number, material in enumerate(mesh.materials):
        red, green, blue = material.base_color_factor[:3]
        blocks.append(f"newmtl m{number:03d}\nKd {red:.4f} {green:.4f} {blue:.4f}\n")
    return "".join(blocks).encode()


def _write_obj(mesh: AssetMesh, library: str) -> bytes:
    lines = [f"mtllib {library}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
    current = -1
    for face, material in zip(mesh.faces + 1, mesh.face_material, strict=True):
        if material != current:
            lines.append(f"usemtl m{material:03d}")
            current = int(material)
        lines.append(f"f {face[0]} {face[1]} {face[2]}")
    return ("\n".join(lines) + "\n").encode()


def _write_ply(mesh: AssetMesh) -> bytes:
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(mesh.vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {mesh.num_faces}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(mesh.num_faces, dtype=[("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, mesh.faces
    return header.encode() + mesh.vertices.astype("<f4").tobytes() + faces.tobytes()


def _write_stl(mesh: AssetMesh) -> bytes:
    triangles = np.zeros(
        mesh.num_faces, dtype=[("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("x", "<u2")]
    )
    triangles["corners"] = mesh.triangles
    count = np.array(mesh.num_faces, "<u4")
    return b"segvigen demo".ljust(80, b" ") + count.tobytes() + triangles.tobytes()
