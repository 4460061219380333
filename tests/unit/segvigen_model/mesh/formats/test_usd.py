"""USD files written by usd-core itself give the polygons, places and materials that they say."""

from __future__ import annotations

import sys
import zipfile

import numpy as np
import pytest

from segvigen_model import load_mesh
from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.formats.isolation import NeedsIsolation, allow_decoding_here
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes

pytest.importorskip("pxr", reason="needs the extra usd")
from pxr import Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt

POINTS = [(0, 0, 0), (2, 0, 0), (2, 1, 0), (0, 1, 0), (4, 0, 0), (4, 1, 0)]


def write(path, kind="usda", change=lambda stage, mesh: None):
    """A quad and a triangle at (1, 2, 3), Z up, half metres."""
    file = path / f"table.{kind}"
    stage = Usd.Stage.CreateNew(str(file))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 0.5)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/hall").GetPrim())
    UsdGeom.Xformable(stage.GetPrimAtPath("/hall")).AddTranslateOp().Set((1, 2, 3))
    mesh = UsdGeom.Mesh.Define(stage, "/hall/table")
    mesh.CreatePointsAttr(POINTS)
    mesh.CreateFaceVertexCountsAttr([4, 3])
    mesh.CreateFaceVertexIndicesAttr([0, 1, 2, 3, 1, 4, 5])
    mesh.CreateSubdivisionSchemeAttr("none")
    change(stage, mesh)
    stage.GetRootLayer().Save()
    return file


def read(file, **options):
    with allow_decoding_here():
        return mesh_from_bytes(file.read_bytes(), file.suffix, **options)


def refuse(file, **options):
    with pytest.raises(AssetRejected) as caught:
        read(file, **options)
    return caught.value.reason


def expect_triangles():
    points = np.add(POINTS, (1, 2, 3)) * 0.5
    points = points[:, [0, 2, 1]] * (1, 1, -1)
    return points[np.array([[0, 1, 2], [0, 2, 3], [1, 4, 5]])]


@pytest.mark.parametrize("kind", ["usda", "usdc", "usd", "usdz"])
def test_load_mesh_reads_every_kind_in_a_confined_process(tmp_path, kind):
    file = write(tmp_path, "usdc" if kind == "usdz" else kind)
    if kind == "usdz":
        assert UsdUtils.CreateNewUsdzPackage(str(file), str(tmp_path / "table.usdz"))
        file = tmp_path / "table.usdz"
    mesh = load_mesh(file)
    np.testing.assert_allclose(mesh.triangles, expect_triangles())
    assert mesh.origin.polygons.tolist() == [0, 0, 1]
    assert mesh.origin.objects.names == ("table",) and mesh.origin.groups.names == ("hall",)
    assert mesh.announced == {"polygons": 2} and mesh.repairs == ()
    with pytest.raises(NeedsIsolation):
        mesh_from_bytes(file.read_bytes(), kind)


def test_holes_and_left_handed_faces(tmp_path):
    def change(stage, mesh):
        mesh.CreateHoleIndicesAttr([1])
        mesh.CreateOrientationAttr("leftHanded")
        mesh.CreateSubdivisionSchemeAttr("catmullClark")

    mesh = read(write(tmp_path, change=change))
    np.testing.assert_allclose(mesh.triangles, expect_triangles()[:2, ::-1])
    assert dict(mesh.repairs) == {
        "hole_faces_left_out": 1,
        "subdivision_surfaces_read_as_polygons": 1,
    }


def test_invisible_prims_and_guides_are_left_out_and_counted(tmp_path):
    def change(stage, mesh):
        for name in ("hidden", "guide"):
            other = UsdGeom.Mesh.Define(stage, f"/hall/{name}")
            other.GetPrim().GetInherits().AddInherit("/hall/table")
        UsdGeom.Imageable(stage.GetPrimAtPath("/hall/hidden")).MakeInvisible()
        UsdGeom.Imageable(stage.GetPrimAtPath("/hall/guide")).CreatePurposeAttr("guide")
        UsdGeom.Sphere.Define(stage, "/ball")

    mesh = read(write(tmp_path, change=change))
    assert mesh.num_faces == 3
    assert dict(mesh.repairs) == {
        "invisible_prims_left_out": 1,
        "guides_and_proxies_left_out": 1,
        "surfaces_without_polygons": 1,
    }


