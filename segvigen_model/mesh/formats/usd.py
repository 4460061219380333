"""USD (text, binary and USDZ) by Pixar's usd-core, in a confined process only.

The library puts the scene together from layers in memory (`usd_layers.py`); which meshes are drawn
and where is walked here, polygons are cut by `triangulate.py`. Frame: glTF's, metres, Y up.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segvigen_model.mesh.formats.isolation import require_isolation
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.mesh.formats.usd_layers import UsdLayers
from segvigen_model.mesh.formats.usd_library import translate_errors
from segvigen_model.mesh.formats.usd_materials import UsdMaterials
from segvigen_model.mesh.formats.usd_mesh import read_mesh
from segvigen_model.mesh.formats.usd_scene import UsdWalk, open_stage


def read_usd(
    data: bytes, kind: str, side_files: Mapping[str, bytes], limits: MeshLimits
) -> list[Piece]:
    """Read a USD scene into placed pieces.

    Args:
        data: the whole file.
        kind: "usd", "usda", "usdc" or "usdz".
        side_files: layers and textures, by the name written or by their path.
        limits: checked on each mesh's counts before triangles are made.

    Raises:
        AssetRejected: the file cannot be used.
        MissingExtra: usd-core is not installed.
    """
    require_isolation("USD")
    layers = UsdLayers(side_files, limits)
    root = layers.open_root(data, kind)
    with translate_errors("the USD scene"):
        return _read_stage(root, layers, limits)


def _read_stage(root: object, layers: UsdLayers, limits: MeshLimits) -> list[Piece]:
    walk = UsdWalk(open_stage(root), limits)
    materials = UsdMaterials(layers, limits)
    known: dict[str, Piece] = {}
    pieces, num_faces, num_vertices = [], 0, 0
    for drawn in walk.list_drawn():
        path = str(drawn.prim.GetPath())
        if path not in known:  # an instancer draws the same mesh again and again
            known[path] = read_mesh(drawn.prim, materials, limits, walk.time)
        piece = known[path]
        num_faces, num_vertices = num_faces + len(piece.faces), num_vertices + len(piece.vertices)
        check_counts(num_faces, num_vertices, limits)
        pieces.append(place_piece(piece, drawn.matrix))
    reported = Piece(
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        (materials.plain,),
        repairs=tuple((walk.counts + materials.counts + layers.counts).items()),
    )
    return [*pieces, reported]
