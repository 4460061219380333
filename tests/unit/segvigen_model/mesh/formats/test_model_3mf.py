"""3MF packages written here give the build's triangles, in metres, with their materials."""

from __future__ import annotations

import contextvars
import io
import zipfile

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.isolation import allow_decoding_here
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIAL = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
PRODUCTION = "http://schemas.microsoft.com/3dmanufacturing/production/2015/06"
RELATIONS = (
    '<Relationships><Relationship Target="/3D/model.model" Id="r" Type='
    '"http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)


@pytest.fixture(autouse=True)
def _decode_here():
    with allow_decoding_here():
        yield


def mesh_xml(triangles="", points=((0, 0, 0), (10, 0, 0), (0, 20, 0), (0, 0, 30))):
    vertices = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in points)
    return f"<mesh><vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh>"


ONE = '<triangle v1="0" v2="1" v3="2"/>'
TWO = ONE + '<triangle v1="0" v2="2" v3="3"/>'


def pack(resources, build='<item objectid="1"/>', head="", **files):
    model = (
        f'<?xml version="1.0"?><model xmlns="{CORE}" xmlns:m="{MATERIAL}" xmlns:p="{PRODUCTION}" '
        f"{head}><resources>{resources}</resources><build>{build}</build></model>"
    )
    return pack_parts({"3D/model.model": model} | files)


def pack_parts(parts):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("_rels/.rels", RELATIONS)
        for name, content in parts.items():
            file.writestr(name, content)
    return stream.getvalue()


def read(*args, **options):
    return mesh_from_bytes(pack(*args, **options), "3mf")


def refused(data, **options):
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(data, "3mf", **options)
    return caught.value.reason


UNITS = {"micron": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "inch": 0.0254, "foot": 0.3048,
         "meter": 1.0}  # fmt: skip


@pytest.mark.parametrize("unit", [*UNITS, None])
def test_units_and_axes(unit):
    head = "" if unit is None else f'unit="{unit}"'
    mesh = read(f'<object id="1" name="wedge">{mesh_xml(TWO)}</object>', head=head)
    scale = UNITS[unit or "millimeter"]
    assert np.allclose(mesh.triangles[1], np.array([[0, 0, 0], [0, 0, -20], [0, 30, 0]]) * scale)
    assert mesh.origin.objects.names == ("wedge",)
    assert mesh.announced == {"faces": 2}


def test_components_and_items_are_placed():
    objects = (
        f'<object id="1">{mesh_xml(ONE)}</object>'
        '<object id="2"><components><component objectid="1"/>'
        '<component objectid="1" transform="2 0 0 0 2 0 0 0 2 100 0 0"/></components></object>'
    )
    build = '<item objectid="2" transform="1 0 0 0 1 0 0 0 1 0 0 7"/><item objectid="1"/>'
    mesh = read(objects, build, head='unit="meter"')
    assert mesh.num_faces == 3
    assert mesh.triangles[0].tolist() == [[0, 7, 0], [10, 7, 0], [0, 7, -20]]
    assert mesh.triangles[1].tolist() == [[100, 7, 0], [120, 7, 0], [100, 7, -40]]
    assert mesh.triangles[2].tolist() == [[0, 0, 0], [10, 0, 0], [0, 0, -20]]


def test_objects_that_are_not_built_are_no_part():
    objects = f'<object id="1">{mesh_xml(ONE)}</object><object id="2">{mesh_xml(TWO)}</object>'
    assert read(objects).num_faces == 1


def test_base_materials_by_triangle_and_by_object():
    named = TWO.replace("/>", ' pid="5" p1="0"/>')
    objects = (
        '<basematerials id="5"><base name="red" displaycolor="#FF0000"/>'
        '<base name="glass" displaycolor="#0000FF80"/></basematerials>'
        f'<object id="1" pid="5" pindex="1">{mesh_xml(ONE + named)}</object>'
    )
    mesh = read(objects)
    assert [mesh.materials[m].name for m in mesh.face_material] == ["glass", "red", "red"]
    colors = {m.name: m.base_color_factor for m in mesh.materials}
    assert colors == {"red": (1, 0, 0, 1), "glass": (0, 0, 1, 128 / 255)}
    names = mesh.origin.materials
    assert [names.names[n] for n in names.indices] == ["glass", "red", "red"]


def test_colours_of_corners():
    objects = (
        '<m:colorgroup id="6"><m:color color="#FF0000"/><m:color color="#00FF00FF"/></m:colorgroup>'
        '<object id="1">'
        + mesh_xml(
            '<triangle v1="0" v2="1" v3="2" pid="6" p1="0" p2="1" p3="1"/>'
            '<triangle v1="0" v2="2" v3="3" pid="6" p1="1"/><triangle v1="0" v2="3" v3="1"/>'
        )
        + "</object>"
    )
    mesh = read(objects)
    red, green, white = [255, 0, 0, 255], [0, 255, 0, 255], [255] * 4
    found = mesh.vertex_colors[mesh.faces].tolist()
    assert found == [[red, green, green], [green] * 3, [white] * 3]
    assert mesh.triangles.shape == (3, 3, 3) and len(mesh.materials) == 1


