"""FBX files written here, in both forms, give the polygons, places and materials that they say."""

from __future__ import annotations

import base64
import contextvars
import struct
import zlib

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.isolation import allow_decoding_here
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import find_names
from segvigen_model.mesh.io import mesh_from_bytes


@pytest.fixture(autouse=True)
def _decode_here():
    with allow_decoding_here():
        yield


class Node:
    def __init__(self, name, *values, children=()):
        self.name, self.values, self.children = name, values, list(children)


def pack_value(value, is_packed):
    if isinstance(value, bool):
        return b"C" + struct.pack("<?", value)
    if isinstance(value, int):
        return b"L" + struct.pack("<q", value)
    if isinstance(value, float):
        return b"D" + struct.pack("<d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"S" + struct.pack("<I", len(data)) + data
    if isinstance(value, bytes):
        return b"R" + struct.pack("<I", len(value)) + value
    kind = {"f": b"d", "i": b"i"}[value.dtype.kind]
    data = value.astype("<f8" if kind == b"d" else "<i4").tobytes()
    packed = zlib.compress(data) if is_packed else data
    return kind + struct.pack("<III", len(value), int(is_packed), len(packed)) + packed


def pack_nodes(nodes, start, version, is_packed):
    wide = version >= 7500
    layout, end_mark = ("<QQQB", bytes(25)) if wide else ("<IIIB", bytes(13))
    out = b""
    for node in nodes:
        values = b"".join(pack_value(value, is_packed) for value in node.values)
        name = node.name.encode()
        head = struct.calcsize(layout) + len(name)
        inner = start + len(out) + head + len(values)
        body = pack_nodes(node.children, inner, version, is_packed) if node.children else b""
        end = inner + len(body)
        out += struct.pack(layout, end, len(node.values), len(values), len(name)) + name
        out += values + body
    return out + end_mark


def write_binary(nodes, version=7400, is_packed=True):
    head = b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", version)
    return head + pack_nodes(nodes, 27, version, is_packed)


def write_text(nodes, depth=0):
    lines = ["; FBX 7.4.0 project file"] if depth == 0 else []
    for node in nodes:
        if len(node.values) == 1 and isinstance(node.values[0], np.ndarray):
            numbers = ",".join(repr(v) for v in node.values[0].tolist())
            lines.append(f"{node.name}: *{len(node.values[0])} {{\n a: {numbers}\n}}")
            continue
        spelled = [
            f'"{base64.b64encode(value).decode()}"' if isinstance(value, bytes)
            else '"' + "::".join(value.split("\x00\x01")[::-1]) + '"' if isinstance(value, str)
            else str(int(value)) if isinstance(value, bool) else repr(value)
            for value in node.values
        ]  # fmt: skip
        lines.append(f"{node.name}: {', '.join(spelled)}")
        if node.children or depth == 0:
            lines[-1] += " {\n" + write_text(node.children, depth + 1).decode() + "\n}"
    return "\n".join(lines).encode()


def props(**values):
    entries = []
    for name, value in values.items():
        listed = value if isinstance(value, tuple) else (value,)
        entries.append(Node("P", name.replace("__", "|").replace("_", " "), "", "", "A", *listed))
    return Node("Properties70", children=entries)


POINTS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 3]], dtype=float)
# A quad, a triangle and a line: the last corner of each is stored as ~n.
POLYGONS = np.array([0, 1, 2, ~3, 0, 1, ~4, 0, ~4], dtype=np.int64)


def layer(kind, mapping, **arrays):
    reference = "IndexToDirect" if len(arrays) > 1 or "Materials" in arrays else "Direct"
    children = [
        Node("MappingInformationType", mapping), Node("ReferenceInformationType", reference),
        *(Node(name, np.asarray(values)) for name, values in arrays.items()),
    ]  # fmt: skip
    return Node(kind, 0, children=children)


def document(model=(), geometry=(), materials=(), more=(), links=(), settings=None, parent=()):
    """A file of one model with one geometry below a parent."""
    objects = [
        Node("Geometry", 10, "shape\x00\x01Geometry", "Mesh", children=[
            Node("Vertices", POINTS.ravel()), Node("PolygonVertexIndex", POLYGONS), *geometry]),
        Node("Model", 20, "table\x00\x01Model", "Mesh", children=[props(**dict(model))]),
        Node("Model", 21, "room\x00\x01Model", "Null", children=[props(**dict(parent))]),
        *materials, *more,
    ]  # fmt: skip
    pairs = [(10, 20), (20, 21), (21, 0), *links]
    lines = [Node("C", "OP" if len(pair) > 2 else "OO", *pair) for pair in pairs]
    units = settings or {"UnitScaleFactor": 100.0}
    return [
        Node("FBXHeaderExtension", children=[Node("FBXVersion", 7400)]),
        Node("GlobalSettings", children=[props(**units)]),
        Node("Objects", children=objects),
        Node("Connections", children=lines),
    ]


def write(nodes, how):
    if how == "text":
        return write_text(nodes)
    return write_binary(nodes, 7700 if how == "wide" else 7400, is_packed=how != "plain")


