"""Names of other files in untrusted mesh files."""

from __future__ import annotations

import pytest

from segvigen_model.mesh.formats.side_names import find_names


@pytest.mark.parametrize(
    ("kind", "data", "names"),
    [
        ("gltf", b"no json", []),
        ("gltf", b'{"buffers": 3, "images": [3, {"uri": 4}]}', []),
        ("gltf", b'{"images": [{"uri": "\\ud800"}]}', ["\ud800"]),
        ("obj", b"mtllib a b.mtl \r\n MTLLIB .\\c.mtl\rv 0 0 0\rmtllib\n", ["a b.mtl", "c.mtl"]),
        ("obj", b"# mtllib a.mtl\nxmtllib b.mtl\nmtllib " + b"x" * 9000, ["x" * 4096]),
        ("mtl", b"map_Kd -s 1 1 1 a.png\nbump b.png\nKd 1 1 1", ["a.png", "b.png"]),
        ("ply", b"ply\ncomment TextureFile a.png\nend_header\ncomment TextureFile b", ["a.png"]),
        ("stl", b"mtllib a.mtl", []),
    ],
)
def test_names_of_other_files(kind: str, data: bytes, names: list[str]) -> None:
    assert find_names(data, kind, 9) == names