def test_textures(png):
    objects = (
        '<m:texture2d id="7" path="/3D/Textures/t.png" contenttype="image/png"/>'
        '<m:texture2dgroup id="8" texid="7"><m:tex2coord u="0" v="0"/><m:tex2coord u="1" v="0"/>'
        '<m:tex2coord u="0" v="0.25"/></m:texture2dgroup><object id="1">'
        + mesh_xml('<triangle v1="0" v2="1" v3="2" pid="8" p1="0" p2="1" p3="2"/>')
        + "</object>"
    )
    files = {"3D/Textures/t.png": png(color=(1, 2, 3))}
    mesh = read(objects, **files)
    assert mesh.corner_uv[0].tolist() == [[0, 1], [1, 1], [0, 0.75]], "v points down"
    assert mesh.materials[0].base_color_texture[0, 0].tolist() == [1, 2, 3, 255]
    assert refused(pack(objects)) == "unreadable", "the image is not in the package"
    limits = MeshLimits(max_texture_pixels=7)
    assert refused(pack(objects, **files), limits=limits) == "texture_too_large"


def test_parts_of_the_production_extension():
    inner = f'<object id="3">{mesh_xml(TWO)}</object>'
    inner = f'<model xmlns="{CORE}"><resources>{inner}</resources></model>'
    objects = (
        '<object id="1"><components>'
        '<component p:path="/3D/parts/a.model" objectid="3"/></components></object>'
    )
    mesh = read(objects, head='requiredextensions="p m"', **{"3D/parts/a.model": inner})
    assert mesh.num_faces == 2


BROKEN = {
    "index out of range": mesh_xml('<triangle v1="0" v2="1" v3="4"/>'),
    "negative index": mesh_xml('<triangle v1="0" v2="1" v3="-1"/>'),
    "missing corner": mesh_xml('<triangle v1="0" v2="1"/>'),
    "vertex of text": mesh_xml(ONE, [("a", 0, 0)]),
    "no such property": mesh_xml('<triangle v1="0" v2="1" v3="2" pid="99" p1="0"/>'),
    "no such component": '<components><component objectid="44"/></components>',
    "itself": '<components><component objectid="1"/></components>',
    "broken transform": '<components><component objectid="1" transform="1 2"/></components>',
    "not closed": "<mesh>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models(name):
    assert refused(pack(f'<object id="1">{BROKEN[name]}</object>')) == "unreadable"


def test_other_refusals():
    plain = f'<object id="1">{mesh_xml(ONE)}</object>'
    assert refused(pack(plain, '<item objectid="9"/>')) == "unreadable"
    assert refused(pack(plain, "")) == "no_faces"
    assert refused(pack(plain, head='unit="parsec"')) == "unreadable"
    beam = 'xmlns:b="http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02"'
    data = pack(plain, head=beam + ' requiredextensions="b"')
    assert refused(data) == "unsupported_extension"
    assert (
        refused(pack_parts({"3D/model.model": '<!DOCTYPE a [<!ENTITY b "c">]><a/>'}))
        == "unreadable"
    )
    assert refused(pack_parts({})) == "unreadable"
    odd = '<?xml version="1.0" encoding="UVF-8"?><model/>'  # found by mutation
    assert refused(pack_parts({"3D/model.model": odd})) == "unreadable"
    many = pack(f'<object id="1">{mesh_xml(ONE * 9)}</object>')
    assert refused(many, limits=MeshLimits(max_faces=8)) == "too_many_faces"
    assert refused(many, limits=MeshLimits(max_vertices=3)) == "too_many_vertices"


def test_a_tree_that_doubles_at_every_level_is_bounded():
    chain = "".join(
        f'<object id="{n}"><components><component objectid="{n + 1}"/>'
        f'<component objectid="{n + 1}"/></components></object>'
        for n in range(1, 25)
    )
    data = pack(chain + f'<object id="25">{mesh_xml(ONE)}</object>')
    assert refused(data, limits=MeshLimits(max_nodes=500)) == "too_many_nodes"


def test_truncation_and_damage_never_crash():
    whole = pack(f'<object id="1">{mesh_xml(TWO * 5)}</object>')
    for end in range(4, len(whole), 13):
        assert refused(whole[:end]) in ("truncated", "unreadable", "wrong_extension")
    rng = np.random.default_rng(3)
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(4, len(data), size=2):
            data[at] = int(rng.integers(256))
        try:
            assert mesh_from_bytes(bytes(data), "3mf").num_faces == 10
        except AssetRejected:
            continue


def test_load_mesh_decodes_in_a_confined_process(tmp_path):
    path = tmp_path / "wedge.3mf"
    path.write_bytes(pack(f'<object id="1" name="wedge">{mesh_xml(TWO)}</object>'))
    mesh = contextvars.Context().run(load_mesh, path)  # without the permission of this file
    assert mesh.num_faces == 2 and mesh.origin.objects.names == ("wedge",)
