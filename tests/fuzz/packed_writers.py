"""3MF and FBX of a known mesh."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np

from tests.fuzz.drafts import Draft
from tests.fuzz.known import Known

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
RELATIONS = (
    '<Relationships><Relationship Target="/3D/model.model" Id="r" Type='
    '"http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)


def write_3mf(known: Known, rng, poison=None) -> Draft:
    """A package whose axes are turned back by the reader: z up becomes y up."""
    # The reader turns (x, y, z) into (x, z, -y); the file holds what gives the known points.
    points = np.stack([known.points[:, 0], -known.points[:, 2], known.points[:, 1]], axis=1)
    faces = [list(row) for row in known.polygons]
    if poison is not None:
        faces[rng.integers(len(faces))][rng.integers(3)] = poison
    vertices = "".join(f'<vertex x="{x:g}" y="{y:g}" z="{z:.9g}"/>' for x, y, z in points)
    triangles = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in faces)
    model = (
        f'<?xml version="1.0"?><model xmlns="{CORE}" unit="meter"><resources><object id="1">'
        f"<mesh><vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh></object>"
        '</resources><build><item objectid="1"/></build></model>'
    )
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("_rels/.rels", RELATIONS)
        file.writestr("3D/model.model", model)
    return Draft("3mf", (("whole", stream.getvalue()),), False, frozenset({"order"}))


def write_fbx(known: Known, rng, poison=None) -> Draft:
    """One geometry on one model, binary of either layout."""
    rows = [list(row) for row in known.polygons]
    if poison is not None:
        rows[rng.integers(len(rows))][0] = poison if poison >= 0 else 9999
    corners = np.array([c for row in rows for c in (*row[:-1], ~row[-1])], dtype=np.int64)
    version = int(rng.choice([7400, 7500]))
    is_packed = bool(rng.random() < 0.5)
    settings = [("P", [name, "int", "Integer", "", value], []) for name, value in (
        ("UpAxis", 1), ("UpAxisSign", 1), ("FrontAxis", 2), ("FrontAxisSign", 1), ("CoordAxis", 0),
        ("CoordAxisSign", 1))]  # fmt: skip
    settings.append(("P", ["UnitScaleFactor", "double", "Number", "", 100.0], []))
    nodes = [
        ("GlobalSettings", [], [("Properties70", [], settings)]),
        ("Objects", [], [
            ("Geometry", [1, "shape\x00\x01Geometry", "Mesh"], [
                ("Vertices", [known.points.ravel()], []), ("PolygonVertexIndex", [corners], []),
            ]),
            ("Model", [2, "thing\x00\x01Model", "Mesh"], []),
        ]),
        ("Connections", [], [("C", ["OO", 1, 2], []), ("C", ["OO", 2, 0], [])]),
    ]  # fmt: skip
    head = b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", version)
    data = head + _pack_nodes(nodes, 27, version, is_packed)
    return Draft("fbx", (("whole", data),), False, frozenset({"order"}))


def _pack_nodes(nodes, start: int, version: int, is_packed: bool) -> bytes:
    layout, end_mark = ("<QQQB", bytes(25)) if version >= 7500 else ("<IIIB", bytes(13))
    out = b""
    for name, values, children in nodes:
        packed = b"".join(_pack_value(value, is_packed) for value in values)
        inner = start + len(out) + struct.calcsize(layout) + len(name) + len(packed)
        body = _pack_nodes(children, inner, version, is_packed) if children else b""
        out += struct.pack(layout, inner + len(body), len(values), len(packed), len(name))
        out += name.encode() + packed + body
    return out + end_mark


def _pack_value(value, is_packed: bool) -> bytes:
    if isinstance(value, int):
        return b"L" + struct.pack("<q", value)
    if isinstance(value, float):
        return b"D" + struct.pack("<d", value)
    if isinstance(value, str):
        return b"S" + struct.pack("<I", len(value.encode())) + value.encode()
    kind = {"f": b"d", "i": b"i"}[value.dtype.kind]
    data = value.astype("<f8" if kind == b"d" else "<i4").tobytes()
    body = zlib.compress(data) if is_packed else data
    return kind + struct.pack("<III", len(value), int(is_packed), len(body)) + body
