"""The canonical parsed mesh: exact, byte-stable, and nothing in it is believed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.errors import AssetRejected, CorruptBlob, SegvigenError
from segvigen_model.mesh.canonical import mesh_from_canonical, mesh_to_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.types import AssetMesh, FaceOrigin, Material, NameColumn


def make_mesh(rng: np.random.Generator, *, num_faces: int = 7, is_plain: bool = False) -> AssetMesh:
    """Random values in every field of a mesh, or in the required ones only."""
    num_vertices = num_faces + 2
    texture = rng.integers(0, 256, (5, 3, 4), dtype=np.uint8)
    relief = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    materials = (
        Material("a\ud800 \0", (0.1, 0.2, 0.3, 1 / 3), base_color_texture=texture),
        Material("ü", alpha_mode="MASK", base_color_texture=texture, normal_texture=relief),
    )
    required = {
        "vertices": rng.normal(size=(num_vertices, 3)) + 4.5e6,
        "faces": rng.integers(0, num_vertices, (num_faces, 3)),
        "face_material": rng.integers(0, 2, num_faces).astype(np.int32),
        "materials": materials,
    }
    if is_plain:
        return AssetMesh(**required)
    return AssetMesh(
        **required,
        corner_uv=rng.normal(size=(num_faces, 3, 2)).astype(np.float32),
        vertex_colors=rng.integers(0, 256, (num_vertices, 4), dtype=np.uint8),
        vertex_normals=rng.normal(size=(num_vertices, 3)).astype(np.float32),
        face_geometry=rng.integers(0, 3, num_faces).astype(np.int32),
        geometry_names=("", "x\ud800", "y"),
        origin=FaceOrigin(
            np.arange(num_faces, dtype=np.int32),
            NameColumn(rng.integers(-1, 2, num_faces).astype(np.int32), ("a", "ü\udcff")),
            groups=None,
            materials=NameColumn(np.full(num_faces, -1, np.int32), ()),
        ),
        repairs=(("degenerate_faces", 3),),
        announced={"faces": num_faces, "vertices": num_vertices},
    )


CANONICAL = mesh_to_canonical(make_mesh(np.random.default_rng(0)))


def assert_same(one: Any, other: Any, where: str = "mesh") -> None:
    """Equal in type, shape, dtype and every bit."""
    assert type(one) is type(other), where
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            name = field.name
            assert_same(getattr(one, name), getattr(other, name), f"{where}.{name}")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        assert one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert_same(tuple(one), tuple(sorted(other)), where)
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


@given(seed=st.integers(0, 2**32), num_faces=st.integers(1, 50), is_plain=st.booleans())
@settings(max_examples=30, deadline=None)
def test_it_comes_back_as_it_was(seed: int, num_faces: int, is_plain: bool) -> None:
    mesh = make_mesh(np.random.default_rng(seed), num_faces=num_faces, is_plain=is_plain)
    data = mesh_to_canonical(mesh)
    back = mesh_from_canonical(data)
    assert_same(back, mesh)
    assert mesh_to_canonical(back) == data


def test_a_texture_is_stored_and_decoded_once() -> None:
    mesh = make_mesh(np.random.default_rng(0))
    back = mesh_from_canonical(mesh_to_canonical(mesh))
    assert back.materials[0].base_color_texture is back.materials[1].base_color_texture
    assert sum(name.startswith("texture/") for name in load_tensors(mesh_to_canonical(mesh))) == 2


def test_indices_beyond_32_bits_keep_their_value() -> None:
    mesh = make_mesh(np.random.default_rng(0))
    wide = dataclasses.replace(mesh, face_geometry=np.full(7, 2**40))
    assert_same(mesh_from_canonical(mesh_to_canonical(wide)), wide)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (MeshLimits(max_faces=6), "too_many_faces"),
        (MeshLimits(max_vertices=8), "too_many_vertices"),
        (MeshLimits(max_texture_pixels=30), "texture_too_large"),
    ],
)
def test_limits_hold_before_anything_is_unfolded(limits: MeshLimits, reason: str) -> None:
    data = mesh_to_canonical(make_mesh(np.random.default_rng(0)))
    with pytest.raises(AssetRejected) as caught:
        mesh_from_canonical(data, limits)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mesh.faces": np.full((7, 3), 9, np.int32)}, r"faces have rows outside 0\.\.8"),
        ({"mesh.faces": np.full((7, 3), -1, np.int32)}, "faces have rows outside"),
        ({"mesh.face_material": np.full(7, 2, np.int32)}, "face_material have rows outside"),
        ({"mesh.face_geometry": np.zeros(6, np.int32)}, r"face_geometry is int32 \(6,\)"),
        ({"mesh.corner_uv": np.zeros((6, 3, 2), np.float32)}, "corner_uv is float32"),
        ({"mesh.vertices": np.full((9, 3), np.nan)}, "vertices are not finite"),
        ({"mesh.vertices": np.zeros((9, 3), np.int64)}, "vertices is int64, not float64"),
        ({"mesh.face_material": None}, "KeyError"),
        ({"mesh.origin.polygons": np.zeros(6, np.int32)}, r"polygons are int32 \(6,\)"),
        ({"mesh.origin.objects.indices": np.full(7, 2, np.int32)}, r"objects have .* -1\.\.1"),
    ],
)
def test_damaged_arrays_are_named(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptBlob, match=message):
        mesh_from_canonical(edit(CANONICAL, **arrays))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "segvigen-mesh/9", "format is 'segvigen-mesh/9'"),
        ("mesh.$class", "Material", "TypeError"),
        ("mesh.$class", "os", "KeyError"),
        ("mesh.fields.unknown", 1, "TypeError"),
        ("mesh.fields.materials", [1, 2], "materials are none"),
        ("mesh.fields.vertices", None, "AttributeError|TypeError"),
        ("mesh.fields.vertices.dtype", "O", "not object"),
        ("mesh", {"$class": "NameColumn", "fields": {"indices": 1, "names": []}}, "a NameColumn"),
        ("mesh.fields.corner_uv", {"$texture": "no", "shape": [1, 1, 4]}, "KeyError"),
    ],
)
def test_damaged_descriptions_are_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(CorruptBlob, match=message):
        mesh_from_canonical(edit_about(CANONICAL, path, value))


def test_a_texture_of_another_size_is_refused() -> None:
    about = json.loads(load_tensors(CANONICAL)["about"].tobytes())
    entries = about["mesh"]["fields"]["materials"]
    entries[0]["fields"]["base_color_texture"]["shape"] = [3, 5, 4]
    with pytest.raises(CorruptBlob, match="a texture is"):
        mesh_from_canonical(edit_about(CANONICAL, "mesh.fields.materials", entries))


def edit(data: bytes, **arrays: Any) -> bytes:
    """The blob with other arrays; None = without it."""
    tensors = {**load_tensors(data), **arrays}
    return bytes(save_tensors({name: a for name, a in tensors.items() if a is not None}))


def edit_about(data: bytes, path: str, value: Any) -> bytes:
    """The blob with another value somewhere in its description."""
    about = json.loads(load_tensors(data)["about"].tobytes())
    *places, last = path.split(".")
    owner = about
    for place in places:
        owner = owner[place]
    owner[last] = value
    return edit(data, about=np.frombuffer(json.dumps(about).encode(), np.uint8))


@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_mutants_are_read_or_refused_by_our_errors(place: int, byte: int, cut: int) -> None:
    data = bytearray(CANONICAL)
    data[place % len(data)] = byte
    for mutant in (bytes(data), bytes(data[: cut % len(data)])):
        try:
            mesh_from_canonical(mutant)
        except SegvigenError as err:
            assert " at 0x" not in str(err)