def read(nodes, how="binary", **options):
    return mesh_from_bytes(write(nodes, how), "fbx", **options)


FORMS = pytest.mark.parametrize("how", ["binary", "wide", "plain", "text"])


@FORMS
def test_polygons_names_and_what_was_left_out(how):
    mesh = read(document(), how)
    assert mesh.num_faces == 3
    assert mesh.origin.polygons.tolist() == [0, 0, 1]
    assert mesh.origin.objects.names == ("table",) and mesh.origin.groups.names == ("shape",)
    assert mesh.announced == {"polygons": 3}
    assert mesh.repairs == (("faces_under_three_corners", 1),)
    assert mesh.used_vertices.max(axis=0).tolist() == [2, 1, 3], "a unit of 100 cm is a metre"


@FORMS
def test_layers_of_corners(how):
    uv = [[0, 0], [1, 0], [1, 1]]
    geometry = (
        layer("LayerElementUV", "ByPolygonVertex", UV=np.ravel(uv).astype(float),
              UVIndex=[0, 1, 2, 2, 0, 1, 2, 0, 0]),
        layer("LayerElementNormal", "ByPolygon", Normals=np.repeat([[0.0, 0, 1], [0, -1, 0],
              [0, 0, 1]], 3, axis=0)[::3].ravel()),
        layer("LayerElementColor", "ByVertice", Colors=np.eye(5, 4).ravel()),
    )  # fmt: skip
    mesh = read(document(geometry=geometry), how)
    assert mesh.corner_uv[0].tolist() == [[0, 1], [1, 1], [1, 0]], "v points down"
    assert mesh.corner_uv[2].tolist() == [[0, 1], [1, 1], [1, 0]]
    normals = mesh.vertex_normals[mesh.faces]
    assert normals[0].tolist() == [[0, 0, 1]] * 3 and normals[2].tolist() == [[0, -1, 0]] * 3
    colors = mesh.vertex_colors[mesh.faces]
    assert colors[0].tolist() == (np.eye(3, 4, dtype=int) * 255).tolist()
    np.testing.assert_array_equal(mesh.triangles[0], POINTS[:3])


def test_places_axes_and_units():
    # Z up and millimetres, turned a quarter about the pivot (1, 0, 0), below a moved parent.
    settings = {
        "UpAxis": 2, "UpAxisSign": 1, "FrontAxis": 1, "FrontAxisSign": -1, "CoordAxis": 0,
        "CoordAxisSign": 1, "UnitScaleFactor": 0.1,
    }  # fmt: skip
    model = {"Lcl_Rotation": (0.0, 0.0, 90.0), "RotationPivot": (1.0, 0.0, 0.0),
             "GeometricTranslation": (0.0, 0.0, 5.0)}  # fmt: skip
    mesh = read(document(model, settings=settings, parent={"Lcl_Translation": (0.0, 10.0, 0.0)}))
    # (2, 0, 0): geometric (2, 0, 5), about the pivot (1, 1, 5), the parent (1, 11, 5).
    expected = np.array([1, 5, -11]) / 1000
    assert np.allclose(mesh.triangles[0, 1], expected)


def test_a_mirrored_model_keeps_its_outside():
    mesh = read(document({"Lcl_Scaling": (-1.0, 1.0, 1.0)}))
    plain = read(document())
    first, mirrored = plain.triangles[0], mesh.triangles[0]
    assert np.cross(first[1] - first[0], first[2] - first[0])[2] > 0
    assert np.cross(mirrored[1] - mirrored[0], mirrored[2] - mirrored[0])[2] > 0


def material(number, name, **values):
    return Node("Material", number, f"{name}\x00\x01Material", "", children=[props(**values)])


@FORMS
def test_materials_by_polygon_and_embedded_texture(how, png):
    image = png(color=(9, 8, 7))
    nodes = document(
        geometry=[layer("LayerElementMaterial", "ByPolygon", Materials=[1, 0, 0])],
        materials=[
            material(30, "wood", DiffuseColor=(0.5, 0.25, 1.0), Opacity=0.5, Shininess=30.0),
            material(31, "cloth", DiffuseColor=(0.1, 0.1, 0.1)),
        ],
        more=[
            Node("Texture", 40, "t\x00\x01Texture", "", children=[
                Node("RelativeFilename", "..\\maps\\t.png")]),
            Node("Video", 50, "v\x00\x01Video", "Clip", children=[Node("Content", image)]),
        ],
        links=[(30, 20), (31, 20), (40, 31, "DiffuseColor"), (50, 40)],
    )  # fmt: skip
    mesh = read(nodes, how)
    names = [mesh.materials[number].name for number in mesh.face_material]
    assert names == ["cloth", "cloth", "wood"]
    wood = next(found for found in mesh.materials if found.name == "wood")
    assert wood.base_color_factor == (0.5, 0.25, 1, 0.5) and wood.alpha_mode == "BLEND"
    cloth = next(found for found in mesh.materials if found.name == "cloth")
    assert cloth.base_color_texture[0, 0].tolist() == [9, 8, 7, 255]
    assert cloth.base_color_factor == (1, 1, 1, 1), "the texture takes the colour's place"
    assert find_names(write_binary(nodes), "fbx", 9) == []


