"""O-Voxel conversion: seconds by mesh and grid, and .vxz reading and writing.

CPU seconds of this process, one thread, compiled kernels warm. The official C++ converter needs
3.2 to 3.6 CPU seconds for 1.30 M voxels at grid 512 on one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import trimesh

from segvigen_model.ovoxel import mesh_to_ovoxel, ovoxel_to_mesh, vxz
from segvigen_model.types import AssetMesh, Material

GRIDS = (64, 128, 256, 512)


def textured(mesh: trimesh.Trimesh) -> AssetMesh:
    """Give a mesh a noisy 1024 texture, so that sampling costs what it costs in life."""
    faces = np.asarray(mesh.faces, dtype=np.int64)
    texture = np.random.default_rng(0).integers(0, 256, (1024, 1024, 4), dtype=np.uint8)
    corners = mesh.vertices[faces]
    return AssetMesh(
        vertices=np.asarray(mesh.vertices, dtype=np.float64),
        faces=faces,
        face_material=np.zeros(len(faces), dtype=np.int32),
        materials=(Material(base_color_texture=texture),),
        corner_uv=np.ascontiguousarray(corners[..., :2], dtype=np.float32),
        vertex_normals=np.asarray(mesh.vertex_normals, dtype=np.float32),
    )


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the better of two runs, and the result."""
    best, result = np.inf, None
    for _ in range(2):
        start = time.process_time()
        result = action()
        best = min(best, time.process_time() - start)
    return float(best), result


def main() -> None:
    """Print the table."""
    meshes = {
        "box": trimesh.creation.box(),
        "sphere": trimesh.creation.icosphere(subdivisions=4),
        "sphere, fine": trimesh.creation.icosphere(subdivisions=6),
        "knot of tubes": trimesh.util.concatenate(
            [
                trimesh.creation.torus(1.0, 0.1, 200, 24).apply_transform(
                    trimesh.transformations.random_rotation_matrix(
                        np.random.default_rng(i).random(3)
                    )
                )
                for i in range(4)
            ]
        ),
    }
    mesh_to_ovoxel(textured(meshes["box"]), 16)
    print(f"{'mesh':<14} {'faces':>7} {'grid':>5} {'voxels':>9} {'seconds':>8} {'s per 1M':>9}")
    last = None
    for name, mesh in meshes.items():
        asset = textured(mesh)
        for grid in GRIDS:
            seconds, last = timed(lambda asset=asset, grid=grid: mesh_to_ovoxel(asset, grid))
            count = len(last.coords)
            print(
                f"{name:<14} {asset.num_faces:>7} {grid:>5} {count:>9} {seconds:>8.3f} "
                f"{seconds / count * 1e6:>9.2f}"
            )
    assert last is not None
    seconds, (_, faces) = timed(lambda: ovoxel_to_mesh(last))
    print(f"mesh of the last: {len(faces)} faces, {seconds:.2f} s")
    for options in ({}, {"compression": "zstd", "level": 3}, {"compression": "none"}):
        write_s, data = timed(lambda options=options: vxz.write_ovoxel(last, **options))
        read_s, _ = timed(lambda data=data: vxz.read_vxz(data))
        label = options.get("compression", "lzma")
        print(f"vxz {label:<5} {len(data):>10} bytes, write {write_s:.2f} s, read {read_s:.2f} s")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
