"""What a library user imports: cheap until it is used, complete, and enough for a first session."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import segvigen_model
from segvigen_model.errors import AssetRejected


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    code = "import segvigen_model, sys; print({'torch', 'numpy', 'trimesh'} & set(sys.modules))"
    assert run_python(code) == "set()"


def test_every_exported_name_loads_alone():
    code = "import segvigen_model as s; print(len([getattr(s, name) for name in s.__all__]))"
    assert run_python(code) == str(len(segvigen_model.__all__))
    assert set(segvigen_model.__all__) <= set(dir(segvigen_model))
    assert set(segvigen_model.__all__) == set(segvigen_model._MODULES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'segvigen_model' has no attribute 'Segmentor'"):
        _ = segvigen_model.Segmentor


def test_a_mesh_file_becomes_parts_and_a_coloured_file(two_boxes, segmenter, tmp_path):
    segvigen_model.save_glb(tmp_path / "boxes.glb", two_boxes)
    mesh = segvigen_model.load_mesh(str(tmp_path / "boxes.glb"))
    session = segmenter.open(mesh)
    assert isinstance(session, segvigen_model.Session)
    proposal = session.propose(num_draws=1, num_steps=1)
    assert isinstance(proposal, segvigen_model.Proposal)
    click = segvigen_model.Click(2, mesh.triangles[2].mean(axis=0), part=0)
    assert session.click([click])[2] == 1.0
    refined = session.refine(proposal, [click])
    assert refined.face_labels[2] == refined.refinement.id_map[0]
    segvigen_model.save_glb(str(tmp_path / "parts.GLB"), mesh, refined)
    shown = segvigen_model.load_mesh(tmp_path / "parts.GLB")
    assert shown.num_faces == mesh.num_faces
    assert shown.geometry_names == tuple(f"part {k}" for k in range(refined.num_parts))


def test_parts_are_written_as_coloured_nodes(two_boxes, tmp_path):
    labels = np.repeat([1, 0], 12)
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    segvigen_model.save_glb(tmp_path / "parts.glb", two_boxes, labels, colors)
    shown = segvigen_model.load_mesh(tmp_path / "parts.glb")
    triangles = np.concatenate([two_boxes.triangles[12:], two_boxes.triangles[:12]])
    assert np.allclose(shown.triangles, triangles)
    assert [m.base_color_factor[:3] for m in shown.materials] == [(1, 0, 0), (0, 0, 1)]


def test_files_that_cannot_be_written_or_read_are_refused(two_boxes, tmp_path):
    with pytest.raises(ValueError, match=r"parts.obj does not end in .glb"):
        segvigen_model.save_glb(tmp_path / "parts.obj", two_boxes)
    with pytest.raises(ValueError, match="give parts as well"):
        segvigen_model.save_glb(tmp_path / "a.glb", two_boxes, colors=np.zeros((24, 3), np.uint8))
    with pytest.raises(ValueError, match=r"part ids of shape \(3,\) for 24 faces"):
        segvigen_model.save_glb(tmp_path / "a.glb", two_boxes, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="give dense ids from 0"):
        segvigen_model.save_glb(tmp_path / "a.glb", two_boxes, np.full(24, -1))
    with pytest.raises(AssetRejected, match="unreadable_file"):
        segvigen_model.load_mesh(tmp_path / "absent.glb")
    assert list(tmp_path.iterdir()) == []