def test_a_texture_beside_the_file(png):
    texture = Node("Texture", 40, "t\x00\x01Texture", "", children=[
        Node("RelativeFilename", "D:\\work\\Wall.PNG")])  # fmt: skip
    nodes = document(materials=[material(30, "wall")], more=[texture],
                     links=[(30, 20), (40, 30, "DiffuseColor")])  # fmt: skip
    assert find_names(write_binary(nodes), "fbx", 9) == ["Wall.PNG"]
    mesh = read(nodes, side_files={"wall.png": png()})
    assert mesh.materials[0].base_color_texture.shape == (2, 4, 4)
    with pytest.raises(AssetRejected, match="missing_side_file"):
        read(nodes)
    plain = read(nodes, limits=MeshLimits(is_side_file_required=False))
    assert ("missing_textures", 1) in plain.repairs


BROKEN = {
    "open polygon": (("PolygonVertexIndex", [0, 1, 2]), "truncated"),
    "vertex that is not there": (("PolygonVertexIndex", [0, 1, ~9]), "unreadable"),
    "corner between two vertices": (("PolygonVertexIndex", [0.5, 1, -3]), "unreadable"),
    "corner without number": (("PolygonVertexIndex", [np.nan, 1, -3]), "unreadable"),
    "two coordinates": (("Vertices", [0.0, 1, 2, 3]), "truncated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_geometry(name):
    (node, values), reason = BROKEN[name]
    nodes = document()
    geometry = nodes[2].children[0]
    for child in geometry.children:
        if child.name == node:
            child.values = (np.array(values),)
    with pytest.raises(AssetRejected) as caught:
        read(nodes)
    assert caught.value.reason == reason


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**18])
def test_a_property_that_is_no_number_is_left_out_or_refused(value):
    for name in ("RotationOrder", "InheritType", "Lcl_Translation"):  # found by mutation
        values = (value,) * 3 if "Lcl" in name else (value,)
        try:
            mesh = read(document({name: values}))
        except AssetRejected as err:
            assert err.reason in ("unreadable", "degenerate")  # float64 has 16 digits
            continue
        assert np.isfinite(mesh.vertices).all()


def test_layers_that_are_too_short():
    for broken in (
        layer("LayerElementUV", "ByPolygonVertex", UV=[0.0, 1], UVIndex=[0, 0]),
        layer("LayerElementMaterial", "ByPolygon", Materials=[0]),
        layer("LayerElementNormal", "ByVertex", Normals=[0.0, 0]),
    ):
        with pytest.raises(AssetRejected, match="truncated"):
            read(document(geometry=[broken]))


def test_limits_and_other_versions():
    with pytest.raises(AssetRejected, match="too_many_faces"):
        read(document(), limits=MeshLimits(max_faces=2))
    with pytest.raises(AssetRejected, match="too_many_nodes"):
        read(document(), limits=MeshLimits(max_nodes=1))
    with pytest.raises(AssetRejected, match=r"unsupported_version.*Blender"):
        mesh_from_bytes(write_binary(document(), 6100), "fbx")
    nodes = document(links=[(21, 20)])
    with pytest.raises(AssetRejected, match="contains itself"):
        read(nodes)


def test_an_array_that_unfolds_further_than_it_says():
    data = bytearray(write_binary(document()))
    at = data.index(b"PolygonVertexIndex") + len(b"PolygonVertexIndex") + 1
    struct.pack_into("<I", data, at, 5)
    with pytest.raises(AssetRejected, match="announces 20 bytes"):
        mesh_from_bytes(bytes(data), "fbx")


@FORMS
def test_truncation_and_damage_never_crash(how):
    geometry = [layer("LayerElementUV", "ByPolygonVertex", UV=[0.0, 0, 1, 1], UVIndex=[0, 1] * 5)]
    nodes = document(geometry=geometry, materials=[material(30, "m")], links=[(30, 20)])
    whole = write(nodes, how)
    for end in range(0, len(whole) - (13 if how != "wide" else 25), 11):
        with pytest.raises(AssetRejected):
            mesh_from_bytes(whole[:end], "fbx")
    rng = np.random.default_rng(5)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(30, len(data), size=3):
            data[at] = int(rng.integers(256))
        try:
            mesh = mesh_from_bytes(bytes(data), "fbx")
        except AssetRejected:
            continue
        assert mesh.faces.max() < len(mesh.vertices)


def test_load_mesh_decodes_in_a_confined_process(tmp_path, png):
    path = tmp_path / "table.fbx"
    path.write_bytes(write_binary(document()))
    mesh = contextvars.Context().run(load_mesh, path)  # without the permission of this file
    assert mesh.origin.polygons.tolist() == [0, 0, 1]
    assert mesh.origin.objects.names == ("table",)
