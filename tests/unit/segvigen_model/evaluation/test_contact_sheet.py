"""Contact sheets: unseen objects by seed, honest colours, readable pictures of bounded size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from segvigen_model.datasets.labelled_folder import wrap_labelled_mesh
from segvigen_model.datasets.procedural import make_asset, primitives
from segvigen_model.datasets.synthetic_pack import write_object
from segvigen_model.evaluation import contact_sheet, pictures
from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    rows = [write_object(folder, make_asset(c, 7)) for c in ("mug", "table", "sword", "stool")]
    held_out = [{**row, "category": "weapon"} for row in rows[:3]]
    trained = [{**rows[3], "category": "furniture/chair"}]
    lines = [json.dumps(row) for row in held_out + trained]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def stool():
    made = make_asset("stool", 3, textured=False)
    return wrap_labelled_mesh("stool", made.mesh, made.face_labels, "as-is")


def test_candidates_are_held_out_and_repeat_by_seed(pack):
    names = [name for name, _, _ in contact_sheet.draw_candidates(pack, np.random.default_rng(0))]
    again = [name for name, _, _ in contact_sheet.draw_candidates(pack, np.random.default_rng(0))]
    assert names == again and len(names) == 3
    assert not any("stool" in name for name in names), "a trained category is no unseen object"


def test_every_fourth_object_is_made_in_code(pack, monkeypatch):
    monkeypatch.setattr(contact_sheet, "PROCEDURAL_EVERY", 2)
    names = [name for name, _, _ in contact_sheet.draw_candidates(pack, np.random.default_rng(0))]
    assert sum(name.startswith("made in code") for name in names) == 1


def test_part_of_the_best_view_is_in_sight(stool):
    corners = pictures.compute_unit_triangles(stool.mesh)
    for mask in stool.list_part_masks():
        point = corners[mask][0].mean(0)
        camera = pictures.choose_view(corners, mask, point)
        colors = np.where(mask[:, None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))
        picture = pictures.shade_mesh(corners, colors, camera, 48)
        is_red = (picture[..., 0] > 60) & (picture[..., 2] < 60)
        assert is_red.sum() > 20
        assert pictures.project_visible_points(point[None], corners, camera, 48)


def test_hidden_points_are_not_seen():
    box = primitives.make_box((1, 1, 1))
    corners = box.vertices[box.faces] * 0.8
    camera = pictures.list_views(corners)[0]
    towards = 0.4 * camera.axes[2] / np.abs(camera.axes[2]).max()
    assert len(pictures.project_visible_points(towards[None], corners, camera, 64)) == 1
    assert pictures.project_visible_points(-towards[None], corners, camera, 64) == []


def test_the_object_fills_the_picture_and_stays_inside(stool):
    corners = pictures.compute_unit_triangles(stool.mesh)
    black = np.zeros((stool.mesh.num_faces, 3), np.uint8)
    for camera in pictures.list_views(corners):
        is_drawn = (pictures.shade_mesh(corners, black, camera, 64) < 200).all(-1)
        rows, columns = np.nonzero(is_drawn)
        assert max(np.ptp(rows), np.ptp(columns)) > 28
        assert not (is_drawn[0].any() or is_drawn[-1].any() or is_drawn[:, 0].any())


def test_matched_colours_follow_the_truth_however_parts_are_numbered(stool):
    truth = contact_sheet.rank_true_labels(stool)
    shuffled = (stool.labels + 2) % (stool.labels.max() + 1)
    assert np.array_equal(contact_sheet.match_labels(shuffled, stool), truth)
    split = stool.labels.copy()
    split[np.flatnonzero(split == 0)[0]] = 99
    lonely = contact_sheet.match_labels(split, stool)
    assert (lonely[split == 99] == -1).all(), "a part without a partner is grey"
    assert np.array_equal(lonely[split != 99], truth[split != 99])


def test_prediction_colours_show_right_missing_and_too_much():
    prediction, part = np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1], bool)
    reported = [
        tuple(int(v) for v in row) for row in contact_sheet.color_prediction(prediction, part)
    ]
    wanted = (contact_sheet.OTHER, contact_sheet.TOO_MUCH, contact_sheet.MISSING)
    assert reported == [*wanted, contact_sheet.RIGHT]


def test_command_writes_both_sheets(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Segmenter, "from_checkpoint", classmethod(lambda cls, name: cls(build_model("tiny")))
    )
    for extra, name in (([], "sheet.png"), (["--worst", "2"], "worst.png")):
        out = tmp_path / "images" / name
        contact_sheet.main(["--parts", str(pack), "--out", str(out), "--of", "2", *extra])
        with Image.open(out) as picture:
            assert picture.width > 1000 and picture.height > 150
        assert out.stat().st_size < 900_000
