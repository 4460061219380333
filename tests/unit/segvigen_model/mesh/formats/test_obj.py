"""OBJ files as their authors meant them, or refused with the line that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats import obj_records
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

OPTIONAL = MeshLimits(is_side_file_required=False)
CORNERS = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
FACES = [
    (2, 4, 1), (5, 2, 1), (1, 4, 3), (3, 5, 1), (2, 8, 4), (6, 2, 5),
    (6, 8, 2), (4, 8, 3), (7, 5, 3), (3, 8, 7), (7, 6, 5), (8, 6, 7),
]  # fmt: skip
VERTICES = [b"v %g %g %g" % corner for corner in CORNERS]
BOX = [*VERTICES, *(b"f %d %d %d" % face for face in FACES)]
TRIANGLE = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"
RED = b"newmtl red\nKd 1 0 0\n"
BLUE = b"newmtl blue\nKd 0 0 1\n"


def join(lines):
    return b"\n".join(lines) + b"\n"


def read(data, **more):
    return mesh_from_bytes(data, "obj", **more)


def measure_area(mesh):
    sides = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    return np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2


def assert_is_box(mesh):
    expected = np.array(CORNERS)[np.array(FACES) - 1]
    np.testing.assert_array_equal(mesh.triangles, expected, "every face, in the file's order")
    assert mesh.repairs == ()


def describe(mesh):
    return [(material.name, material.base_color_factor[:3]) for material in mesh.materials]


def refuse(data, **more):
    with pytest.raises(AssetRejected) as caught:
        read(data, **more)
    return f"{caught.value.reason}: {caught.value.message}"


LAYOUTS = {
    "plain": join(BOX),
    "BOM": b"\xef\xbb\xbf" + join(BOX),
    "UTF-16": join(BOX).decode().encode("utf-16"),
    "CR": join(BOX).replace(b"\n", b"\r"),
    "CR LF": join(BOX).replace(b"\n", b"\r\n"),
    "NEL": join(BOX).replace(b"\n", b"\xc2\x85"),
    "no last line end": join(BOX)[:-1],
    "tabs": join(BOX).replace(b" ", b"\t"),
    "tabs after some keywords": join(
        line.replace(b" ", b"\t", 1) if k % 2 else line for k, line in enumerate(BOX)
    ),
    "indents": join(b" \t" * (k % 3) + line for k, line in enumerate(BOX)),
    "spaces behind and between": join(line.replace(b" ", b"   ") + b" \t " for line in BOX),
    "form feeds": join(line.replace(b" ", b" \f") for line in BOX),
    "blank lines": join(BOX).replace(b"\n", b"\n \n\n"),
    "comments behind": join(line + b" # p" for line in BOX),
    "comments without space": join(line + b"#p" for line in BOX),
    "comments between": join(part for line in BOX for part in (b"#", b"\t# f 1 2 3", line)),
    "comment ends in a backslash": join([b"# C:\\", *BOX]),
    "comment in Latin-1": join([b"# gr\xfcn \x85", *BOX]),
    "continued": join(line.replace(b" ", b" \\\n", 2) for line in BOX),
    "continued with CR LF": join(line.replace(b" ", b" \\\r\n", 1) for line in BOX),
    "continued with space behind": join(line.replace(b" ", b" \\ \n", 1) for line in BOX),
    "upper case": join(BOX).upper(),
    "plus signs": join(BOX).replace(b" 0.5", b" +.5"),
    "exponents": join(BOX).replace(b"0.5", b"5.E-1"),
    "weights of one": join([*(line + b" 1.0" for line in VERTICES), *BOX[8:]]),
    "faces first": join([*BOX[8:], *VERTICES]),
    "trailing slashes": join([*VERTICES, *(line.replace(b" ", b"/ ")[2:] for line in BOX[8:])])
    .replace(b"\n ", b"\nf ")
    .replace(b"f/", b"f"),
    "fo": join([*VERTICES, *(line.replace(b"f", b"fo") for line in BOX[8:])]),
    "smoothing groups": join(part for line in BOX for part in (b"s off", line)),
    "control-Z at the end": join(BOX) + b"\x1a",
    "two files with marks": join(VERTICES) + b"\xef\xbb\xbf" + join(BOX[8:]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_a_box_gives_the_box(name):
    assert_is_box(read(LAYOUTS[name]))


@pytest.mark.parametrize("size", [1, 20, 64, 100])
def test_blocks_of_lines_do_not_matter(size, monkeypatch):
    monkeypatch.setattr(obj_records, "BLOCK_BYTES", size)
    for name in ("plain", "no last line end", "continued", "comments behind", "faces first"):
        assert_is_box(read(LAYOUTS[name]))
    relative = [*VERTICES, *(b"f %d %d %d" % tuple(k - 9 for k in face) for face in FACES)]
    assert_is_box(read(join(relative)))
    assert "line 9:" in refuse(join([*VERTICES, b"f 1 2 0"]))


def test_relative_indices_count_from_their_own_line():
    lines = []
    for shift in (0, 3, 6):
        lines += [b"v %g %g %g" % (x + shift, y, z) for x, y, z in CORNERS]
        lines += [b"f %d %d %d" % tuple(k - 9 for k in face) for face in FACES]
    mesh = read(join(lines))
    assert mesh.num_faces == 36 and measure_area(mesh) == pytest.approx(18)
    assert np.ptp(mesh.vertices, axis=0).tolist() == [7, 1, 1]
    data = b"vt 0 0\nvt 1 0\nvt 0 1\n" + TRIANGLE + b"f -3/-3 -2/-2 -1/-1\nvt .5 .5\n"
    data += b"v 0 0 1\nf -4/-1 -3/3 -2/-2\n"
    assert read(data).corner_uv[1].tolist() == [[0.5, 0.5], [0, 0], [0, 0]]


def test_quads_polygons_and_their_numbers():
    data = TRIANGLE + b"v 1 1 0\nv 2 2 0\nf 1 2 4 3\nf 1 2\nf 1\nf 1 2 5 4 3\n"
    mesh = read(data)
    assert mesh.origin.polygons.tolist() == [0, 0, 3, 3, 3]
    assert mesh.repairs == (("faces_with_fewer_than_3_corners", 2),)
    assert mesh.announced == {"vertices": 5, "polygons": 4}


def test_a_concave_polygon_keeps_its_area():
    data = b"v 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nv 0 2 0\nf 2 3 4 5 6 1\n"
    mesh = read(data)
    assert mesh.num_faces == 4 and measure_area(mesh) == pytest.approx(3)
    quad = b"v 0 0 0\nv 4 0 0\nv 1 1 0\nv 0 4 0\nf 2 3 4 1\n"
    assert measure_area(read(quad)) == pytest.approx(4)


def test_a_polygon_that_goes_round_a_thousand_times_is_read_and_counted():
    mesh = read(join([*VERTICES, b"f " + b"1 2 4 3 " * 300, b"f 5 6 8"]))
    assert mesh.num_faces == 1198 + 1


def test_texture_coordinates_and_normals_follow_their_corners():
    data = TRIANGLE + b"v 1 1 0\nvt .25\nvt 1 0 0\nvt 0 1\nvn 0 0 2\nvn 1 0 0\nvn 0 0 0\n"
    mesh = read(data + b"f 1/1/1 2/2/1 3/3/1\nf 2/2/2 4//3 3\nf 2//1 4 3/3\n")
    assert mesh.corner_uv[0].tolist() == [[0.25, 1], [1, 1], [0, 0]], "v points down"
    assert not mesh.corner_uv[1:].any()
    assert mesh.repairs == (("faces_without_uv", 2),)
    normals = mesh.vertex_normals[mesh.faces]
    assert normals[0].tolist() == [[0, 0, 1]] * 3
    assert normals[1].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]], "computed where absent"
    assert len(mesh.vertices) == 7, "one of several normals becomes several"


def test_equal_normals_do_not_split_vertices():
    lines = [*VERTICES, *[b"vn 0 0 1"] * 36]
    lines += [
        b"f " + b" ".join(b"%d//%d" % (v, 3 * k + c + 1) for c, v in enumerate(face))
        for k, face in enumerate(FACES)
    ]
    assert len(read(join(lines)).vertices) == 8


def test_values_that_are_not_finite_are_counted_where_they_can_be_spared():
    data = TRIANGLE + b"vt nan 0\nvt 1 -nan(ind)\nvt 0 1\nvn nan nan nan\nf 1/1/1 2/2/1 3/3/1\n"
    mesh = read(data)
    assert mesh.repairs == (("texture_coordinates_not_finite", 2),)
    assert mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3
    assert mesh.corner_uv[0].tolist() == [[0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("ends", "colors"),
    [
        ([b" 1 0 0"] * 3, [[255, 0, 0, 255]] * 3),
        (
            [b" 255 0 0", b" 0 128 0", b" 0 0 0"],
            [[255, 0, 0, 255], [0, 128, 0, 255], [0, 0, 0, 255]],
        ),
        ([b" 1 0 0 .5"] * 3, [[255, 0, 0, 128]] * 3),
        ([b" 1 0 0 255 128"] * 3, [[0, 0, 255, 128]] * 3),
        ([b" 65535 0 0"] * 3, [[255, 0, 0, 255]] * 3),
        ([b" 1.0000001 0 0"] * 3, [[255, 0, 0, 255]] * 3),
        ([b" 1 0 0", b"", b" 1"], [[255, 0, 0, 255], [255] * 4, [255] * 4]),
    ],
    ids=["unit", "bytes", "alpha", "weight and alpha", "words", "rounded", "some"],
)
def test_vertex_colours(ends, colors):
    lines = [line + end for line, end in zip(TRIANGLE.splitlines(), ends, strict=True)]
    mesh = read(join([*lines, b"f 1 2 3"]))
    assert mesh.vertex_colors.tolist() == colors
    missing = sum(len(end.split()) < 3 for end in ends)
    assert mesh.repairs == ((("vertices_without_color", missing),) if missing else ())


def test_vertex_colours_beside_materials_and_texture_coordinates():
    painted = TRIANGLE.replace(b"\n", b" 0 1 0\n") + b"vt 0 0\n"
    mesh = read(
        b"mtllib m.mtl\nusemtl red\n" + painted + b"f 1/1 2/1 3/1\n", side_files={"m.mtl": RED}
    )
    assert mesh.vertex_colors.tolist() == [[0, 255, 0, 255]] * 3
    assert describe(mesh) == [("red", (1, 0, 0))]
    assert mesh.materials[0].base_color_texture is None and mesh.corner_uv is not None


def test_numbers_behind_a_vertex_that_are_no_colours():
    mesh = read(TRIANGLE.replace(b"\n", b" 0 0 -1\n") + b"f 1 2 3\n")
    assert mesh.vertex_colors is None
    assert mesh.repairs == (("vertex_values_not_colors", 3),)


def test_a_weight_moves_no_vertex():
    mesh = read(b"v 0 0 0 0\nv 1 0 0 2\nv 0 1 0 1\nf 1 2 3\n")
    assert mesh.repairs == (("vertex_weights_left_out", 2),)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.vertex_colors is None


def test_zbrush_paint_in_comments():
    paint = b"#MRGB ffff0000ff00ff00\n#MRGB ff0000ff\n"
    mesh = read(TRIANGLE + paint + b"f 1 2 3\n")
    assert mesh.vertex_colors[:, :3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    for wrong in (b"#MRGB ff00\n", b"#MRGB nothex\n"):
        mesh = read(TRIANGLE + wrong + b"f 1 2 3\n")
        assert mesh.vertex_colors is None and mesh.repairs == (("vertex_paint_unread", 1),)


def test_objects_groups_and_materials_by_name():
    body = b"o big\tbox # a box\ng  left  front\nf 1 2 3\nusemtl red\nf 1 2 3\ng\nf 1 2 3\no lid\n"
    body += b"usemtl no such\nf 1 2 3\ng left front\nusemtl red\nf 1 2 3\n"
    mesh = read(b"mtllib m.mtl\n" + TRIANGLE + b"f 1 2 3\n" + body, side_files={"m.mtl": RED})
    origin = mesh.origin
    assert origin.objects.names == ("big box", "lid")
    assert origin.objects.indices.tolist() == [-1, 0, 0, 0, 1, 1]
    assert origin.groups.names == ("left front",)
    assert origin.groups.indices.tolist() == [-1, 0, 0, -1, -1, 0]
    assert origin.materials.names == ("red", "no such")
    assert origin.materials.indices.tolist() == [-1, -1, 0, 0, 1, 0]
    assert describe(mesh) == [("plain", (1, 1, 1)), ("red", (1, 0, 0)), ("no such", (1, 1, 1))]
    assert mesh.geometry_names == ("", "big box/left front", "big box", "lid", "lid/left front")
    assert mesh.face_geometry.tolist() == [0, 1, 1, 2, 3, 4]
    assert mesh.repairs == (("materials_without_definition", 1),)


def test_faces_of_two_materials_stay_in_the_files_order():
    lines = [b"mtllib m.mtl", *VERTICES]
    for number, line in enumerate(BOX[8:]):
        lines += [b"usemtl blue" if number % 2 else b"usemtl red", line]
    mesh = read(join(lines), side_files={"m.mtl": RED + BLUE})
    assert_is_box(mesh)
    assert mesh.face_material.tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("head", "use", "files"),
    [
        (b"mtllib z.mtl m.mtl", b"usemtl red", {"z.mtl": BLUE, "m.mtl": RED}),
        (b"mtllib z.mtl\nmtllib m.mtl", b"usemtl red", {"z.mtl": BLUE, "m.mtl": RED}),
        (b"# mtllib follows\nmtllib m.mtl", b"usemtl red", {"m.mtl": RED}),
        (b"\xef\xbb\xbfmtllib m.mtl", b"usemtl red", {"m.mtl": RED}),
        (b"\tmtllib\tmy m.mtl  # it", b"\tusemtl\tred # so", {"my m.mtl": RED}),
        (b'mtllib "my m.mtl"', b"usemtl red", {"my m.mtl": RED}),
        (b"mtllib .\\sub\\m.mtl", b"usemtl red", {"sub/m.mtl": RED}),
        (b"mtllib \\\nm.mtl", b"usemtl red", {"m.mtl": RED}),
        (b"mtllib gr\xfcn.mtl", b"usemtl red", {"gr\u00fcn.mtl": RED}),
        (b"mtllib M.MTL", b"usemtl Red", {"m.mtl": RED}),
        (
            b"mtllib m.mtl",
            b"usemtl red",
            {"m.mtl": b"\xef\xbb\xbf\t" + RED.replace(b"\n", b"\r\t")},
        ),
        (b"mtllib m.mtl", b"usemtl red", {"m.mtl": RED.decode().encode("utf-16")}),
    ],
)
def test_libraries_are_found(head, use, files):
    mesh = read(join([head, *VERTICES, use, *BOX[8:]]), side_files=files)
    assert describe(mesh) == [("red", (1, 0, 0))]


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (b"gr\xfcn", "gr\u00fcn"),
        ("gr\u00fcn".encode(), "gr\u00fcn"),
        (b"Grey #1", "Grey #1"),
        (b"a\\b\\c", "a\\b\\c"),
        (b"two  words", "two words"),
    ],
)
def test_materials_are_found_whatever_their_name(use, name):
    for spelled in (name.encode(), use):
        mtl = b"newmtl other\nnewmtl " + spelled + b"\nKd 1 0 0\n"
        data = join([b"mtllib m.mtl", *VERTICES, b"usemtl " + use, *BOX[8:]])
        assert describe(read(data, side_files={"m.mtl": mtl})) == [(name, (1, 0, 0))]


def test_what_a_material_says():
    mtl = b"newmtl a\nKd 255 0 128\nd 0.5\nNs 0\nKe 0 1 0\nPm 1\nnewmtl b\nTr 0.25\nPr .5\n"
    mtl += b"newmtl c\nKd .5\nTr 1\nnewmtl d\nKd 0,5 0 0\n"
    body = b"".join(b"usemtl %s\nf 1 2 3\n" % name for name in (b"a", b"b", b"c", b"d"))
    mesh = read(b"mtllib m.mtl\n" + TRIANGLE + body, side_files={"m.mtl": mtl})
    a, b, c, d = mesh.materials
    assert a.base_color_factor == pytest.approx((1, 0, 128 / 255, 0.5))
    assert (a.alpha_mode, a.emissive_factor, a.metallic_factor) == ("BLEND", (0, 1, 0), 1)
    assert (b.base_color_factor[3], b.roughness_factor, a.roughness_factor) == (0.75, 0.5, 1)
    assert c.base_color_factor == (0.5, 0.5, 0.5, 1) and c.alpha_mode == "OPAQUE"
    assert d.base_color_factor == (1, 1, 1, 1)
    assert dict(mesh.repairs) == {"invisible_materials_shown": 1, "material_lines_unread": 1}


def test_textures_of_used_materials_only(png):
    mtl = b"newmtl unused\nmap_Kd gone.png\nnewmtl t\nKd 0 0 0\nmap_Kd -s 2 3 -o .5 0 t.png\n"
    mtl += b"newmtl u\nKd 1 .5 .5\nmap_Kd t.png\nbump gone.png\n"
    data = b"mtllib m.mtl\n" + TRIANGLE + b"vt 0 0\nvt 1 0\nvt 0 1\nusemtl t\nf 1/1 2/2 3/3\n"
    mesh = read(data + b"usemtl u\nf 1/1 2/2 3/3\n", side_files={"m.mtl": mtl, "t.png": png()})
    first, second = mesh.materials
    assert first.base_color_texture is second.base_color_texture
    assert first.base_color_factor == (1, 1, 1, 1), "Kd 0 beside a texture means the texture"
    assert second.base_color_factor == (1, 0.5, 0.5, 1)
    assert mesh.corner_uv.tolist() == [[[0.5, 1], [2.5, 1], [0.5, -2]], [[0, 1], [1, 1], [0, 0]]]


def test_side_files_elsewhere_are_found_and_counted(png):
    mtl = b"newmtl t\nmap_Kd C:\\work\\Tex.PNG\n"
    data = b"mtllib m.mtl\n" + TRIANGLE + b"vt 0 0\nusemtl t\nf 1/1 2/1 3/1\n"
    mesh = read(data, side_files={"M.mtl": mtl, "textures/tex.png": png()})
    assert mesh.materials[0].base_color_texture is not None
    assert mesh.repairs == (("side_files_found_elsewhere", 2),)
    assert refuse(data, side_files={"m.mtl": mtl}).startswith("external_reference")
    two = {"m.mtl": mtl, "a/tex.png": png(), "b/tex.png": png()}
    assert refuse(data, side_files=two).startswith("external_reference"), "which one?"


def test_absent_side_files_are_refused_or_counted():
    data = b"mtllib gone.mtl\n" + TRIANGLE + b"usemtl t\nf 1 2 3\n"
    assert refuse(data).startswith("missing_side_file: the file needs 'gone.mtl'")
    mesh = read(data, limits=OPTIONAL)
    assert describe(mesh) == [("t", (1, 1, 1))]
    assert dict(mesh.repairs) == {"side_files_absent": 1, "materials_without_definition": 1}


def test_lines_that_hold_no_surface_are_counted():
    data = TRIANGLE + b"f 1 2 3\nl 1 2\nl 2 3\np 1\nvp 0 1\ncurv 0 1 1 2\nend\nmg 1 2\nshader x\n"
    assert dict(read(data).repairs) == {
        "lines_left_out": 2,
        "points_left_out": 1,
        "curve_lines_left_out": 3,
        "unknown_lines_left_out": 1,
    }
    assert refuse(TRIANGLE + b"l 1 2\n").startswith("no_faces")
    assert refuse(b"# Blender\no Cube\n").startswith("no_faces")
    assert refuse(TRIANGLE + b"f \n").startswith("no_faces"), "found by damaging files"


def test_vertices_that_no_face_has_are_left_out_and_counted():
    mesh = read(b"v 9 9 9\n" + TRIANGLE + b"f 2 3 4\n")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.repairs == (("unused_vertices_left_out", 1),)


def test_coordinates_that_a_file_lacks_altogether_are_counted():
    mesh = read(TRIANGLE + b"f 1/1/1 2/2/2 3/3\n")
    assert mesh.corner_uv is None and mesh.vertex_normals.tolist() == [[0, 0, 1]] * 3
    assert mesh.repairs == (("corners_with_absent_vt", 3), ("corners_with_absent_vn", 2))


def test_a_colour_that_is_not_finite_is_absent():
    mesh = read(b"v 0 0 0 nan nan nan\nv 1 0 0 1 0 0\nv 0 1 0 inf 0 0\nf 1 2 3\n")
    assert mesh.vertex_colors.tolist() == [[255] * 4, [255, 0, 0, 255], [255] * 4]


def test_slashes_at_the_end_of_a_file_are_whole_where_all_corners_have_them():
    assert read(TRIANGLE + b"vt 0 0\nf 1/1/ 2/1/ 3/1/").num_faces == 1


F = b"f 1 2 3\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TRIANGLE + b"f 0 1 2\n", "unreadable: line 4: f has '0', which has index 0"),
        (TRIANGLE + b"f 1/0 2/1 3/1\n", "unreadable: line 4: f has '1/0', which has index 0"),
        (TRIANGLE + F + b"f 1 2 4\n", "unreadable: line 5: f names v 4 of 3"),
        (TRIANGLE + b"vt 0 0\nf 1/1 2/1 3/2\n", "unreadable: line 5: f names vt 2 of 1"),
        (TRIANGLE + b"vn 0 0 1\nf 1//1 2//2 3//1\n", "unreadable: line 5: f names vn 2 of 1"),
        (TRIANGLE + b"f 1 2 99999999999999999999\n", "unreadable: line 4: f has '9999"),
        (TRIANGLE + b"f -1 -2 -4\n", "unreadable: line 4: only 3 v stand before f with index -4"),
        (b"f -1 -2 -3\n" + TRIANGLE, "unreadable: line 1: only 0 v stand before f with index -1"),
        (TRIANGLE + b"f 1 2 x\n", "unreadable: line 4: f has 'x', which is no corner"),
        (TRIANGLE + b"f 1 2 3.0\n", "unreadable: line 4: f has '3.0'"),
        (TRIANGLE + b"f 1 / 2 3\n", "unreadable: line 4: f has '/'"),
        (TRIANGLE + b"f 1 2 /3\n", "unreadable: line 4: f has '/3'"),
        (TRIANGLE + b"f 1 2 3/1/1/1\n", "unreadable: line 4: f has '3/1/1/1'"),
        (TRIANGLE + b"f 1 2 3///\n", "unreadable: line 4: f has '3///'"),
        (TRIANGLE + b"f 1 2 3-\n", "unreadable: line 4: f has '3-'"),
        (TRIANGLE + b"f 1 2 -\n", "unreadable: line 4: f has '-'"),
        (TRIANGLE + b"f 1,2,3\n", "unreadable: line 4: f has '1,2,3'"),
        (TRIANGLE + b"f f\n", "unreadable: line 4: f has 'f'"),
        (TRIANGLE + F + b"f1 2 3\n", "unreadable: line 5: 'f1' is no keyword"),
        (TRIANGLE + F + b"1 2 3\n", "unreadable: line 5: '1' is no keyword"),
        (TRIANGLE + F + b"\xff\xfe\n", "unreadable: line 5: '\u00ff\u00fe' is no keyword"),
        (TRIANGLE + b"v 0 1\n" + F, "unreadable: line 4: v has 2 numbers, not 3, 4, 6, 7 or 8"),
        (TRIANGLE + b"v 0 1 2 3 4\n" + F, "unreadable: line 4: v has 5 numbers"),
        (TRIANGLE + b"v\n" + F, "unreadable: line 4: v has 0 numbers"),
        (TRIANGLE + b"v 1,5 0 0\n" + F, "unreadable: line 4: v has '1,5', which is no number"),
        (TRIANGLE + b"v 1_0 0 0\n" + F, "unreadable: line 4: v has '1_0'"),
        (TRIANGLE + b"v 0x10 0 0\n" + F, "unreadable: line 4: v has '0x10'"),
        (TRIANGLE + b"v 1e 0 0\n" + F, "unreadable: line 4: v has '1e'"),
        (TRIANGLE + b"v 1.2.3 0 0\n" + F, "unreadable: line 4: v has '1.2.3'"),
        (TRIANGLE + b"v 1-2 3 4\n" + F, "unreadable: line 4: v has '1-2'"),
        (TRIANGLE + b"v \xc2\xa01 3 4\n" + F, "unreadable: line 4: v has '\\xa01'"),
        (TRIANGLE + b"vt\n" + F, "unreadable: line 4: vt has 0 numbers, not 1, 2, 3 or 4"),
        (TRIANGLE + b"vt 0 0,5\n" + F, "unreadable: line 4: vt has '0,5'"),
        (TRIANGLE + b"vn 0 1\n" + F, "unreadable: line 4: vn has 2 numbers, not 3 or 4"),
        (TRIANGLE + b"v nan 0 0\n" + F, "nan_vertices: the vertex of line 4 is NaN or infinite"),
        (TRIANGLE + b"v 1e400 0 0\n" + F, "nan_vertices: the vertex of line 4"),
        (TRIANGLE + b"v 0 -1.#IND 0\n" + F, "nan_vertices: the vertex of line 4"),
        (TRIANGLE + b"v 0 0 -Infinity\n" + F, "nan_vertices: the vertex of line 4"),
        (TRIANGLE + F + b"\x00 x\n", "unreadable: line 5 holds a zero byte"),
        (TRIANGLE + F + b"surf 0 1 0 1 1 2\n", "unsupported_feature: line 5 has 'surf'"),
        (TRIANGLE + F + b"call other.obj\n", "unsupported_feature: line 5 has 'call'"),
        (b"\xff\xfe\x00\xd8" + TRIANGLE, "unreadable: text does not decode as utf-16"),
        (b"# \\\nv 1 \\\n2 \\\n\n" + F, "unreadable: line 2: v has 2 numbers"),
        (b"v 1 \\\n2 3\nv 1\n", "unreadable: line 3: v has 1 numbers"),
    ],
)
def test_a_line_that_does_not_read_refuses_the_file(data, message):
    assert refuse(data).startswith(message)


@pytest.mark.parametrize(
    "end",
    [
        b"f 1 2", b"f 1", b"f", b"f 1/1 2/1 3", b"f 1/1 2/1 3/", b"f 1//1 2//1 3/", b"f 1 2 -",
        b"v 1 2", b"v 1 2 -", b"v 1 2 3e", b"v 1 2 3e-", b"v 1 2 .", b"vt", b"vn 1 0", b"vt -",
        b"usem", b"mtlli", b"f 1 2 3\n\x00\x00\x00", b"\x00\x00\n",
    ],
)  # fmt: skip
def test_a_file_that_is_cut_in_a_line_is_truncated(end):
    data = TRIANGLE + b"vt 0 0\nvn 0 0 1\nf 1 2 3\n"
    assert refuse(data + end).startswith("truncated: ")
    assert read(data).num_faces == 1


def test_fewer_faces_than_meshlabs_header_announces():
    head = b"####\n#\n# OBJ File Generated by Meshlab\n#\n####\n# Object a.obj\n#\n"
    head += b"# Vertices: 8\n# Faces: 12\n#\n####\n"
    assert_is_box(read(head + join(BOX)))
    message = "truncated: MeshLab's header announces 12 faces and the file has 11"
    assert refuse(head + join(BOX[:-1])).startswith(message)
    other = head.replace(b"Meshlab", b"hand")
    assert read(other + join(BOX[:-1])).num_faces == 11, "a comment of anyone else binds no one"


def test_too_many_faces_and_vertices_are_refused_while_reading():
    quads = join([*VERTICES, *[b"f 1 2 4 3"] * 10])
    assert refuse(quads, limits=MeshLimits(max_faces=19)).startswith("too_many_faces: 20 faces")
    assert read(quads, limits=MeshLimits(max_faces=20)).num_faces == 20
    assert refuse(join(BOX), limits=MeshLimits(max_vertices=7)).startswith("too_many_vertices")


def reference_faces(text):
    """Triangles of a plain OBJ by the simplest reader there is; fans only."""
    points, faces = [], []
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if words[:1] == ["v"]:
            points.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            ids = [int(word.split("/")[0]) for word in words[1:]]
            ids = [k - 1 if k > 0 else len(points) + k for k in ids]
            faces += [(ids[0], ids[k], ids[k + 1]) for k in range(1, len(ids) - 1)]
    return np.array(points)[np.array(faces)]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_layout_reads_as_the_simplest_reader_reads_it(seed):
    rng = np.random.default_rng(seed)
    lines = []
    count = 0
    for _ in range(int(rng.integers(1, 12))):
        for _ in range(int(rng.integers(3, 7))):
            lines.append("v " + " ".join(f"{x:.6g}" for x in rng.normal(size=3)))
            lines.append("vt " + " ".join(f"{x:.3g}" for x in rng.random(2)))
            count += 1
        for _ in range(int(rng.integers(1, 5))):
            ids = rng.choice(count, 3, replace=False)
            own = [int(k) + 1 if rng.random() < 0.5 else int(k) - count for k in ids]
            lines.append("f " + " ".join(f"{k}/{k}" if rng.random() < 0.5 else f"{k}" for k in own))
    plain = "\n".join(lines)
    dressed = []
    for line in lines:
        space = str(rng.choice([" ", "\t", "  ", " \\\n", "\f"]))
        end = str(rng.choice(["", " ", "\t# note", " # f 1 2 3", "\r"]))
        dressed.append(str(rng.choice(["", " ", "\t", "\n# x\n"])) + line.replace(" ", space) + end)
    mesh = read("\n".join([*dressed, ""]).encode())
    np.testing.assert_array_equal(mesh.triangles, reference_faces(plain))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_files_lose_no_face_in_silence(seed):
    rng = np.random.default_rng(seed)
    data = bytearray(join([*BOX, b"g a", b"f 1/1 2/1 3/1", b"vt 0 0", b"usemtl m"]))
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        if rng.random() < 0.5:
            data[at] = int(rng.choice(list(b"0123456789 -./\nfvtnge\x00\xff#\\\r")))
        else:
            del data[at : at + int(rng.integers(1, 30))]
    try:
        mesh = read(bytes(data), limits=OPTIONAL)
    except AssetRejected:
        return
    announced = sum(
        max(len(line.split(b"#")[0].split()) - 3, 0)
        for line in bytes(data).replace(b"\\\n", b" ").replace(b"\r", b"\n").split(b"\n")
        if line.split()[:1] in ([b"f"], [b"fo"])
    )
    assert mesh.num_faces == announced
    assert mesh.faces.max() < len(mesh.vertices)
