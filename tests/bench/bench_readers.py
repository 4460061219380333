"""Our readers against a second one, file by file over a local collection of models.

    python tests/bench/bench_readers.py FOLDER [--suffix glb] [--seconds 60]

Compares triangles, area, bounds and colours with trimesh, and FBX with assimp (`pip install
assimp-py`, not part of the environment). Prints a table by format and every difference; the public
collections that were compared, and why they differ, stand in docs/formats.md.
Both readers run in a process of their own that is ended when it takes too long.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from segvigen_model import load_mesh
from segvigen_model.errors import SegvigenError
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import SUFFIXES

TOLERANCE = 1e-4  # of area and of the bounds' diagonal: readers keep float32 or float64
ASSIMP_FORMATS = ("fbx",)
WITH_UNITS = ("fbx", "3mf")  # ours are in metres with Y up
LIMITS = MeshLimits(is_side_file_required=False)  # collections lack textures


def describe(triangles: Any, has_colors: bool, has_texture: bool | None) -> dict[str, Any]:
    """What is compared of a mesh; `triangles` is (F, 3, 3)."""
    corners = np.asarray(triangles, dtype=np.float64).reshape(-1, 3, 3)
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    points = corners.reshape(-1, 3)
    return {
        "faces": len(corners),
        "area": float(np.linalg.norm(sides, axis=1).sum() / 2),
        "bounds": [points.min(0).tolist(), points.max(0).tolist()] if len(points) else None,
        "colors": has_colors,
        "texture": has_texture,
    }


def read_ours(path: Path) -> dict[str, Any]:
    """Our reading."""
    mesh = load_mesh(path, LIMITS)
    has_texture = any(m.base_color_texture is not None for m in mesh.materials)
    found = describe(mesh.triangles, mesh.vertex_colors is not None, has_texture)
    return found | {"repairs": list(mesh.repairs)}


def read_trimesh(path: Path) -> dict[str, Any]:
    """Trimesh's reading, without its repairs."""
    scene = trimesh.load(path, force="scene", process=False)
    triangles, has_colors, has_texture = [np.zeros((0, 3, 3))], False, False
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh):
            continue
        triangles.append(trimesh.transform_points(mesh.triangles.reshape(-1, 3), matrix))
        has_colors |= mesh.visual.kind in ("vertex", "face")
        material = getattr(mesh.visual, "material", None)
        images = (getattr(material, key, None) for key in ("image", "baseColorTexture"))
        has_texture |= any(image is not None for image in images)
    joined = np.concatenate([corners.reshape(-1, 3, 3) for corners in triangles])
    return describe(joined, has_colors, has_texture)


def read_assimp(path: Path) -> dict[str, Any]:
    """Assimp's triangles, placed by its nodes."""
    import assimp_py

    flags = assimp_py.Process_Triangulate | assimp_py.Process_PreTransformVertices
    scene = assimp_py.import_file(str(path), flags)
    triangles = [np.zeros((0, 3, 3))]
    for mesh in scene.meshes:
        vertices = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)
        indices = np.asarray(mesh.indices, dtype=np.int64)
        if len(indices) % 3 == 0:
            triangles.append(vertices[indices].reshape(-1, 3, 3))
    has_colors = any(mesh.colors for mesh in scene.meshes)
    return describe(np.concatenate(triangles), has_colors, None)


def answer(pipe: Connection) -> None:
    """Read what is asked for, in a process of its own."""
    logging.disable(logging.CRITICAL)
    pipe.send("ready")  # importing is no reading
    while True:
        reader, path = pipe.recv()
        try:
            pipe.send(reader(path))
        except SegvigenError as err:
            pipe.send({"refused": str(err)})
        except Exception as err:  # foreign readers raise whatever they meet
            pipe.send({"failed": f"{type(err).__name__}: {err}"})


