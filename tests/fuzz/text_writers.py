"""PLY, STL, OFF and OBJ of a known mesh, in one of many spellings."""

from __future__ import annotations

import struct

import numpy as np

from tests.fuzz.drafts import Draft
from tests.fuzz.known import Known
from tests.ply_maker import CODES, FORMATS

CHANNELS = ("red", "green", "blue", "alpha")


def spell(value: float, rng) -> str:
    """A coordinate in one of the spellings of C."""
    text = [f"{value:g}", f"{value:.6f}", f"{value:.8e}", f"{value:+g}"][rng.integers(4)]
    return text.replace("0.", ".", 1) if text.startswith("0.") and rng.random() < 0.3 else text


def write_ply(known: Known, rng, poison=None) -> Draft:
    encoding = str(rng.choice(FORMATS))
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[encoding]
    axis = str(rng.choice(["float", "double", "float32", "float64"]))
    color = str(rng.choice(["uchar", "uint8", "ushort", "float", "double"]))
    count = str(rng.choice(["uchar", "char", "short", "ushort", "int", "uint", "uint8", "int32"]))
    index = str(rng.choice(["int", "uint", "short", "ushort", "int32", "uchar"]))
    if poison is not None and poison < 0:
        index = "int"
    vertex = [(axis, name, known.points[:, i]) for i, name in enumerate("xyz")]
    if known.colors is not None:
        vertex += _color_columns(known.colors, color, rng)
    if known.uv is not None:
        names = [("s", "t"), ("u", "v"), ("texture_u", "texture_v")][rng.integers(3)]
        vertex += [("float", name, known.uv[:, i]) for i, name in enumerate(names)]
    if rng.random() < 0.3:
        vertex.append(("int", "flags", np.arange(len(known.points))))
    if rng.random() < 0.3:
        vertex.append(
            ("list uchar short", "marks", [[1] * (i % 3) for i in range(len(known.points))])
        )
    vertex = [vertex[i] for i in rng.permutation(len(vertex))]
    name = str(rng.choice(["vertex_indices", "vertex_index"]))
    face = [(f"list {count} {index}", name, poisoned(known.polygons, poison, rng))]
    if known.face_colors is not None:
        face += _color_columns(known.face_colors, color, rng)
    if rng.random() < 0.3:
        face.append(
            ("list uint8 float", "weights", [[0.5] * (i % 2) for i in range(len(face[0][2]))])
        )
    face = [face[i] for i in rng.permutation(len(face))]
    pieces = [("head", b"ply\n"), ("head", f"format {encoding} 1.0\n".encode())]
    rows = []
    for element, columns in (("vertex", vertex), ("face", face)):
        size = len(columns[0][2])
        pieces.append(("counts", f"element {element} {size}\n".encode()))
        pieces += [("head", f"property {kind} {name}\n".encode()) for kind, name, _ in columns]
        rows += [(element, _ply_row(columns, number, order, rng)) for number in range(size)]
    keeps = frozenset({"order", "colors", "face_colors", "uv"})
    return Draft(
        "ply", (*pieces, ("end", b"end_header\n"), *rows), not order, keeps, comment="comment"
    )


def _color_columns(colors, kind, rng):
    if kind in ("float", "double"):
        values = colors / 255.0 if rng.random() < 0.5 else colors.astype(float)
    else:
        values = colors.astype(int) * (257 if kind == "ushort" else 1)
    names = [CHANNELS, ("r", "g", "b", "a"), tuple(f"diffuse_{c}" for c in CHANNELS)][
        rng.integers(3)
    ]
    return [(kind, name, values[:, i]) for i, name in enumerate(names)]


def _ply_row(columns, number, order, rng) -> bytes:
    words, data = [], b""
    for kind, _, values in columns:
        value = values[number]
        parts = kind.split()
        if parts[0] == "list":
            words += [str(len(value)), *map(str, value)]
            if order:
                data += struct.pack(order + CODES[parts[1]], len(value))
                data += struct.pack(f"{order}{len(value)}{CODES[parts[2]]}", *value)
            continue
        is_real = kind in ("float", "double", "float32", "float64")
        words.append((spell(value, rng) if kind[-1] != "r" and float(value) * 64 % 1 == 0
                      else repr(float(value))) if is_real else str(int(value)))  # fmt: skip
        if order:
            data += struct.pack(order + CODES[kind], float(value) if is_real else int(value))
    return data if order else (" ".join(words) + "\n").encode()


def poisoned(polygons, poison, rng):
    """Polygons of which one has an impossible corner, or too few of them (poison 2)."""
    rows = [list(row) for row in polygons]
    if poison is not None:
        row = rows[rng.integers(len(rows))]
        if poison == 2:
            del row[2:]
        else:
            row[rng.integers(len(row))] = poison
    return rows