def test_instances_are_expanded_within_the_limits(tmp_path):
    def change(stage, mesh):
        for name in ("a", "b"):
            prim = stage.DefinePrim(f"/copy_{name}")
            prim.GetReferences().AddInternalReference("/hall")
            prim.SetInstanceable(True)
        instancer = UsdGeom.PointInstancer.Define(stage, "/crowd")
        instancer.CreatePrototypesRel().AddTarget("/hall/table")
        instancer.CreateProtoIndicesAttr([0, 0, 0])
        instancer.CreatePositionsAttr([(0, 0, 0), (10, 0, 0), (20, 0, 0)])
        instancer.InvisId(1, Usd.TimeCode.Default())

    file = write(tmp_path, change=change)
    mesh = read(file)
    assert mesh.num_faces == 3 * 5 and dict(mesh.repairs)["invisible_prims_left_out"] == 1
    assert mesh.vertices[:, 0].max() == pytest.approx(0.5 * 24)
    assert refuse(file, limits=MeshLimits(max_faces=8)) == "too_many_faces"
    assert refuse(file, limits=MeshLimits(max_nodes=5)) == "too_many_nodes"


def add_material(stage, mesh, file):
    material = UsdShade.Material.Define(stage, "/mats/wood")
    shader = UsdShade.Shader.Define(stage, "/mats/wood/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.25)
    shader.CreateInput("opacity", Sdf.ValueTypeNames.Float).Set(0.5)
    texture = UsdShade.Shader.Define(stage, "/mats/wood/map")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(file)
    texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    color = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
    color.ConnectToSource(texture.ConnectableAPI(), "rgb")
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    subset = UsdShade.MaterialBindingAPI(mesh).CreateMaterialBindSubset("top", [1])
    UsdShade.MaterialBindingAPI.Apply(subset.GetPrim()).Bind(material)
    uv = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, "faceVarying"
    )
    uv.Set([(0, 0), (0.25, 1)])
    uv.SetIndices(Vt.IntArray([0, 0, 0, 0, 0, 1, 1]))


def test_materials_of_subsets_with_a_texture_beside_the_file(tmp_path, png):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/wood.png").write_bytes(png())
    change = lambda stage, mesh: add_material(stage, mesh, "./maps/wood.png")  # noqa: E731
    file = write(tmp_path, "usdc", change)
    mesh = load_mesh(file)
    assert [mesh.materials[n].name for n in mesh.face_material] == ["plain", "plain", "wood"]
    wood = mesh.materials[mesh.face_material[2]]
    assert wood.base_color_texture.shape == (2, 4, 4)
    assert (wood.metallic_factor, wood.roughness_factor) == (0, 0.25)
    assert wood.base_color_factor == (1, 1, 1, 0.5) and wood.alpha_mode == "BLEND"
    np.testing.assert_allclose(mesh.corner_uv[2], [(0, 1), (0.25, 0), (0.25, 0)])
    assert mesh.origin.materials.indices.tolist() == [-1, -1, 0]
    assert refuse(file) == "missing_side_file"
    plain = read(file, limits=MeshLimits(is_side_file_required=False))
    assert dict(plain.repairs) == {"side_files_absent": 1}
    packed = tmp_path / "packed.usdz"
    assert UsdUtils.CreateNewUsdzPackage(str(file), str(packed))
    assert any(each.base_color_texture is not None for each in read(packed).materials)


def test_display_colors(tmp_path):
    def change(stage, mesh):
        mesh.CreateDisplayColorPrimvar("uniform").Set([(1, 0, 0), (0, 0, 1)])

    mesh = read(write(tmp_path, change=change))
    colors = mesh.vertex_colors[mesh.faces]
    assert (colors[:2] == (255, 0, 0, 255)).all() and (colors[2] == (0, 0, 255, 255)).all()


