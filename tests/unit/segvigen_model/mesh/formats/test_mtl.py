"""Lines of material libraries: names among options, materials by the names that faces use."""

from __future__ import annotations

import pytest

from segvigen_model.mesh.formats.mtl import (
    MaterialTable,
    find_texture_names,
    parse_library_names,
    parse_mtl,
    parse_texture,
)


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("a.png", "a.png"),
        ("my tex.png", "my tex.png"),
        ("-s 1.0 1.0 1.0 my tex.png", "my tex.png"),
        ("-s 1 1 1 t.png", "t.png"),
        ("-s 2 t.png", "t.png"),
        ("-o 0.0 -7.0 0.0 -s 1.0 10.0 1.0 -clamp on img/Body.png", "img/Body.png"),
        ("n.png -bm 1", "n.png"),
        ("my n.png\t-bm\t1 -clamp off", "my n.png"),
        ("-bm 0.5 -imfchan r -texres 512 -boost 2 -blendu off a  b.png -mm 0 1", "a  b.png"),
        ("-type cube_top -cc on c.png", "c.png"),
        ("-bm name.png", "name.png"),
        ('-s 1 1 1 "a b.png" # painted', "a b.png"),
        ("Grey #1.png", "Grey #1.png"),
        ("a -bm.png", "a -bm.png"),
        ("n -1.png", "n -1.png"),
        ("-colorspace sRGB a.png", "a.png"),
        ("-unknown 3 a.png", "a.png"),
        ("textures\\a.png", "textures\\a.png"),
        ("7", "7"),
    ],
)
def test_the_name_of_a_texture_stands_among_its_options(rest, name):
    assert parse_texture(rest).name == name


@pytest.mark.parametrize("rest", ["", "  ", "-s 1 1 1", "-cc on", ".", "# none", '""'])
def test_a_texture_line_without_a_name(rest):
    assert parse_texture(rest) is None


def test_offset_and_scale_before_or_behind_the_name():
    assert parse_texture("-o 0.5 -s -15 -15 -3.7 a.png").scale == (-15, -15)
    assert parse_texture("-o 0.5 -s -15 -15 -3.7 a.png").offset == (0.5, 0)
    assert parse_texture("a b.png -s 2 3").scale == (2, 3)
    assert parse_texture("-s 1e999 1 a.png").scale == (1, 1), "not finite"


def test_a_line_of_many_options_is_read_in_linear_time():
    assert parse_texture("x " + "-cc on " * 50_000 + "y").name.startswith("x -cc")
    assert parse_texture("-cc on " * 50_000 + "y").name == "y"


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        (b"a.mtl", ["a.mtl"]),
        (b"a b.mtl", ["a b.mtl"]),
        (b"z.mtl m.mtl", ["z.mtl", "m.mtl"]),
        (b"a.MTL\tb c.mtl  ", ["a.MTL", "b c.mtl"]),
        (b'"a b.mtl" c.mtl', ["a b.mtl", "c.mtl"]),
        (b"a.mtl # not b.mtl", ["a.mtl"]),
        (b"materials", ["materials"]),
        (b"a.mtl.bak", ["a.mtl.bak"]),
        (b"gr\xfcn.mtl", ["gr\u00fcn.mtl"]),
        ("gr\u00fcn.mtl".encode(), ["gr\u00fcn.mtl"]),
        (b"", []),
    ],
)
def test_names_of_libraries(rest, names):
    assert parse_library_names(rest) == names


LIBRARY = (
    b"\xef\xbb\xbf# made by hand\r\nKd 9 9 9\r\nnewmtl\tred # the first\r\n\tKd 1 0 0 # full\r\n"
    b"  d -halo 0.5\r\nNS 30\rnewmtl Grey #1\nKd .5\nKe 1 2\nmap_Kd -bm 1 grey.png\n"
    b"map_Kd second.png\nmap_aat on\nbump n.png -bm 1\nnewmtl gr\xfcn\nKd 0,5 1 0\nNs nan\nTr\n"
    b"Pm 1e999\nnewmtl red # the second\nKd 0 0 1\n"
)


def test_materials_of_a_library():
    red, grey, green, again = parse_mtl(LIBRARY)
    assert red.values == {"Kd": (1, 0, 0), "d": (0.5,), "Ns": (30,)}
    assert (red.name, red.alias) == ("red # the first", "red")
    assert (grey.alias, grey.values["Kd"]) == ("Grey #1", (0.5, 0.5, 0.5))
    assert grey.textures["map_kd"].name == "grey.png" and grey.textures["bump"].name == "n.png"
    assert (green.name, green.values, green.num_unread) == ("gr\u00fcn", {}, 4)
    assert again.values["Kd"] == (0, 0, 1)
    assert list(find_texture_names(LIBRARY)) == ["grey.png", "second.png", "n.png"]


def test_materials_are_found_by_the_names_that_faces_use():
    table = MaterialTable(parse_mtl(LIBRARY + "newmtl e\u0301t\u00e9 a  b\n".encode()))
    assert table.find(b"red # the second").values["Kd"] == (0, 0, 1)
    for rest in (b"red", b"red # the first", b"red  #comment", b'"red"', b"RED"):
        assert table.find(rest).values["Kd"] == (1, 0, 0), "the first of a name counts"
    assert table.find(b"Grey #1").alias == "Grey #1"
    assert table.find("gr\u00fcn".encode()).name == table.find(b"gr\xfcn").name == "gr\u00fcn"
    assert table.find("\u00e9t\u00e9\ta b".encode()) is not None, "composed or not, any space"
    assert table.find(b"Grey") is None and table.find(b"") is None


def test_a_library_of_many_materials_is_searched_by_index():
    text = b"".join(b"newmtl m%d\nKd 1 1 1\n" % number for number in range(50_000))
    table = MaterialTable(parse_mtl(text))
    assert all(table.find(b"m%d" % number) for number in range(0, 50_000, 7))
