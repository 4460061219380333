from __future__ import annotations

import struct

import numpy as np
import pytest
import trimesh

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats import stl_text
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

BOX = trimesh.creation.box().triangles


def facet(corners, normal="0 0 0", outer="outer loop", end="endloop"):
    lines = [f"facet normal {normal}", outer, *(f"vertex {x} {y} {z}" for x, y, z in corners), end]
    return "\n".join([*lines, "endfacet"]) + "\n"


def make_text(*solids, end=True):
    """Each solid is (name, triangles)."""
    text = ""
    for number, (name, triangles) in enumerate(solids):
        text += f"solid {name}\n" + "".join(facet(corners) for corners in triangles.tolist())
        if end or number + 1 < len(solids):
            text += f"endsolid {name}\n"
    return text


def make_binary(triangles, header=b"made in code", attributes=None, count=None):
    attributes = [0] * len(triangles) if attributes is None else attributes
    rows = [
        struct.pack("<12fH", 0, 0, 0, *np.ravel(corners), attribute)
        for corners, attribute in zip(triangles, attributes, strict=True)
    ]
    count = len(rows) if count is None else count
    return header.ljust(80) + struct.pack("<I", count) + b"".join(rows)


def read(data, **more):
    return mesh_from_bytes(data.encode() if isinstance(data, str) else data, "stl", **more)


def refused(data, **more):
    with pytest.raises(AssetRejected) as caught:
        read(data, **more)
    return caught.value


def is_box(mesh):
    return mesh.num_faces == 12 and np.allclose(mesh.triangles, BOX)


