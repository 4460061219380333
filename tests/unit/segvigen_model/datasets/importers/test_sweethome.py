"""Sweet Home 3D libraries to labelled folders: parts, licences, what is left out and why."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from segvigen_model.datasets.importers.obj_groups import read_obj_groups, strip_numbers
from segvigen_model.datasets.importers.sweethome import CATALOG, import_libraries, main
from segvigen_model.datasets.voxel_samples import is_validation, load_labelled, read_pack_rows
from segvigen_model.errors import AssetRejected, SegvigenError

MTL = "newmtl wood\nKd 0.4 0.2 0.1\nmap_Kd missing.png\nnewmtl metal\nKd 0.7 0.7 0.7\n"


def grid_box(size, at, first):
    """Vertices and quads of a box of 3 x 3 quads a side, as OBJ lines, and the next index."""
    lines, quads = [], []
    for axis in range(3):
        for side in (-0.5, 0.5):
            start = first
            for u in np.linspace(-0.5, 0.5, 4):
                for v in np.linspace(-0.5, 0.5, 4):
                    point = np.zeros(3)
                    point[axis], point[axis - 2], point[axis - 1] = side, u, v
                    lines.append("v {} {} {}".format(*(point * size + at)))
                    first += 1
            for row in range(3):
                for column in range(3):
                    a = start + 4 * row + column
                    quads.append(f"f {a}/1 {a + 1}/1 {a + 5}/1 {a + 4}/1")
    return lines, quads, first


def obj_of(*pieces):
    """OBJ text of boxes: (object name, material, size, place)."""
    lines, first = ["mtllib m.mtl"], 1
    for name, material, size, at in pieces:
        vertices, quads, first = grid_box(np.array(size), np.array(at), first)
        lines += [*vertices, f"o {name}", f"usemtl {material}", *quads]
    return "\n".join(lines)


TABLE = obj_of(
    ("Top", "wood", (3, 0.2, 2), (0, 1, 0)),
    ("Leg.001", "wood", (0.2, 2, 0.2), (-1.2, 0, 0)),
    ("Leg.002", "wood", (0.2, 2, 0.2), (1.2, 0, 0)),
    ("Screw", "metal", (0.02, 0.02, 0.02), (1.2, -1.01, 0)),
)


def library(folder, name, *models):
    """A library of (name, file stem, OBJ text)."""
    lines = ["id=SweetHome3D#Test", "license=see LICENSE.TXT"]
    with zipfile.ZipFile(folder / f"{name}.sh3f", "w") as archive:
        for number, (title, stem, text) in enumerate(models, start=1):
            path = f"{name.lower()}/{stem}/{stem}.obj"
            lines += [f"name#{number}={title}", f"category#{number}=Kitchen"]
            lines += [f"model#{number}=/{path}", f"creator#{number}=Somebody"]
            if text is not None:
                archive.writestr(path, text)
                archive.writestr(path.replace(".obj", ".mtl"), MTL)
        archive.writestr(CATALOG, "\n".join(lines).encode("latin-1"))


@pytest.fixture
def libraries(tmp_path):
    folder = tmp_path / "libraries"
    folder.mkdir()
    bench = obj_of(
        ("Seat", "wood", (3, 0.3, 1), (0, 1, 0)), ("Foot", "metal", (1, 1, 1), (0, 0, 0))
    )
    library(
        folder,
        "Scopia",
        ("Table", "table", TABLE),
        ("Table again", "copy", TABLE),
        ("Bench of the unseen maker", "bench", bench),
        ("Street lamp", "lamp", bench),
        ("Cube", "cube", obj_of(("Cube", "wood", (1, 1, 1), (0, 0, 0)))),
        ("Gone", "gone", None),
        ("Broken", "broken", "v 0 0 0\nf 1 2 x"),
    )
    library(folder, "KatorLegaz", ("Bench", "bench", bench))
    return folder


def test_pieces_are_object_names_without_numbers_and_materials():
    mesh = read_obj_groups(TABLE, MTL)
    assert mesh.geometry_names == ("Top|wood", "Leg|wood", "Screw|metal")
    assert np.bincount(mesh.face_geometry).tolist() == [108, 216, 108]
    assert [material.name for material in mesh.materials] == ["wood", "metal"]
    assert mesh.materials[0].base_color_factor == (0.4, 0.2, 0.1, 1.0)
    assert strip_numbers("soporte_redondo.003_Cylinder.007") == "soporte_redondo_Cylinder"
    assert strip_numbers("12") == "12"


def test_vertices_may_be_counted_from_the_end():
    mesh = read_obj_groups("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1")
    assert mesh.faces.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0 0", "no faces"),
        ("v 0 0 0\nf 1 2 3", "names vertex 3, of 1"),
        ("v 0 zero 0", "does not parse"),
    ],
)
def test_a_file_without_a_mesh_is_refused(text, message):
    with pytest.raises(AssetRejected, match=message):
        read_obj_groups(text)


def test_models_become_labelled_objects_with_their_licence(libraries, tmp_path):
    out = tmp_path / "out"
    counts = import_libraries(libraries, out)
    assert counts["Scopia taken"] == 1
    assert counts["Scopia left out"] == 6
    (row,) = [
        *read_pack_rows(out / "train", split="train"),
        *read_pack_rows(out / "train", split="validation"),
    ]
    assert row["licence"] == "CC-BY-3.0"
    assert row["author"] == "Somebody"
    assert row["source_repo"] == "sweethome3d-furniture/Scopia"
    assert (row["n_parts"], row["n_inst"]) == (2, 3)  # the screw joins a leg; legs stand apart
    mesh, labels = load_labelled(out / "train", row)
    assert mesh.num_faces == 432
    assert labels.max() == 2


def test_what_is_left_out_has_a_reason(libraries, tmp_path):
    import_libraries(libraries, tmp_path / "out")
    reasons = json.loads((tmp_path / "out" / "left-out.json").read_text())
    by_stem = {path.split("/")[-1]: reason for path, reason in reasons.items()}
    assert "held-out theme street object" in by_stem["lamp.obj"]
    assert "parts; 2 to 30 are taken" in by_stem["cube.obj"]
    assert "the library has no" in by_stem["gone.obj"]
    assert "does not parse" in by_stem["broken.obj"]
    for stem in ("copy", "bench"):
        assert by_stem[f"{stem}.obj"] == "the same shape is there already"


def test_unseen_libraries_are_never_drawn_for_training(libraries, tmp_path):
    out = tmp_path / "out"
    import_libraries(libraries, out)
    rows = read_pack_rows(out / "unseen", split="validation")
    assert [row["name"] for row in rows] == ["Bench"]
    assert read_pack_rows(out / "unseen", split="train") == []
    assert all(is_validation(row) for row in rows)


def test_an_import_adds_to_what_is_there_and_avoids_other_folders(libraries, tmp_path):
    out = tmp_path / "out"
    import_libraries(libraries, out)
    again = import_libraries(libraries, out)
    assert not any(count for what, count in again.items() if what.endswith("taken"))
    other = import_libraries(libraries, tmp_path / "other", unlike=[out / "train", out / "unseen"])
    assert not any(count for what, count in other.items() if what.endswith("taken"))


def test_the_command_counts(libraries, tmp_path, caplog):
    with caplog.at_level("INFO"):
        main(["--libraries", str(libraries), "--out", str(tmp_path / "out")])
    assert "Scopia taken=1" in caplog.text


def test_unknown_libraries_have_no_licence(tmp_path):
    with pytest.raises(SegvigenError, match=r"holds no \.sh3f"):
        import_libraries(tmp_path, tmp_path / "out")
    library(tmp_path, "Other", ("Table", "table", TABLE))
    with pytest.raises(SegvigenError, match=r"licence of Other\.sh3f is not known;"):
        import_libraries(tmp_path, tmp_path / "out")
    (tmp_path / "Other.sh3f").rename(tmp_path / "Scopia.sh3f")
    with zipfile.ZipFile(tmp_path / "Scopia.sh3f", "w"):
        pass
    with pytest.raises(SegvigenError, match="it is no furniture library"):
        import_libraries(tmp_path, tmp_path / "out")
