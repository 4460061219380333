"""`segvigen segment`: what it finds, what it writes, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import trimesh
from typer.testing import CliRunner

from segvigen_model.checkpoints import native
from segvigen_model.command import options
from segvigen_model.command.main import make_app
from segvigen_model.mesh.files import load_mesh
from segvigen_model.model.bundle import build_model

ON_A_LEG = "0.4,-0.9,0.35"


def make_table():
    """A board on four legs, each a box: five connected pieces."""
    boxes = [trimesh.creation.box(extents=(1, 0.1, 1))]
    for x in (-0.4, 0.4):
        for z in (-0.4, 0.4):
            leg = trimesh.creation.box(extents=(0.1, 0.9, 0.1))
            boxes.append(leg.apply_translation((x, -0.5, z)))
    return trimesh.util.concatenate(boxes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_table().export(tmp_path / "table.glb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An untrained checkpoint, for what does not depend on the parts found."""
    path = tmp_path_factory.mktemp("tiny")
    native.save_model(build_model("tiny"), path)
    return path


def screen_color(linear):
    """The colour on the screen, as #rrggbb, of a glTF colour factor."""
    value = 1.055 * np.array(linear[:3]) ** (1 / 2.4) - 0.055
    return "#" + bytes(np.rint(255 * value).astype(np.uint8)).hex()


def run(*arguments: object):
    called = ["segment", *map(str, arguments)]
    return CliRunner().invoke(make_app(), called, env={"COLUMNS": "200"})


def test_a_table_is_five_parts_in_every_file(folder):
    files = ("--labels", "l.npz", "--json", "j.json", "--picture", "p.png", "--painted", "t.glb")
    response = run("table.glb", *files)
    assert response.exit_code == options.OK, response.output
    assert "table.glb: 5 parts, 60 faces" in response.stdout
    assert all(f"{name}: " in response.stdout for name in files[1::2])
    mesh, pieces = make_table(), np.repeat(np.arange(5), 12)
    arrays = np.load(folder / "l.npz")
    labels = arrays["face_labels"]
    assert [len(np.unique(labels[pieces == piece])) for piece in range(5)] == [1] * 5
    assert len(np.unique(labels)) == 5 and arrays["part_confidence"].shape == (5,)
    result = json.loads((folder / "j.json").read_text())
    assert result["face_labels"] == labels.tolist()
    assert sum(row["area_share"] for row in result["parts"]) == pytest.approx(1.0)
    assert [row["faces"] for row in result["parts"]] == [12] * 5
    written = trimesh.load(folder / "t.glb", process=False)
    assert set(written.geometry) == {f"part {part}" for part in range(5)}
    for part in range(5):
        node = written.geometry[f"part {part}"]
        np.testing.assert_allclose(node.triangles, mesh.triangles[labels == part], atol=1e-6)
    shown = [screen_color(row.base_color_factor) for row in load_mesh(folder / "t.glb").materials]
    assert shown == [row["color"] for row in result["parts"]]
    assert len({row["color"] for row in result["parts"]}) == 5
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


def test_points_alone_show_one_part(folder):
    response = run("table.glb", "--clicks", ON_A_LEG, "--json", "-")
    result = json.loads(response.stdout)
    assert [row["name"] for row in result["parts"]] == ["clicked part", "rest"]
    assert np.flatnonzero(np.array(result["face_labels"]) == 0).tolist() == [*range(48, 60)]
    shown = run("table.glb", "--clicks", ON_A_LEG).stdout
    assert "0 clicked part" in shown and "table-parts.glb" in shown
    for name in ("table-parts.glb", "table-painted.glb"):
        nodes = trimesh.load(folder / name, process=False).geometry
        assert set(nodes) == {"clicked part", "rest"}


