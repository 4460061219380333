"""The demo's bucket: always the same bytes, and labels that fit the files as read back."""

import hashlib

import numpy as np
import pytest

from flows.demo import assets
from flows.demo.assets import make_objects, sort_labels_by_file
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.errors import AssetRejected, SegvigenError
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb


@pytest.fixture(scope="module")
def objects():
    return make_objects()


def test_the_bucket_is_the_same_every_time(objects):
    again = {item.key: item.data for item in make_objects()}
    assert again == {item.key: item.data for item in objects}


def test_a_dozen_good_ones_a_broken_one_and_a_copy(objects):
    labelled = [item for item in objects if item.true_labels is not None]
    assert len(labelled) == 12
    suffixes = {item.key.rpartition(".")[2] for item in labelled}
    assert suffixes == {"glb", "obj", "ply", "stl"}
    hashes = [hashlib.sha256(item.data).hexdigest() for item in objects]
    assert len(hashes) - len(set(hashes)) == 1
    broken = next(item for item in objects if item.name == "broken.glb")
    with pytest.raises(AssetRejected):
        mesh_from_bytes(broken.data, ".glb")


def test_labels_follow_the_faces(objects):
    by_name = {item.name: item for item in objects}
    side = {name: item.data for name, item in by_name.items() if name.endswith(".mtl")}
    for category, seed, is_textured, suffix in assets.SHAPES:
        item = by_name[f"{category}{suffix}"]
        shape = make_asset(category, seed, textured=is_textured)
        loaded = mesh_from_bytes(item.data, suffix, side_files=side)
        for part in range(len(shape.part_names)):
            got = loaded.triangles[item.true_labels == part].mean(axis=(0, 1))
            want = shape.mesh.triangles[shape.face_labels == part].mean(axis=(0, 1))
            assert np.allclose(got, want, atol=1e-3), f"{category} part {part}"


def test_another_mesh_is_noticed():
    chair, table = make_asset("chair", 1), make_asset("table", 1)
    loaded = mesh_from_bytes(mesh_to_glb(table.mesh), ".glb")
    with pytest.raises(SegvigenError, match="differs from its mesh"):
        sort_labels_by_file(chair, loaded)
