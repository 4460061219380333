"""Geometry that misled the model: hundreds of pieces, copies of faces, no area, odd places."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from segvigen_model import Segmenter
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.types import AssetMesh, Material


@pytest.fixture(scope="module")
def default() -> Segmenter:
    return Segmenter.from_checkpoint("default")


def make_boxes(count: int) -> AssetMesh:
    """Boxes of side .3, one apart, in a square."""
    side = int(np.ceil(np.sqrt(count)))
    box = trimesh.creation.box((0.3, 0.3, 0.3))
    places = np.array([(i % side, 0, i // side) for i in range(count)], np.float64)
    vertices = (box.vertices[None] + places[:, None]).reshape(-1, 3)
    faces = (box.faces[None] + 8 * np.arange(count)[:, None, None]).reshape(-1, 3)
    return AssetMesh(vertices, faces, np.zeros(len(faces), np.int32), (Material(),))


@pytest.mark.parametrize("count", [400, 420, 529, 900])
def test_as_many_parts_as_separate_boxes(default, count):
    session = default.open(make_boxes(count))
    found = session.propose()
    assert found.num_parts == count
    boxes = found.face_labels.reshape(count, 12)
    assert (boxes == boxes[:, :1]).all()
    assert len(np.unique(boxes[:, 0])) == count


def test_fragments_beside_a_large_piece_are_no_parts(default):
    rng = np.random.default_rng(0)
    pieces = [trimesh.creation.icosphere(2)]
    for _ in range(410):
        direction = rng.normal(size=3)
        fragment = trimesh.creation.box((0.004,) * 3)
        pieces.append(fragment.apply_translation(1.001 * direction / np.linalg.norm(direction)))
    whole = trimesh.util.concatenate(pieces)
    mesh = AssetMesh(
        np.array(whole.vertices), np.array(whole.faces), np.zeros(len(whole.faces), np.int32),
        (Material(),),
    )  # fmt: skip
    assert default.open(mesh).propose().num_parts < 40


def test_copies_of_a_face_are_read_and_proposed(default):
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 3 4\nf 1 4 2\nf 2 4 3\n"
    mesh = mesh_from_bytes((text + "f 1 2 3\n" * 1200).encode(), "obj")
    assert mesh.num_faces == 1204
    found = default.open(mesh).propose()
    assert np.isfinite(found.part_confidence).all() and 0 <= found.confidence <= 1


@pytest.mark.parametrize(
    "text",
    [
        "v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n",
        "v 0 0 0\nv 1 0 0\nv 2 0 0\nv 3 0 0\nf 1 2 3\nf 2 3 4\nf 1 1 2\n",
    ],
)
def test_faces_without_any_area_are_refused(text):
    with pytest.raises(AssetRejected, match="area") as found:
        mesh_from_bytes(text.encode(), "obj")
    assert found.value.reason == "degenerate"


def test_some_faces_without_area_do_no_harm(default):
    box = trimesh.creation.box()
    faces = np.concatenate([box.faces, [[0, 0, 1], [2, 2, 2], [0, 1, 0]]])
    mesh = AssetMesh(np.array(box.vertices), faces, np.zeros(len(faces), np.int32), (Material(),))
    found = default.open(mesh).propose()
    assert np.isfinite(found.part_confidence).all() and np.isfinite(found.confidence)
    assert set(np.unique(found.face_labels)) == set(range(found.num_parts))


@pytest.mark.parametrize(("scale", "place"), [(1e-6, 0.0), (1.0, 4.5e6), (1e5, -3e8)])
def test_parts_do_not_depend_on_where_and_how_large(default, scale, place):
    made = make_asset("table", 1, textured=False).mesh
    # Multiples of 2^-8: exact at every place.
    exact = np.round(made.vertices * 256) / 256
    plain = AssetMesh(exact, made.faces, np.zeros(made.num_faces, np.int32), (Material(),))
    moved = AssetMesh(exact * scale + place, made.faces, plain.face_material, plain.materials)
    first = default.open(plain).propose()
    again = default.open(moved).propose()
    assert again.num_parts == first.num_parts
    assert np.mean(again.face_labels == first.face_labels) > 0.95
