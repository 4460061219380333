"""Khronos' validator finds no error in any GLB that is written."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.viewer.build import find_node
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import make_part_colors, mesh_to_glb, parts_to_glb
from segvigen_model.types import AssetMesh, Material

FOLDER = Path(__file__).resolve().parents[4] / "validator"


@pytest.fixture(scope="module")
def validate():
    if not (FOLDER / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("gltf-validator is not installed; `make test` installs it")

    def run(files: list[Path]) -> dict[str, dict]:
        argv = [str(find_node().node), str(FOLDER / "validate.mjs"), *map(str, files)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return {Path(r["file"]).name: r for r in map(json.loads, done.stdout.splitlines())}

    return run


def make_meshes() -> dict[str, AssetMesh]:
    plain = make_asset("chair", 1, textured=False).mesh
    textured = make_asset("table", 2, textured=True).mesh
    image = np.full((3, 5, 4), 200, np.uint8)
    full = Material(
        "\u0000 <odd> \ud800 name",
        alpha_mode="MASK",
        base_color_texture=image,
        metallic_roughness_texture=image[..., :3].copy(),
        emissive_texture=image[..., :3].copy(),
        normal_texture=image[..., :3].copy(),
        emissive_factor=(0.5, 1.0, 0.0),
    )
    colored = replace(
        plain, vertex_colors=np.full((len(plain.vertices), 4), 90, np.uint8), vertex_normals=None
    )
    rich = replace(
        plain,
        materials=(*plain.materials, full),
        face_material=(np.arange(plain.num_faces) % (len(plain.materials) + 1)).astype(np.int32),
        corner_uv=np.random.default_rng(0).random((plain.num_faces, 3, 2)).astype(np.float32),
    )
    far = replace(rich, vertices=rich.vertices + np.array([4.5e6, 0.1, -3.3e5]))
    tiny = replace(plain, vertices=plain.vertices * 1e-6)
    corner = plain.faces.copy()
    corner[::5, 1] = corner[::5, 0]  # degenerate faces, whose normals are none
    flat = replace(plain, faces=corner)
    return {
        "plain": plain, "textured": textured, "colored": colored, "rich": rich, "far": far,
        "tiny": tiny, "flat": flat,
    }  # fmt: skip


def test_no_written_file_has_an_error(validate, tmp_path):
    files = []
    for name, mesh in make_meshes().items():
        labels = (np.arange(mesh.num_faces) % 4).astype(np.int32)
        colors = make_part_colors(4)
        names = ("seat", "", "\ud800\u0000", "x" * 300)
        for look, data in {
            "mesh": mesh_to_glb(mesh),
            "labels": mesh_to_glb(mesh, labels - 1),
            "painted": parts_to_glb(mesh, labels, colors, names),
            "sourced": parts_to_glb(mesh, labels, colors, names, is_painted=False),
        }.items():
            files.append(tmp_path / f"{name}-{look}.glb")
            files[-1].write_bytes(data)
    reports = validate(files)
    assert len(reports) == len(files)
    for name, report in reports.items():
        assert report["info"]["totalTriangleCount"] > 0, name
        errors = [m for m in report["issues"]["messages"] if m["severity"] == 0]
        assert errors == [], f"{name}: {errors[:3]}"


def test_the_validator_sees_errors(validate, tmp_path):
    data = mesh_to_glb(make_meshes()["plain"])
    (tmp_path / "broken.glb").write_bytes(data.replace(b'"VEC3"', b'"VEC2"', 1))
    (report,) = validate([tmp_path / "broken.glb"]).values()
    assert report["issues"]["numErrors"] > 0