WHOLE = make_text(("box", BOX))
VARIANTS = {
    "as it is": WHOLE,
    "upper case": WHOLE.upper(),
    "mixed case": WHOLE.replace("facet", "Facet").replace("vertex", "VERTEX"),
    "byte order mark": "\ufeff" + WHOLE,
    "carriage returns": WHOLE.replace("\n", "\r"),
    "both": WHOLE.replace("\n", "\r\n"),
    "indent and tabs": WHOLE.replace("\n", "\n \t ").replace("vertex ", "vertex\t  "),
    "space in front": "\n  " + WHOLE,
    "empty lines": WHOLE.replace("\n", "\n\n"),
    "no name": WHOLE.replace(" box", ""),
    "no space before the name": WHOLE.replace(" box", "box"),
    "a name of keywords": WHOLE.replace("solid box", "solid facet normal vertex endfacet"),
    "another name at the end": WHOLE.replace("endsolid box", "endsolid of something else"),
    "two words": WHOLE.replace("endloop", "end loop").replace("endfacet", "end facet"),
    "end solid": WHOLE.replace("endsolid", "end solid"),
    "one line for a facet": WHOLE.replace("\n", " ").replace("solid box ", "solid box\n", 1)
    .replace("endsolid", "\nendsolid"),
    "zero bytes at the end": WHOLE + "\x00" * 100,
    "no line end at the end": WHOLE.rstrip(),
    "exponents": WHOLE.replace("0.5", "5.0E-01"),
    "normals that are no numbers": WHOLE.replace("normal 0 0 0", "normal -nan(ind) NaN 1.#QNAN"),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_texts_of_many_writers(name):
    mesh = read(VARIANTS[name])
    assert is_box(mesh)
    assert mesh.repairs == ()
    assert mesh.announced == {"faces": 12, "solids": 1}


def test_long_texts_are_read_in_blocks(monkeypatch):
    for size in (1, 200, 1000):
        monkeypatch.setattr(stl_text, "BLOCK_BYTES", size)
        assert is_box(read(WHOLE))


def test_every_solid_keeps_its_name_and_place():
    mesh = read(make_text(("Left Wheel", BOX), ("empty", BOX[:0]), ("b\u00e4r", BOX[:2] + 5)))
    assert mesh.num_faces == 14
    np.testing.assert_allclose(mesh.triangles, np.concatenate([BOX, BOX[:2] + 5]))
    names = mesh.origin.objects.names
    assert [names[index] for index in mesh.origin.objects.indices] == ["Left Wheel"] * 12 + [
        "b\u00e4r"
    ] * 2
    assert mesh.geometry_names == names
    assert mesh.announced["solids"] == 3


def test_without_endsolid_a_closed_surface_is_whole():
    mesh = read(make_text(("box", BOX), end=False))
    assert is_box(mesh)
    assert mesh.repairs == (("missing_endsolid", 1),)
    first = make_text(("a", BOX), end=False) + make_text(("b", BOX + 3))
    assert read(first).num_faces == 24, "the next solid says that the first is whole"


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_without_endsolid_a_hole_is_a_cut(count):
    assert refused(make_text(("a", BOX), ("b", BOX[count + 1 :]), end=False)).reason == "truncated"


def test_a_cut_at_any_place_of_the_text_is_refused():
    text = make_text(("a", BOX), ("b", BOX + 3))
    last, closed = text.index("endsolid a"), text.index("endsolid a") + len("endsolid")
    # The first solid alone is whole where its surface is closed, or its last line is there.
    whole = {last - 1, last, *range(closed, text.index("solid b", closed) + 1)}
    for length in sorted(set(range(1, text.index("\nendsolid b"))) - whole):
        reason = refused(text[:length]).reason
        assert reason in ("truncated", "unreadable", "wrong_extension", "no_faces"), length
        if length > 20:
            assert reason in ("truncated", "unreadable", "no_faces"), length


@pytest.mark.parametrize(
    "damage",
    [
        ("endfacet\nfacet normal 0 0 0", "endfacet\nfacet normal 0 0"),
        ("outer loop\nvertex", "vertex"),
        ("endloop\n", ""),
        ("vertex", "corner"),
        ("0.5", "0,5"),
        ("facet normal", "facetnormal"),
        ("endsolid box", "endsolid box\nfacet"),
        ("solid box", "x\nsolid box"),
    ],
)
def test_facets_that_are_not_whole(damage):
    old, new = damage
    assert old in WHOLE
    text = WHOLE[:5] + WHOLE[5:].replace(old, new, 1) if old != "solid box" else "x\n" + WHOLE
    assert refused(text).reason in ("unreadable", "wrong_extension")


def test_a_facet_of_four_corners_is_refused():
    lines = WHOLE.split("\n")
    at = lines.index("endloop")
    assert refused("\n".join([*lines[:at], "vertex 9 9 9", *lines[at:]])).reason == "unreadable"


@pytest.mark.parametrize("header", [b"made in code", b"solid box", b"  SOLID x facet normal", b""])
def test_a_binary_file_is_known_by_its_length(header):
    mesh = read(make_binary(BOX, header))
    assert is_box(mesh)
    assert mesh.vertex_colors is None and mesh.repairs == ()
    assert mesh.announced == {"faces": 12}


@pytest.mark.parametrize("header", [b"made in code", b"solid box"])
def test_bytes_behind_the_facets_are_tolerated_and_reported(header):
    for tail in (b"\r\n", b"\x00" * 512, b"written by a friendly program " * 4):
        mesh = read(make_binary(BOX, header) + tail)
        assert is_box(mesh)
        assert mesh.repairs == (("trailing_bytes", len(tail)),)


@pytest.mark.parametrize("count", [0, 1, 11])
def test_facets_behind_the_announced_ones_are_no_tail(count):
    error = refused(make_binary(BOX, count=count))
    assert error.reason == "unreadable" and f"announces {count} facets" in error.message


@pytest.mark.parametrize("header", [b"made in code", b"solid box"])
def test_a_cut_binary_file(header):
    data = make_binary(BOX, header)
    for length in (len(data) - 1, len(data) - 50, 134, 90, 84):
        assert refused(data[:length]).reason == "truncated"
    assert refused(make_binary(BOX, header, count=2**32 - 1)).reason == "truncated"


def test_colours_of_the_two_known_kinds():
    red, blue, own = 31 << 10, 31, 0x8000
    mesh = read(make_binary(BOX, attributes=[own | red, own | blue] * 5 + [0, 0]))
    shades = mesh.vertex_colors[mesh.faces]
    assert shades[0].tolist() == [[255, 0, 0, 255]] * 3
    assert shades[1, 0].tolist() == [0, 0, 255, 255]
    assert shades[11, 0].tolist() == [255] * 4, "a facet without a colour of its own"
    header = b"COLOR=" + bytes([10, 20, 30, 255]) + b",MATERIAL=xxxxxxxxxxxx"
    mesh = read(make_binary(BOX, header, attributes=[red, blue, own] * 4))
    shades = mesh.vertex_colors[mesh.faces][:3, 0].tolist()
    assert shades == [[0, 0, 255, 255], [255, 0, 0, 255], [10, 20, 30, 255]]
    mesh = read(make_binary(BOX, header))
    assert (mesh.vertex_colors == [10, 20, 30, 255]).all(), "the colour of the whole"


def test_attributes_that_may_be_anything_are_left_out_and_reported():
    mesh = read(make_binary(BOX, attributes=[0x8001, 7, 0] * 4))
    assert mesh.vertex_colors is None
    assert mesh.repairs == (("attribute_bytes_left_out", 8),)


def test_facets_without_area_and_the_same_facet_again_are_kept():
    triangles = np.concatenate([BOX, BOX[:3], np.zeros((2, 3, 3))])
    for data in (make_binary(triangles), make_text(("a", triangles))):
        np.testing.assert_allclose(read(data).triangles, triangles)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_that_are_no_numbers(bad):
    triangles = BOX.copy()
    triangles[3, 1, 2] = bad
    assert refused(make_binary(triangles)).reason == "nan_vertices"
    assert refused(make_text(("a", triangles))).reason == "nan_vertices"


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_refused_without_a_warning():
    data = bytearray(make_binary(BOX))
    data[96:100] = b"\x01\x00\x80\x7f"
    assert refused(bytes(data)).reason == "nan_vertices"


def test_files_without_a_facet():
    assert refused(make_binary(BOX[:0])).reason == "no_faces"
    assert refused("solid nothing\nendsolid nothing\n").reason == "no_faces"
    assert refused("solid nothing\n").reason in ("no_faces", "truncated")


def test_limits():
    limits = MeshLimits(max_faces=11)
    assert refused(make_binary(BOX), limits=limits).reason == "too_many_faces"
    assert refused(WHOLE, limits=limits).reason == "too_many_faces"
    many = make_text(*((f"{number}", BOX[:1]) for number in range(6)))
    assert refused(many, limits=MeshLimits(max_nodes=5)).reason == "too_many_nodes"