def test_labels_come_in_three_forms_that_agree(folder):
    response = run("table.glb", "--labels", "l.npz", "--out", "t.glb")
    assert "l.npz: face_labels, face_polygons, part_confidence" in response.stdout
    assert not (folder / "table-painted.glb").exists(), "only what was asked for"
    run("table.glb", "--labels", "l.json", "--out", "t.glb")
    response = run("table.glb", "--labels", "l.parquet", "--out", "t.glb")
    assert "l.parquet: a row per face: face, part, polygon, confidence" in response.stdout
    labels = np.load(folder / "l.npz")["face_labels"].tolist()
    assert json.loads((folder / "l.json").read_text())["face_labels"] == labels
    table = pd.read_parquet(folder / "l.parquet")
    assert table["part"].tolist() == labels and table["face"].tolist() == [*range(60)]


def test_clicks_that_name_a_part_correct_the_proposal(folder):
    before = json.loads(run("table.glb", "--json", "-").stdout)["face_labels"]
    top, leg = before[0], before[48]
    point = [float(value) for value in ON_A_LEG.split(",")]
    (folder / "c.json").write_text(json.dumps([{"xyz": point, "part": top}]))
    after = json.loads(run("table.glb", "--clicks", "c.json", "--json", "-").stdout)
    assert before.count(leg) == 12 and leg != top
    assert after["face_labels"][48:60] == [after["face_labels"][0]] * 12
    assert len(after["parts"]) == 4


def test_the_same_seed_gives_the_same_parts(folder, tiny):
    first, again = (
        run("table.glb", "--checkpoint", tiny, "--seed", 3, "--json", "-").stdout for _ in range(2)
    )
    assert json.loads(first) == json.loads(again)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.glb",), options.USAGE, "'none.glb' does not exist"),
        (("table.glb", "--granularity", "huge"), options.USAGE, "'huge' is none of coarse, medium"),
        (("table.glb", "--out", "no/t.glb"), options.USAGE, "no is no folder"),
        (("table.glb", "--out", "t.obj"), options.USAGE, "'t.obj' does not end in .glb"),
        (("table.glb", "--out", "table.glb"), options.USAGE, "table.glb is the input"),
        (("table.glb", "--labels", "l.txt"), options.USAGE, "does not end in .npz or .parquet or"),
        (("table.glb", "--json", "j.txt"), options.USAGE, "'j.txt' does not end in .json"),
        (("table.glb", "--picture", "p.jpg"), options.USAGE, "'p.jpg' does not end in .png"),
        (("table.glb", "--clicks", "1,2"), options.USAGE, "click 1 is ['1', '2'], not x, y, z"),
        (("table.glb", "--device", "tpu"), options.USAGE, "'tpu' is none of cpu, cuda"),
        (("table.glb", "--device", "cuda:99"), options.NOT_READY, "no device cuda:99"),
        (("table.glb", "--seed", "-1"), options.USAGE, "greater than or equal to 0"),
        (("table.glb", "--checkpoint", "none"), options.WENT_WRONG, "none"),
        (("table.glb", "--clicks", "5,5,5"), options.WENT_WRONG, "away from the surface"),
        (("notes.txt",), options.WENT_WRONG, "unsupported_format"),
        (("empty.glb",), options.WENT_WRONG, "empty_file"),
        (("flat.ply",), options.WENT_WRONG, "degenerate"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(folder, tiny, arguments, code, words):
    (folder / "notes.txt").write_text("no mesh")
    (folder / "empty.glb").write_bytes(b"")
    line = [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    trimesh.Trimesh(line, [[0, 1, 2]], process=False).export(folder / "flat.ply")
    before = sorted(folder.iterdir())
    response = run(*arguments, *(() if "--checkpoint" in arguments else ("--checkpoint", tiny)))
    shown = " ".join(response.output.replace("│", " ").split())
    assert response.exit_code == code, response.output
    assert words in shown and "Traceback" not in shown
    assert sorted(folder.iterdir()) == before, "nothing is written"


def test_a_file_that_cannot_be_written_is_reported(folder, tiny):
    (folder / "l.npz").mkdir()
    response = run("table.glb", "--labels", "l.npz", "--checkpoint", tiny)
    assert response.exit_code == options.WENT_WRONG
    assert "cannot write l.npz: Is a directory" in response.output
