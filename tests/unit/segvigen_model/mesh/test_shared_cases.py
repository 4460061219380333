"""The public cases beside the checkout, each with the right value. They are not ours to copy.

The same kinds are rebuilt in code in the tests of each format; this runs the very files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import SUFFIXES

SHARED = Path(os.environ.get("SEGVIGEN_SHARED", Path(__file__).resolve().parents[5] / "shared"))
CASES = SHARED / "cases/mesh_files"
FOLDERS = sorted(path.name for path in CASES.iterdir()) if CASES.is_dir() else []


@dataclass(frozen=True)
class Right:
    """What a case has to give; None = not part of the case.

    Attributes:
        reason: of the refusal; then there is no mesh.
        low, high: bounds of the surface.
        colors: the different vertex colours, ascending.
        materials: (name, base colour, first texel) of each.
        has_uv: whether there are texture coordinates.
    """

    reason: str = ""
    faces: int | None = None
    area: float | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    colors: list[list[int]] | None = None
    materials: list[tuple[str, tuple[float, ...], list[int] | None]] | None = None
    has_uv: bool | None = None


BOX: dict[str, Any] = {"faces": 12, "area": 6, "low": (-0.5,) * 3, "high": (0.5,) * 3}
RED_MATERIAL: dict[str, Any] = {**BOX, "materials": [("red", (1, 0, 0, 1), None)]}
WHITE: dict[str, Any] = {"materials": [("plain", (1, 1, 1, 1), None)]}
RED, GREEN, WHITE_COLOR = [255, 0, 0, 255], [0, 255, 0, 255], [255, 255, 255, 255]
ORANGE = [255, 128, 0, 255]
RED_TEXEL, BLUE_TEXEL = [200, 10, 10, 255], [10, 10, 200, 255]
GREEN_TEXEL = [10, 200, 10, 255]

GLTF_WHITE = (1.0, 1.0, 1.0, 1.0)

RIGHT = {
    "glb-16bit-gray-texture": Right(
        **BOX, materials=[("material_0", GLTF_WHITE, [64, 64, 64, 255])]
    ),
    "glb-instancing-used": Right(faces=36, area=18, low=(-0.5, -0.5, -0.5), high=(6.5, 0.5, 0.5)),
    "glb-json-nul-padded": Right(**BOX),
    "glb-shared-accessor": Right(faces=124002, area=62001),
    "glb-skinned-node-transform": Right(
        faces=24, area=12, low=(-0.5, -0.5, -0.5), high=(3.5, 0.5, 0.5)
    ),
    "glb-texture-without-source": Right(
        **BOX, materials=[("material_0", GLTF_WHITE, [9, 9, 9, 255])]
    ),
    "gltf-data-uri-unpadded": Right(**BOX),
    "obj-bom": Right(**BOX),
    "obj-bom-mtllib": Right(**RED_MATERIAL),
    "obj-concave-ngon": Right(faces=4, area=3, low=(0, 0, 0), high=(2, 2, 0)),
    "obj-indent-mixed": Right(**BOX),
    "obj-index-zero": Right("unreadable"),
    "obj-latin1-material": Right(**BOX, materials=[("gr\u00fcn", (1, 0, 0, 1), None)]),
    "obj-mtllib-in-comment": Right(**RED_MATERIAL),
    "obj-mtllib-two-names": Right(**RED_MATERIAL),
    "obj-negative-interleaved": Right(
        faces=36, area=18, low=(-0.5, -0.5, -0.5), high=(6.5, 0.5, 0.5)
    ),
    "obj-part-of-vertices-coloured": Right(faces=24, area=12, colors=[RED, WHITE_COLOR]),
    "obj-part-without-vt": Right(**BOX, materials=[("t", (1, 1, 1, 1), GREEN_TEXEL)], has_uv=True),
    "obj-tabs-all": Right(**BOX),
    "obj-tabs-mixed": Right(**BOX),
    "obj-trailing-comment": Right(**BOX),
    "obj-two-mtllib-lines": Right(**RED_MATERIAL),
    "obj-usemtl-tab": Right(**RED_MATERIAL),
    "obj-uv-and-vertex-colours": Right(**BOX, **WHITE, colors=[RED], has_uv=True),
    "obj-uv-no-material": Right(**BOX, **WHITE, has_uv=True),
    "obj-vertex-colours-and-mtl": Right(**BOX, colors=[GREEN]),
    "coff-colours": Right(**BOX, colors=[ORANGE]),
    "off-glued-header": Right(**BOX),
    "off-truncated": Right("truncated"),
    "ply-ascii-truncated": Right("truncated"),
    "ply-binary-mix-averages-out": Right(faces=6, area=3),
    "ply-binary-trailing-bytes": Right(**BOX),
    "ply-binary-tri-quad-mix": Right(**BOX),
    "ply-concave-ngon": Right(faces=3, area=2.5),
    "ply-diffuse-red": Right(**BOX, colors=[ORANGE]),
    "ply-float255-colours": Right(**BOX, colors=[ORANGE]),
    "ply-latin1-comment": Right(**BOX),
    "ply-quads-face-colours": Right(**BOX, colors=[[40 * n, 0, 0, 255] for n in range(6)]),
    "ply-r-g-b": Right(**BOX, colors=[ORANGE]),
    "ply-tristrips": Right(faces=2, area=1),
    "ply-two-textures": Right(
        **BOX,
        materials=[("a.png", (1, 1, 1, 1), RED_TEXEL), ("b.png", (1, 1, 1, 1), BLUE_TEXEL)],
        has_uv=True,
    ),
    "ply-ushort-colours": Right(**BOX, colors=[ORANGE]),
    "ply-uv-and-colours-no-texture": Right(**BOX, **WHITE, colors=[GREEN], has_uv=True),
    "stl-ascii-bom": Right(**BOX),
    "stl-ascii-cr-lines": Right(**BOX),
    "stl-ascii-name-with-keyword": Right(**BOX),
    "stl-ascii-no-endsolid": Right(**BOX),
    "stl-ascii-second-solid-cut": Right("truncated"),
    "stl-ascii-uppercase": Right(**BOX),
    "stl-binary-trailing-bytes": Right(**BOX),
}


@pytest.mark.skipif(not FOLDERS, reason="needs ../shared/cases/mesh_files")
def test_the_cases_are_there():
    assert set(RIGHT) <= set(FOLDERS), "a row without its case tests nothing"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_public_case_gives_the_right_value(name):
    assert name in RIGHT, "a case without its right value tests nothing"
    right = RIGHT[name]
    (file,) = (path for path in CASES.joinpath(name).glob("a.*") if path.suffix[1:] in SUFFIXES)
    if right.reason:
        with pytest.raises(AssetRejected) as caught:
            load_mesh(file)
        assert caught.value.reason == right.reason
        return
    mesh = load_mesh(file)
    sides = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2
    used = mesh.used_vertices
    assert right.faces in (None, mesh.num_faces)
    assert right.area is None or area == pytest.approx(right.area)
    assert right.low is None or used.min(0).tolist() == pytest.approx(right.low)
    assert right.high is None or used.max(0).tolist() == pytest.approx(right.high)
    assert right.has_uv in (None, mesh.corner_uv is not None)
    if right.colors is not None:
        assert np.unique(mesh.vertex_colors, axis=0).tolist() == right.colors
    if right.materials is not None:
        assert [describe(material) for material in mesh.materials] == right.materials


def describe(material):
    texture = material.base_color_texture
    texel = None if texture is None else texture[0, 0].tolist()
    return material.name, material.base_color_factor, texel
