from __future__ import annotations

import struct

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

CUBE = [[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
MIXED = [*QUADS[:3], *(part for q in QUADS[3:] for part in (q[:3], [q[0], q[2], q[3]]))]


def make_off(word="OFF", extra="", faces=MIXED, colors=None, counts=None, vertices=CUBE):
    colors = [""] * len(faces) if colors is None else colors
    counts = f"{len(vertices)} {len(faces)} 0" if counts is None else counts
    rows = [f"{' '.join(map(str, row))} {extra}".strip() for row in vertices]
    rows += [
        f"{len(row)} {' '.join(map(str, row))} {color}".strip()
        for row, color in zip(faces, colors, strict=True)
    ]
    return "\n".join([word, counts, *rows]) + "\n"


def read(text, **more):
    return mesh_from_bytes(text.encode() if isinstance(text, str) else text, "off", **more)


def refused(text, **more):
    with pytest.raises(AssetRejected) as caught:
        read(text, **more)
    return caught.value


def area(mesh):
    sides = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    return np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2


def is_cube(mesh):
    return mesh.num_faces == 12 and area(mesh) == 6 and np.array_equal(mesh.vertices, CUBE)


PLAIN = make_off()
VARIANTS = {
    "as it is": PLAIN,
    "glued header": PLAIN.replace("OFF\n", "OFF", 1),
    "counts on the first line": PLAIN.replace("OFF\n", "OFF ", 1),
    "lower case": PLAIN.replace("OFF", "off"),
    "no word": PLAIN.replace("OFF\n", ""),
    "byte order mark": "\ufeff" + PLAIN,
    "comments": "# one\n" + PLAIN.replace("\n", " # 7 8 9\n#\n \n"),
    "comment behind the word": PLAIN.replace("OFF\n", "OFF # from 3 8\n", 1),
    "carriage returns": PLAIN.replace("\n", "\r"),
    "both": PLAIN.replace("\n", "\r\n"),
    "tabs and indent": PLAIN.replace("\n", "\n\t ").replace(" ", "\t"),
    "no number of edges": PLAIN.replace("8 9 0\n", "8 9\n"),
    "counts over lines": PLAIN.replace("8 9 0\n", "8\n9\n0\n"),
    "edges on a line of their own": PLAIN.replace("8 9 0\n", "8 9\n0\n"),
    "no line end at the end": PLAIN.rstrip(),
    "all on one line": PLAIN.replace("\n", " "),
    "a number a line": PLAIN.replace(" ", "\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_texts_of_many_writers(name):
    mesh = read(VARIANTS[name])
    assert is_cube(mesh)
    assert mesh.announced == {"faces": 9, "vertices": 8}
    assert mesh.repairs == ()
    for triangle, polygon in zip(mesh.faces, mesh.face_polygons, strict=True):
        assert set(triangle) <= set(MIXED[polygon])


FAMILY = {
    ("COFF", "255 128 0 255"): "color",
    ("COFF", "255 128 0"): "color",
    ("COFF", "1.0 0.5 0 1"): "color",
    ("coff", "255 128 0 255"): "color",
    ("NOFF", "0 0 1"): "normal",
    ("CNOFF", "0 0 1 255 128 0 255"): "color normal",
    ("NCOFF", "255 128 0 255 0 0 1"): "color normal",
    ("STOFF", ".25 .75"): "uv",
    ("STCNOFF", "0 0 1 1 .5 0 1 .25 .75"): "color normal uv",
    ("4OFF", "1"): "",
    ("C4OFF", "1 255 128 0 255"): "color",
}


@pytest.mark.parametrize(("word", "extra"), FAMILY)
def test_the_whole_family(word, extra):
    mesh = read(make_off(word, extra))
    has = FAMILY[word, extra]
    assert is_cube(mesh)
    if "color" in has:
        assert np.unique(mesh.vertex_colors, axis=0).tolist() == [[255, 128, 0, 255]]
    else:
        assert mesh.vertex_colors is None
    if "normal" in has:
        assert (mesh.vertex_normals == [0, 0, 1]).all()
    assert (mesh.corner_uv is not None) == ("uv" in has)
    if "uv" in has:
        assert (mesh.corner_uv == [0.25, 0.25]).all(), "v points down"


def test_homogeneous_positions_are_divided():
    mesh = read(make_off("4OFF", "2"))
    np.testing.assert_array_equal(mesh.vertices, np.array(CUBE) / 2)
    assert "infinity" in refused(make_off("4OFF", "0")).message


def test_dimensions_other_than_three():
    assert is_cube(read(make_off("nOFF\n3")))
    error = refused(make_off("nOFF\n5", "0 0"))
    assert error.reason == "unsupported_format" and "5 dimensions" in error.message


def test_columns_that_the_word_does_not_announce():
    assert np.unique(read(make_off("OFF", "255 128 0 255")).vertex_colors, axis=0).tolist() == [
        [255, 128, 0, 255]
    ]
    mesh = read(make_off("OFF", "0 0 -1"))
    assert is_cube(mesh) and mesh.repairs == (("vertex_columns_left_out", 3),)
    for word, extra in (("COFF", ""), ("NOFF", "1"), ("COFF", "1 2")):
        assert refused(make_off(word, extra)).reason == "unreadable"


def test_colours_of_faces():
    colors = ["255 0 0", "0 255 0 128", "", "7", "0.0 0.0 255.0", "1 1 1", "", "", "9 9 9 9"]
    mesh = read(make_off(colors=colors))
    shades = mesh.vertex_colors[mesh.faces]
    expected = {
        0: [255, 0, 0, 255], 1: [0, 255, 0, 128], 2: [255] * 4, 3: [255] * 4,
        4: [0, 0, 255, 255], 5: [1, 1, 1, 255], 8: [9] * 4,
    }  # fmt: skip
    for polygon, color in expected.items():
        assert (shades[mesh.face_polygons == polygon] == color).all()
    assert mesh.repairs == (("color_indices_left_out", 1),)
    fractions = read(make_off(colors=["1 0.5 0"] * 9))
    assert np.unique(fractions.vertex_colors, axis=0).tolist() == [[255, 128, 0, 255]]


def make_binary(order=">", faces=MIXED, word=b"OFF BINARY\n", extra=()):
    data = word + struct.pack(f"{order}3i", 8, len(faces), 0)
    data += b"".join(struct.pack(f"{order}{3 + len(extra)}f", *row, *extra) for row in CUBE)
    for row in faces:
        data += struct.pack(f"{order}{len(row) + 1}i", len(row), *row)
        data += struct.pack(f"{order}i", 0) if len(row) == 3 else struct.pack(
            f"{order}i4f", 4, 1, 0.5, 0, 1
        )  # fmt: skip
    return data


def test_binary_files():
    mesh = read(make_binary())
    assert (mesh.num_faces, area(mesh)) == (12, 6)
    shades = mesh.vertex_colors[mesh.faces]
    assert (shades[:6] == [255, 128, 0, 255]).all() and (shades[6:] == 255).all()
    mesh = read(make_binary(word=b"COFF BINARY\r\n", faces=[[0, 1, 2]], extra=(1, 0.5, 0, 1)))
    assert mesh.vertex_colors[0].tolist() == [255, 128, 0, 255]
    assert read(make_binary() + b"tail").repairs == (("trailing_bytes", 4),)
    for length in range(12, len(make_binary())):
        assert refused(make_binary()[:length]).reason == "truncated"
    assert refused(make_binary("<")).reason in ("truncated", "unreadable")
    assert refused(make_binary(word=b"nOFF BINARY\n")).reason == "unsupported_format"
    assert refused(make_binary(faces=[])).reason == "no_faces"


def test_a_cut_at_any_line_is_truncated():
    lines = PLAIN.split("\n")
    for count in range(1, len(lines) - 1):
        text = "\n".join(lines[:count]) + "\n"
        assert refused(text).reason == "truncated", count
        assert refused(text[:-2]).reason in ("truncated", "unreadable", "wrong_extension")


def test_a_face_behind_the_announced_ones_is_no_tail():
    assert "after them stands another" in refused(PLAIN + "3 0 1 2\n").message
    for tail in ("the end\n", "0\n", "3 0 1 99\n"):
        assert read(PLAIN + tail).repairs == (("trailing_bytes", len(tail)),)


BAD_FACES = {
    "length": ("4294967296 0 1 2", "4294967296 corners"),
    "no corner": ("0", "has 0 corners"),
    "two corners": ("2 1 3", "has 2 corners"),
    "too short": ("4 0 1 2", "4 corners, its line has 3 numbers"),
    "too long": ("3 0 1 2 3 4", "2 numbers behind its corners"),
    "far": ("3 0 1 8", "names vertex 8 of 8"),
    "negative": ("3 0 1 -1", "names vertex -1 of 8"),
    "fraction": ("3 0 1 2.5", "2.5 is no whole number"),
    "negative length": ("-3 0 1 2", "-3 corners"),
    "word": ("3 0 1 x", "b'x' is no number"),
}


@pytest.mark.parametrize("name", BAD_FACES)
def test_impossible_faces(name):
    row, message = BAD_FACES[name]
    text = PLAIN.replace("3 2 3 7", row)
    assert text != PLAIN
    error = refused(text)
    assert error.reason == "unreadable" and message in error.message


def test_impossible_counts():
    assert refused(make_off(counts="8 -9 0")).reason == "unreadable"
    assert refused(make_off(counts="8.5 9 0")).reason == "unreadable"
    assert refused(make_off(counts="8 99999999999 0")).reason == "truncated"
    assert refused(make_off(counts="8 10 0")).reason == "truncated"
    assert refused(make_off(counts="9 8 0")).reason in ("truncated", "unreadable")
    assert refused(make_off(counts="7 10 0")).reason == "unreadable"
    assert refused("OFF\n").reason == "truncated"


def test_positions_that_are_no_numbers():
    assert refused(PLAIN.replace("0.0 1.0 1.0", "0.0 nan 1.0")).reason == "nan_vertices"
    assert refused(PLAIN.replace("0.0 1.0 1.0", "0.0 1,0 1.0")).reason == "unreadable"


def test_limits():
    assert refused(PLAIN, limits=MeshLimits(max_faces=8)).reason == "too_many_faces"
    assert refused(PLAIN, limits=MeshLimits(max_faces=11)).reason == "too_many_faces"
    assert refused(PLAIN, limits=MeshLimits(max_vertices=7)).reason == "too_many_vertices"


def test_the_same_face_many_times_and_faces_without_area_are_kept():
    faces = [[0, 1, 3]] * 5 + [[0, 0, 1], [2, 2, 2]]
    assert read(make_off(faces=faces)).faces.tolist() == faces