class Process:
    """A process that reads; a new one after each that died or took too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pipe: Connection | None = None
        self._process: Any = None

    def read(self, reader: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
        """One reading, or how it ended."""
        if self._pipe is None:
            self._pipe, other = multiprocessing.Pipe()
            # No daemon: load_mesh starts a confined process of its own.
            self._process = multiprocessing.get_context("spawn").Process(
                target=answer, args=(other,)
            )
            self._process.start()
            other.close()
            self._pipe.recv()
        try:
            self._pipe.send((reader, path))
            if self._pipe.poll(self._seconds):
                return dict(self._pipe.recv())
            ending = "took too long"
        except (EOFError, OSError):
            ending = "died"
        self.close()
        return {"failed": ending}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None


def shrink(reading: dict[str, Any]) -> dict[str, Any]:
    """A reading at the size 1: the second reader keeps the file's unit and axes."""
    if not reading.get("bounds"):
        return reading
    low, high = np.array(reading["bounds"])
    size = max(float(np.linalg.norm(high - low)), 1e-300)
    return reading | {"area": reading["area"] / size**2, "bounds": None}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What differs, in words; empty where nothing does."""
    if "faces" not in ours or "faces" not in theirs:
        both = "faces" not in ours and "faces" not in theirs
        return [] if both else [f"{_tell(ours)} | {_tell(theirs)}"]
    found = []
    if ours["faces"] != theirs["faces"]:
        found.append(f"faces {ours['faces']} | {theirs['faces']}")
    scale = max(ours["area"], theirs["area"])
    if abs(ours["area"] - theirs["area"]) > TOLERANCE * scale:
        found.append(f"area {ours['area']:.6g} | {theirs['area']:.6g}")
    found += _compare_bounds(ours["bounds"], theirs["bounds"])
    for key in ("colors", "texture"):
        if theirs[key] is not None and ours[key] != theirs[key]:
            found.append(f"{key} {ours[key]} | {theirs[key]}")
    return found


def _compare_bounds(ours: Any, theirs: Any) -> list[str]:
    if ours is None or theirs is None:
        return []
    first, second = np.array(ours), np.array(theirs)
    diagonal = max(float(np.linalg.norm(first[1] - first[0])), 1e-300)
    if float(np.abs(first - second).max()) <= TOLERANCE * diagonal:
        return []
    return [f"bounds {np.round(first, 4).tolist()} | {np.round(second, 4).tolist()}"]


def _tell(reading: dict[str, Any]) -> str:
    if "faces" in reading:
        return f"{reading['faces']} faces"
    return str(reading.get("refused") or reading.get("failed"))[:110]


def list_files(folder: Path, suffix: str | None) -> Iterator[Path]:
    """Meshes of a folder and below, by name."""
    for path in sorted(folder.rglob("*")):
        kind = path.suffix.lower().removeprefix(".")
        if path.is_file() and kind in SUFFIXES and suffix in (None, kind):
            yield path


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--suffix", help="of one format only")
    parser.add_argument("--seconds", type=float, default=60.0, help="for one reading")
    options = parser.parse_args()
    if options.folder is None:
        print("no folder of models given, nothing compared")
        return
    mine, other = Process(options.seconds), Process(options.seconds)
    table: dict[str, Counter[str]] = {}
    try:
        for path in list_files(options.folder, options.suffix):
            kind = path.suffix.lower().removeprefix(".")
            second = read_assimp if kind in ASSIMP_FORMATS else read_trimesh
            ours, theirs = mine.read(read_ours, path), other.read(second, path)
            if kind in WITH_UNITS:
                ours, theirs = shrink(ours), shrink(theirs)
            found = compare(ours, theirs)
            row = table.setdefault(kind, Counter())
            row["files"] += 1
            row["read" if "faces" in ours else "refused" if "refused" in ours else "failed"] += 1
            row["second reads"] += "faces" in theirs
            row["equal"] += not found and "faces" in ours
            row["neither"] += "faces" not in ours and "faces" not in theirs
            row["differ"] += bool(found)
            for line in found:
                print(f"{path.relative_to(options.folder)}: {line}", flush=True)
    finally:
        mine.close()
        other.close()
    columns = ("files", "read", "refused", "failed", "second reads", "equal", "neither", "differ")
    print("| format | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for kind, row in sorted(table.items()):
        print(f"| {kind} | " + " | ".join(str(row[column]) for column in columns) + " |")


if __name__ == "__main__":
    main()
