"""A format that is not read is refused by name, with the way to one that is."""

from __future__ import annotations

import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.converters import CONVERTERS
from segvigen_model.mesh.io import SUFFIXES, mesh_from_bytes


def test_no_format_is_both_read_and_refused():
    assert not set(CONVERTERS) & set(SUFFIXES)


@pytest.mark.parametrize(
    ("suffix", "hint"),
    [(".blend", "Blender"), ("LWO", "Blender"), ("3ds", "assimp"), ("step", "FreeCAD"),
     ("max", "3ds Max"), ("dae", "COLLADA2GLTF"), ("splat", "points"), ("rar", "ZIP"),
     ("exe", "export as one of glb, gltf")],
)  # fmt: skip
def test_the_message_names_the_converter(suffix, hint):
    with pytest.raises(AssetRejected, match=rf"unsupported_format.*{hint}"):
        mesh_from_bytes(b"anything", suffix)