def test_layers_beside_the_file_are_put_together(tmp_path):
    write(tmp_path, "usdc")
    scene = tmp_path / "scene.usda"
    scene.write_text('#usda 1.0\n(\n metersPerUnit = 1\n upAxis = "Y"\n)\n'
                     'def "a" (references = @./table.usdc@)\n{\n}\n')  # fmt: skip
    mesh = load_mesh(scene)
    assert mesh.num_faces == 3 and mesh.vertices[:, 2].max() == 3


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("@/etc/hostname@", "unsupported_feature"),
        ("@/etc/secret.usda@", "external_reference"),
        ("@../../secret.usda@", "external_reference"),
        ("@http://host/secret.usda@", "external_reference"),
        ("@other.usda@", "missing_side_file"),
        ("</nothing>", "unreadable"),
        ("</x>", "unreadable"),
    ],
)
@pytest.mark.parametrize("arc", ["references", "payload"])
def test_no_name_leads_out_of_the_folder(tmp_path, reference, reason, arc):
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    write(tmp_path).rename(tmp_path / "secret.usda")
    file = folder / "scene.usda"
    file.write_text(f'#usda 1.0\ndef "x" ({arc} = {reference})\n{{\n}}\n')
    with pytest.raises(AssetRejected) as caught:
        load_mesh(file)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png"])
def test_no_texture_leads_out_of_the_folder(tmp_path, name, png):
    folder = tmp_path / "a"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    file = write(folder, change=lambda stage, mesh: add_material(stage, mesh, name))
    with pytest.raises(AssetRejected, match="external_reference"):
        load_mesh(file)


BROKEN = {
    "fewer corners than announced": ("faceVertexIndices", [0, 1, 2, 3, 1, 4], "truncated"),
    "more corners than announced": ("faceVertexIndices", [0, 1, 2, 3, 1, 4, 5, 5], "unreadable"),
    "a point that is not there": ("faceVertexIndices", [0, 1, 2, 3, 1, 4, 9], "unreadable"),
    "a negative point": ("faceVertexIndices", [0, 1, 2, 3, 1, 4, -1], "unreadable"),
    "a negative size": ("faceVertexCounts", [8, -1], "unreadable"),
    "a size beyond all": ("faceVertexCounts", [4, 2**31 - 1], "truncated"),
    "a hole that is not there": ("holeIndices", [2], "unreadable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_announced_is_read_or_refused(tmp_path, name):
    attribute, values, reason = BROKEN[name]
    change = lambda stage, mesh: mesh.GetPrim().GetAttribute(attribute).Set(values)  # noqa: E731
    assert refuse(write(tmp_path, change=change)) == reason


def test_primvars_with_too_few_values(tmp_path):
    def change(stage, mesh):
        mesh.CreateDisplayColorPrimvar("vertex").Set([(1, 0, 0)])

    assert refuse(write(tmp_path, change=change)) == "truncated"


@pytest.mark.parametrize("kind", ["usda", "usdc", "usdz"])
def test_a_cut_file_is_refused(tmp_path, kind):
    file = write(tmp_path, "usdc" if kind == "usdz" else kind)
    if kind == "usdz":
        UsdUtils.CreateNewUsdzPackage(str(file), str(tmp_path / "table.usdz"))
    whole = (tmp_path / f"table.{kind}").read_bytes().rstrip()
    for end in np.linspace(1, len(whole) - 2, 12).astype(int):
        (tmp_path / f"cut.{kind}").write_bytes(whole[:end])
        assert refuse(tmp_path / f"cut.{kind}") in ("truncated", "unreadable", "wrong_extension")


def test_damage_never_gets_out_of_the_confined_process(tmp_path):
    whole = write(tmp_path, "usdc").read_bytes()
    rng = np.random.default_rng(5)
    file = tmp_path / "damaged.usdc"
    for _ in range(12):
        data = bytearray(whole)
        for at in rng.integers(8, len(data), size=3):
            data[at] = int(rng.integers(256))
        file.write_bytes(data)
        try:
            mesh = load_mesh(file)
        except AssetRejected:
            continue
        assert mesh.num_faces and mesh.faces.max() < len(mesh.vertices)


def test_a_package_that_begins_with_no_layer(tmp_path):
    file = tmp_path / "odd.usdz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert refuse(file) == "unreadable"


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch):
    file = write(tmp_path)
    for name in [each for each in sys.modules if each.split(".")[0] == "pxr"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(MissingExtra, match=r"segvigen-pipeline\[usd\]"):
        read(file)
