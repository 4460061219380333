"""OBJ files and what lies beside them: materials and textures, late, absent or out of bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.labelling.loading import load_asset_info, load_asset_mesh


def test_an_obj_that_came_before_its_material_is_looked_at_again(pipeline: Any) -> None:
    text = b"mtllib mats/a.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    pipeline.raw.put("o/a.obj", text)
    pipeline.raw.put("o/copy.obj", text)
    assert pipeline.ingest() == {"o/a.obj": "registered", "o/copy.obj": "duplicate"}
    assert pipeline.ingest() == {}
    pipeline.raw.put("o/mats/a.mtl", b"newmtl red\nKd 1 0 0\nmap_Kd red.png\n")
    assert pipeline.ingest() == {"o/a.obj": "registered", "o/copy.obj": "duplicate"}
    assert pipeline.ingest() == {}, "the picture is still away"
    made = load_asset_info(pipeline.store, pipeline.catalogue.raw.get("o/a.obj").asset_id)
    assert (sorted(made["side_files"]), made["num_materials"]) == (["mats/a.mtl"], 1)
    pictures = ["o/mats/red.png", "o/red.png"]
    assert pipeline.catalogue.raw.list_awaited() == {"o/a.obj": pictures, "o/copy.obj": pictures}


def test_obj_with_material_and_texture(pipeline: Any) -> None:
    from io import BytesIO

    from PIL import Image

    picture = BytesIO()
    Image.new("RGB", (2, 2), (200, 10, 10)).save(picture, "png")
    pipeline.raw.put(
        "o/a.obj",
        b"mtllib mats/a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
        b"usemtl red\nf 1/1 2/2 3/3\n",
    )
    pipeline.raw.put("o/mats/a.mtl", b"newmtl red\nKd 1 1 1\nmap_Kd red.png\n")
    pipeline.raw.put("o/mats/red.png", picture.getvalue())
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    (asset,) = pipeline.catalogue.list_assets()
    about = load_asset_info(pipeline.store, asset.asset_id)
    assert sorted(about["side_files"]) == ["mats/a.mtl", "red.png"]
    texture = load_asset_mesh(pipeline.store, asset).materials[0].base_color_texture
    assert texture is not None
    assert texture[0, 0, :3].tolist() == [200, 10, 10]


def test_an_obj_without_its_material_is_taken_and_reports_it(pipeline: Any) -> None:
    pipeline.raw.put("a.obj", b"mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert pipeline.ingest() == {"a.obj": "registered"}
    (asset,) = pipeline.catalogue.list_assets()
    assert load_asset_info(pipeline.store, asset.asset_id)["missing_side_files"] == ["gone.mtl"]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "C:\\x", "a/../../b"])
def test_side_files_outside_the_folder_are_never_read(
    pipeline: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_bytes(b"newmtl x\n")
    pipeline.raw.put(
        "deep/er/a.obj", f"mtllib {name}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n".encode()
    )
    pipeline.ingest()
    for asset in pipeline.catalogue.list_assets("registered"):
        assert load_asset_info(pipeline.store, asset.asset_id)["side_files"] == {}
