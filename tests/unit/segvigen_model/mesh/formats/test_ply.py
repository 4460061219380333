from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats import ply_tables, text_rows
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from tests.ply_maker import FORMATS, Element, face, make_ply, vertex

CUBE = [[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
# Three quads and six triangles: as many corners as nine rows of one length would have.
MIXED = [*QUADS[:3], *(part for q in QUADS[3:] for part in (q[:3], [q[0], q[2], q[3]]))]


def read(data, **more):
    return mesh_from_bytes(data, "ply", **more)


def refused(data, **more):
    with pytest.raises(AssetRejected) as caught:
        read(data, **more)
    return caught.value


def area(mesh):
    sides = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    return np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2


def colored(kinds, names, color, encoding="ascii"):
    more = [f"{kind} {name}" for kind, name in zip(kinds, names, strict=True)]
    return make_ply(vertex([[*row, *color] for row in CUBE], *more), face(QUADS), encoding=encoding)


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("counts", ["char", "uchar", "short", "ushort", "int", "uint", "uint8"])
@pytest.mark.parametrize("kind", ["uchar", "short", "uint16", "int32", "uint"])
def test_lists_of_every_type_and_of_varying_length(encoding, counts, kind):
    for faces, polygons in ((QUADS, 6), (MIXED, 9)):
        mesh = read(
            make_ply(vertex(CUBE), face(faces, counts=counts, kind=kind), encoding=encoding)
        )
        assert (mesh.num_faces, area(mesh)) == (12, 6)
        assert mesh.announced == {"faces": polygons, "vertices": 8}
        # Triangles stand in the order of the polygons and keep to their corners.
        assert (np.diff(mesh.face_polygons) >= 0).all()
        for triangle, polygon in zip(mesh.faces, mesh.face_polygons, strict=True):
            assert set(triangle) <= set(faces[polygon])


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("kind", ["double", "float64", "int", "short", "char", "float32"])
def test_positions_of_every_type(encoding, kind):
    rows = CUBE if "l" in kind else [[int(value) for value in row] for row in CUBE]
    assert area(read(make_ply(vertex(rows, kind=kind), face(QUADS), encoding=encoding))) == 6


def test_ten_columns_of_digits_are_exact():
    rows = [[4500000.123456789, 0.0, 0.0], [4500001.5, 0.0, 0.0], [4500000.25, 1e-6, 0.0]]
    for encoding in FORMATS:
        mesh = read(make_ply(vertex(rows, kind="double"), face([[0, 1, 2]]), encoding=encoding))
        assert mesh.vertices.tolist() == rows


@pytest.mark.parametrize("encoding", FORMATS)
def test_lists_that_average_out_are_not_taken_for_rows_of_one_length(encoding):
    faces = [[0, 1, 3, 2], [4, 6, 7], [0, 4, 5, 1, 3]]
    mesh = read(make_ply(vertex(CUBE), face(faces), encoding=encoding))
    assert mesh.num_faces == 6
    assert mesh.face_polygons.tolist() == [0, 0, 1, 2, 2, 2]
    assert not any({4, 5, 7} == set(triangle) for triangle in mesh.faces.tolist())


@pytest.mark.parametrize("encoding", FORMATS)
def test_lists_in_the_vertices_and_elements_and_properties_nobody_knows(encoding):
    lists = [[*row, [7.5] * (number % 3), number] for number, row in enumerate(CUBE)]
    camera = Element("camera", ["float view_px", "list uchar short lens"], [[1.0, [1, 2, 3]]])
    edges = Element("edge", ["int vertex1", "int vertex2"], [[0, 1], [1, 2]])
    faces = [[row, [1, 2][: number % 3], 0.5] for number, row in enumerate(MIXED)]
    data = make_ply(
        camera,
        vertex(lists, "list uchar float weights", "int flags"),
        face(faces, "list ushort int marks", "double quality"),
        edges,
        encoding=encoding,
    )
    mesh = read(data)
    assert (mesh.num_faces, area(mesh)) == (12, 6)
    assert mesh.repairs == ()


def test_a_concave_polygon_stays_in_its_outline():
    rows = [[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [1, 0.5, 0], [0, 2, 0]]
    mesh = read(make_ply(vertex(rows), face([[0, 1, 2, 3, 4]])))
    assert (mesh.num_faces, area(mesh)) == (3, 2.5)


@pytest.mark.parametrize(
    ("kinds", "color"),
    [
        (["uchar"] * 3, [255, 128, 0]),
        (["uint8"] * 4, [255, 128, 0, 255]),
        (["ushort"] * 3, [65535, 32896, 0]),
        (["ushort"] * 3, [255, 128, 0]),
        (["int"] * 3, [255, 128, 0]),
        (["float"] * 3, [1.0, 0.5, 0.0]),
        (["double"] * 4, [1.0, 0.5, 0.0, 1.0]),
        (["float"] * 4, [255.0, 128.0, 0.0, 255.0]),
        (["float"] * 4, [255.0, 128.0, 0.0, 1.0]),
        (["char"] * 3, [-1, -128, 0]),
    ],
)
@pytest.mark.parametrize(
    "names",
    [
        ("red", "green", "blue", "alpha"),
        ("r", "g", "b", "a"),
        ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
        ("ambient_red", "ambient_green", "ambient_blue", "ambient_alpha"),
    ],
)
@pytest.mark.parametrize("encoding", FORMATS)
def test_colours_of_every_usual_name_and_range(kinds, color, names, encoding):
    mesh = read(colored(kinds, names[: len(kinds)], color, encoding))
    assert np.unique(mesh.vertex_colors, axis=0).tolist() == [[255, 128, 0, 255]]


def test_diffuse_goes_before_ambient_and_nan_is_white():
    names = ("ambient_red", "ambient_green", "ambient_blue", "red", "green", "blue")
    mesh = read(colored(["uchar"] * 6, names, [9, 9, 9, 1, 2, 3]))
    assert mesh.vertex_colors[0].tolist() == [1, 2, 3, 255]
    mesh = read(colored(["float"] * 3, ("red", "green", "blue"), [float("nan"), 0.0, 1.0]))
    assert mesh.vertex_colors[0].tolist() == [255, 0, 255, 255]


def test_bytes_that_were_written_as_fractions():
    """A header that says uchar above rows of fractions, as some writers do."""
    mesh = read(colored(["uchar"] * 3, ("red", "green", "blue"), [1.0, 0.5, 0.0]))
    assert mesh.vertex_colors[0].tolist() == [255, 128, 0, 255]


@pytest.mark.parametrize("encoding", FORMATS)
def test_both_halves_of_a_quad_have_its_colour(encoding):
    rows = [[row, 40 * number, 0, 0] for number, row in enumerate(QUADS)]
    mesh = read(
        make_ply(
            vertex(CUBE), face(rows, "uchar red", "uchar green", "uchar blue"), encoding=encoding
        )
    )
    colors = mesh.vertex_colors[mesh.faces]
    assert (mesh.num_faces, area(mesh)) == (12, 6)
    assert (colors == [[[40 * number, 0, 0, 255]] for number in mesh.face_polygons]).all()
    assert len(mesh.vertices) == 24, "a copy of a vertex for each colour round it"
    assert mesh.announced["vertices"] == 8


def test_colours_of_vertices_and_of_faces():
    def make(colors):
        rows = [[*row, *color] for row, color in zip(CUBE, colors, strict=True)]
        faces = [[row, 40 * number, 0, 0] for number, row in enumerate(QUADS)]
        more = [f"uchar {name}" for name in ("red", "green", "blue")]
        return read(make_ply(vertex(rows, *more), face(faces, *more)))

    plain = make([[200, 200, 200]] * 8)
    assert ("vertex_colors_left_out", 8) in plain.repairs
    assert plain.vertex_colors[plain.faces[2:4]].tolist() == [[[40, 0, 0, 255]] * 3] * 2
    painted = make([[number, 0, 0] for number in range(8)])
    assert ("face_colors_left_out", 6) in painted.repairs
    assert painted.vertex_colors[:, 0].tolist() == list(range(8))


UV_NAMES = [("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t")]


@pytest.mark.parametrize("names", UV_NAMES)
def test_coordinates_of_vertices_with_v_down(names, png):
    rows = [[*row, row[0], row[1]] for row in CUBE]
    data = make_ply(
        vertex(rows, *(f"float {name}" for name in names)),
        face(QUADS),
        comments=("comment TextureFile my tex.png",),
    )
    mesh = read(data, side_files={"my tex.png": png()})
    expected = mesh.triangles[..., :2] * [1, -1] + [0, 1]
    np.testing.assert_allclose(mesh.corner_uv, expected)
    assert mesh.materials[0].base_color_texture.shape == (2, 4, 4)
    assert mesh.materials[0].name == "my tex.png"


def test_coordinates_and_colours_without_a_texture():
    more = ("uchar red", "uchar green", "uchar blue", "float s", "float t")
    mesh = read(make_ply(vertex([[*row, 0, 255, 0, 0.5, 0.5] for row in CUBE], *more), face(QUADS)))
    assert np.unique(mesh.vertex_colors, axis=0).tolist() == [[0, 255, 0, 255]]
    assert mesh.materials[0].base_color_texture is None
    assert (mesh.corner_uv == 0.5).all()


TWO = ("comment TextureFile a.png", "obj_info made by hand", "comment texturefile b.png")


@pytest.mark.parametrize("encoding", FORMATS)
def test_every_face_has_the_texture_of_its_number(encoding, png):
    def uv(row):
        return [value for corner in range(len(row)) for value in (corner / 8, 0.25)]

    rows = [[row, uv(row), number % 3 - 1] for number, row in enumerate(MIXED)]
    data = make_ply(
        vertex(CUBE),
        face(rows, "list uchar float texcoord", "int texnumber"),
        encoding=encoding,
        comments=TWO,
    )
    sides = {"a.png": png(), "b.png": png(color=(0, 0, 255))}
    mesh = read(data, side_files=sides)
    assert [material.name for material in mesh.materials] == ["a.png", "b.png", "plain"]
    assert mesh.materials[1].base_color_texture[0, 0].tolist() == [0, 0, 255, 255]
    assert mesh.face_material.tolist() == [(n % 3 - 1) % 3 for n in mesh.face_polygons]
    assert (mesh.corner_uv[..., 1] == 0.75).all()
    for faces, corner_uv, polygon in zip(
        mesh.faces, mesh.corner_uv, mesh.face_polygons, strict=True
    ):
        corners = [MIXED[polygon].index(vertex) / 8 for vertex in faces]
        assert corner_uv[:, 0].tolist() == corners
    rows[4][2] = 2
    wrong = make_ply(
        vertex(CUBE), face(rows, "list uchar float texcoord", "int texnumber"), comments=TWO
    )
    assert "texnumber 2 of 2 textures" in refused(wrong, side_files=sides).message


def test_faces_without_coordinates_among_others_with_them(png):
    rows = [[row, [0.5] * 8 if number % 2 else []] for number, row in enumerate(QUADS)]
    data = make_ply(
        vertex(CUBE),
        face(rows, "list uchar float texcoord"),
        comments=("comment TextureFile a.png",),
    )
    mesh = read(data, side_files={"a.png": png()})
    is_given = mesh.face_polygons % 2 == 1
    assert (mesh.corner_uv[is_given] == 0.5).all() and not mesh.corner_uv[~is_given].any()
    rows[1][1] = [0.5] * 6
    wrong = make_ply(vertex(CUBE), face(rows, "list uchar float texcoord"))
    assert "4 corners and 6 numbers in texcoord" in refused(wrong).message


def test_colours_under_a_texture_are_left_out_and_counted(png):
    more = ("float s", "float t", "uchar red", "uchar green", "uchar blue")
    data = make_ply(
        vertex([[*row, 0.5, 0.5, 90, 90, 90] for row in CUBE], *more),
        face(QUADS),
        comments=("comment TextureFile a.png",),
    )
    mesh = read(data, side_files={"a.png": png()})
    assert mesh.vertex_colors is None
    assert mesh.repairs == (("vertex_colors_left_out", 8),)
    gone = read(data, limits=MeshLimits(is_side_file_required=False))
    assert gone.vertex_colors[0].tolist() == [90, 90, 90, 255], "nothing is over them"
    assert refused(data).reason == "missing_side_file"


def test_textures_that_no_face_can_have_are_counted(png):
    sides = {"a.png": png(), "b.png": png()}
    mesh = read(make_ply(vertex(CUBE), face(QUADS), comments=TWO), side_files=sides)
    assert mesh.repairs == (("textures_without_coordinates", 2),)
    rows = [[*row, 0.5, 0.5] for row in CUBE]
    mesh = read(
        make_ply(vertex(rows, "float s", "float t"), face(QUADS), comments=TWO), side_files=sides
    )
    assert mesh.repairs == (("textures_of_no_face", 1),)
    assert mesh.face_material.tolist() == [0] * 12


@pytest.mark.parametrize("encoding", FORMATS)
def test_strips_are_unrolled_after_the_faces(encoding):
    strips = Element(
        "tristrips",
        ["list int int vertex_indices"],
        [[[0, 1, 2, 3, -1, 4, 5, 6, -1]], [[4, 6, 5, 7]]],
    )
    mesh = read(make_ply(vertex(CUBE), strips, encoding=encoding))
    assert mesh.faces.tolist() == [[0, 1, 2], [2, 1, 3], [4, 5, 6], [4, 6, 5], [5, 6, 7]]
    rows = [[[0, 1, 5], 9, 9, 9]]
    both = read(
        make_ply(
            vertex(CUBE),
            strips,
            face(rows, "uchar red", "uchar green", "uchar blue"),
            encoding=encoding,
        )
    )
    assert both.num_faces == 6
    shades = both.vertex_colors[both.faces][:, 0, 0]
    assert shades.tolist() == [9, 255, 255, 255, 255, 255], "white where a strip has no colour"
    strips.rows[1] = [[4, 6]]
    assert "fewer than three" in refused(make_ply(vertex(CUBE), strips, encoding=encoding)).message


@pytest.mark.parametrize("encoding", FORMATS)
def test_bytes_behind_the_data_are_tolerated_and_reported(encoding):
    data = make_ply(vertex(CUBE), face(QUADS), encoding=encoding)
    for tail in (b"written by somebody\n", b"\x00" * 300, b"\xff\xfe\xfd"):
        mesh = read(data + tail)
        assert mesh.num_faces == 12
        assert mesh.repairs == (("trailing_bytes", len(tail)),)


@pytest.mark.parametrize("encoding", FORMATS)
def test_a_face_behind_the_announced_ones_is_no_tail(encoding):
    whole = make_ply(vertex(CUBE), face(MIXED), encoding=encoding)
    fewer = whole.replace(b"element face 9", b"element face 8")
    assert "after them stands another" in refused(fewer).message


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("faces", [QUADS, MIXED])
def test_a_cut_at_any_place_is_refused(encoding, faces):
    data = make_ply(vertex(CUBE), face(faces), encoding=encoding)
    whole = len(data.rstrip(b"\n")) if encoding == "ascii" else len(data)
    for length in range(20, whole):
        error = refused(data[:length])
        if encoding != "ascii" or data[length - 1 : length + 1].isspace():
            assert error.reason == "truncated", (length, error)


def test_no_newline_at_the_end():
    data = make_ply(vertex(CUBE), face(QUADS))
    assert read(data.rstrip(b"\n")).num_faces == 12


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_system(encoding, end):
    """The data may begin with a byte that looks like the end of a line."""
    rows = [[10, 10, 10], [10, 20, 10], [10, 10, 30]]
    data = make_ply(vertex(rows, kind="uchar"), face([[0, 1, 2]]), encoding=encoding, end=end)
    assert read(data).vertices.tolist() == rows


def test_comments_anywhere_in_any_encoding():
    comments = ("comment f\u00fcr Elise", "comment", "", " comment\tend_header", "obj_info cols 3")
    data = make_ply(vertex(CUBE), face(QUADS), comments=comments)
    data = data.replace(b"ply\n", b"ply\ncomment above the format\n")
    data = data.replace(b"property float y", b"comment \xff\xfe\nproperty   float\ty  ")
    assert read(data).num_faces == 12


def test_the_signature_of_assimp_is_a_comment():
    signature = "Created by Open Asset Import Library - http://assimp.sf.net (v3.0.1270)"
    assert read(make_ply(vertex(CUBE), face(QUADS), comments=(signature,))).num_faces == 12


def test_a_mark_of_byte_order_before_the_header_or_the_data():
    data = make_ply(vertex(CUBE), face(QUADS))
    assert read(b"\xef\xbb\xbf" + data).num_faces == 12
    assert read(data.replace(b"end_header\n", b"end_header\n\xef\xbb\xbf\n")).num_faces == 12


def test_rows_that_do_not_keep_to_lines():
    data = make_ply(vertex(CUBE), face(MIXED))
    head, body = data.split(b"end_header\n")
    for ends in (b" ", b"\n"):
        wrapped = head + b"end_header\n" + ends.join(body.split()) + b"\n"
        mesh = read(wrapped)
        assert (mesh.num_faces, area(mesh)) == (12, 6)
        assert refused(wrapped[:-3]).reason in ("unreadable", "truncated")
        assert refused(wrapped + b"7\n").reason in ("unreadable", "truncated")


def test_long_texts_are_read_in_blocks(monkeypatch):
    data = make_ply(vertex(CUBE), face(MIXED))
    whole = read(data)
    for size in (1, 7, 40):
        monkeypatch.setattr(text_rows, "BLOCK_BYTES", size)
        np.testing.assert_array_equal(read(data).faces, whole.faces)


def test_normals_are_kept():
    rows = [[*row, 0, 0, 1] for row in CUBE]
    mesh = read(make_ply(vertex(rows, "float nx", "float ny", "float nz"), face(QUADS)))
    assert (mesh.vertex_normals == [0, 0, 1]).all()


def test_limits_hold_before_the_data_is_read(monkeypatch):
    data = make_ply(vertex(CUBE), face(QUADS))
    monkeypatch.setattr(ply_tables, "parse_rows", None)  # reading would fail
    assert refused(data, limits=MeshLimits(max_faces=5)).reason == "too_many_faces"
    assert refused(data, limits=MeshLimits(max_vertices=7)).reason == "too_many_vertices"


def test_polygons_are_counted_as_triangles():
    data = make_ply(vertex(CUBE), face(QUADS))
    assert refused(data, limits=MeshLimits(max_faces=11)).reason == "too_many_faces"


BAD_HEADERS = {
    "no format": (b"format ascii 1.0\n", b""),
    "unknown format": (b"ascii", b"utf8"),
    "unknown line": (b"element face", b"elem face"),
    "negative count": (b"element vertex 8", b"element vertex -8"),
    "count of text": (b"element vertex 8", b"element vertex eight"),
    "unknown type": (b"float y", b"floot y"),
    "list counted in floats": (b"list uchar", b"list float"),
    "property without element": (b"element vertex 8\n", b""),
    "two vertex elements": (b"element face", b"element vertex"),
    "two properties of one name": (b"float y", b"float x"),
    "no z": (b"float z", b"float w"),
    "no list of corners": (b"vertex_indices", b"corners"),
    "corners are no list": (b"list uchar int vertex_indices", b"int vertex_indices"),
    "no vertices": (b"element vertex", b"element point"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_headers_that_mean_nothing(name):
    old, new = BAD_HEADERS[name]
    data = make_ply(vertex(CUBE), face(QUADS))
    assert old in data
    assert refused(data.replace(old, new)).reason == "unreadable"


def test_a_header_without_end():
    data = make_ply(vertex(CUBE), face(QUADS))
    assert refused(data.replace(b"end_header", b"end_haeder")).reason == "truncated"
    endless = b"ply\nformat ascii 1.0\n" + b"comment x\n" * 200_000
    assert "longer than" in refused(endless).message


BAD_ROWS = {
    "index too high": ([0, 1, 8], "names vertex 8 of 8"),
    "index below zero": ([0, 1, -1], "names vertex -1 of 8"),
    "two corners": ([0, 1], "has 2 corners"),
    "no corner": ([], "has 0 corners"),
}


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize("name", BAD_ROWS)
def test_impossible_indices_and_lengths(encoding, name):
    row, message = BAD_ROWS[name]
    error = refused(make_ply(vertex(CUBE), face([*QUADS, [row]]), encoding=encoding))
    assert error.reason == "unreadable" and message in error.message


@pytest.mark.parametrize("encoding", FORMATS)
def test_impossible_counts_of_lists(encoding):
    counts = {"ascii": [b"-4 ", b"4.5 ", b"999999999999 "]}.get(encoding, [b"\xfc"])
    plain = {"ascii": b"4 "}.get(encoding, b"\x04")
    data = make_ply(vertex(CUBE), face(QUADS, counts="char"), encoding=encoding)
    at = data.rindex(plain, 0, -8)
    for count in counts:
        assert refused(data[:at] + count + data[at + len(plain) :]).reason in (
            "unreadable", "truncated",
        )  # fmt: skip


def test_text_that_is_no_number_is_named():
    data = make_ply(vertex(CUBE), face(QUADS)).replace(b"0.0 1.0 1.0", b"0.0 1,0 1.0")
    assert "line 4 of the data: b'1,0' is no number" in refused(data).message
    for word in (b"0x10", b"1_0", b"--1", b"1e", b"\x00"):
        assert refused(data.replace(b"1,0", word)).reason == "unreadable"


@pytest.mark.parametrize("word", [b"nan", b"-inf", b"1e999", b"-1.#IND", b"1.#QNAN0", b"-nan(ind)"])
def test_positions_that_are_no_numbers(word):
    data = make_ply(vertex(CUBE), face(QUADS)).replace(b"0.0 1.0 1.0", b"0.0 " + word + b" 1.0")
    assert refused(data).reason == "nan_vertices"


def test_files_without_a_surface():
    points = make_ply(vertex(CUBE), face([]))
    assert refused(points).reason == "no_faces"
    assert "vertex 8" in refused(make_ply(vertex(CUBE))).message
    grid = Element("range_grid", ["list uchar int vertex_indices"], [[[0]], [[]], [[1]]])
    error = refused(make_ply(vertex(CUBE), grid))
    assert error.reason == "range_grid" and "range_grid of 3 samples" in error.message
    assert read(make_ply(vertex(CUBE), grid, face(QUADS))).num_faces == 12


def test_the_same_face_many_times_and_faces_without_area_are_kept():
    faces = [[0, 1, 3]] * 5 + [[0, 0, 1], [2, 2, 2]]
    mesh = read(make_ply(vertex(CUBE), face(faces)))
    assert mesh.faces.tolist() == faces