def write_off(known: Known, rng, poison=None) -> Draft:
    has_color, has_uv = known.colors is not None, known.uv is not None
    word = ("ST" if has_uv else "") + ("C" if has_color else "") + "OFF"
    is_fraction = rng.random() < 0.5
    polygons = poisoned(known.polygons, poison, rng)
    counts = f"{len(known.points)} {len(polygons)}" + ["", " 0", " 12"][rng.integers(3)]
    gap = ["\n", "", " "][rng.integers(3)]
    pieces = [("word", f"{word}{gap}".encode()), ("counts", f"{counts}\n".encode())]
    if word == "OFF" and rng.random() < 0.2:
        pieces = pieces[1:]
    for number, point in enumerate(known.points):
        words = [spell(value, rng) for value in point]
        if has_color:
            words += _off_color(known.colors[number], is_fraction)
        if has_uv:
            words += [spell(value, rng) for value in known.uv[number]]
        pieces.append(("vertex", (" ".join(words) + "\n").encode()))
    for number, row in enumerate(polygons):
        words = [str(len(row)), *map(str, row)]
        if known.face_colors is not None:
            words += _off_color(known.face_colors[number], is_fraction)
        pieces.append(("face", (" ".join(words) + "\n").encode()))
    keeps = frozenset({"order", "colors", "face_colors", "uv"})
    return Draft("off", tuple(pieces), True, keeps, comment="#")


def _off_color(color, is_fraction):
    return [repr(float(value) / 255) if is_fraction else str(int(value)) for value in color]


def write_obj(known: Known, rng, poison=None) -> Draft:
    is_relative = rng.random() < 0.4 and poison is None
    polygons = poisoned(known.polygons, poison, rng)
    pieces = [("head", b"# a mesh\n"), ("head", b"o thing\n")]
    for number, point in enumerate(known.points):
        words = ["v", *(spell(value, rng) for value in point)]
        if known.colors is not None:
            words += [repr(float(value) / 255) for value in known.colors[number, :3]]
        pieces.append(("vertex", (" ".join(words) + "\n").encode()))
        if known.uv is not None:
            pieces.append(("uv", f"vt {known.uv[number, 0]:g} {known.uv[number, 1]:g}\n".encode()))
    count = len(known.points)
    for number, row in enumerate(polygons):
        if rng.random() < 0.2:
            pieces.append(
                ("head", [b"g part %d\n", b"s %d\n", b"\n#%d\n"][rng.integers(3)] % number)
            )
        corners = [corner - count if is_relative else corner + 1 for corner in row]
        form = "{0}/{0}" if known.uv is not None else "{0}"
        line = "f " + " ".join(form.format(corner) for corner in corners)
        if rng.random() < 0.1:
            line = line[: line.rindex(" ")] + " \\\n" + line[line.rindex(" ") + 1 :]
        pieces.append(("face", (line + "\n").encode()))
    keeps = frozenset({"order", "uv"} | ({"colors"} if known.colors is not None else set()))
    return Draft("obj", tuple(pieces), True, keeps, is_announced=False, comment="#")


def write_stl_binary(known: Known, rng, poison=None) -> Draft:
    header = [b"made here", b"solid thing", b"", b"facet normal"][rng.integers(4)].ljust(80)
    rows = []
    for row in known.polygons:
        values = known.points[row].ravel()
        rows.append(("face", struct.pack("<3f9fH", 0, 0, 1, *values, 0)))
    counts = ("counts", struct.pack("<I", len(rows)))
    return Draft("stl", (("head", header), counts, *rows), False, frozenset({"order"}))


def write_stl_text(known: Known, rng, poison=None) -> Draft:
    case = [str, str.upper, str.title][rng.integers(3)]
    names = ["solid box", "solid facet normal", "solid"]
    pieces = [("head", (case(names[rng.integers(3)]) + "\n").encode())]
    for number, row in enumerate(known.polygons):
        if rng.random() < 0.1:
            pieces += [("head", b"endsolid\n"), ("head", f"solid number {number}\n".encode())]
        lines = ["facet normal 0 0 1", "outer loop"]
        lines += [" ".join(["vertex", *(spell(v, rng) for v in known.points[i])]) for i in row]
        lines += ["endloop", "endfacet"]
        pieces += [("face", (case(line) + "\n").encode()) for line in lines]
    pieces.append(("head", (case("endsolid") + "\n").encode()))
    return Draft("stl", tuple(pieces), True, frozenset({"order"}))
