from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segvigen_model.errors import AssetRejected
from tasks.labelling.part_colors import assign_part_colors
from tasks.rendering.contact_sheet import place_numbers, render_sheet
from tasks.rendering.pixel_buffers import BadBuffers, buffers_from_bytes, buffers_to_bytes


def test_picture_and_buffers_agree_in_size_and_part_numbers(table_sheet):
    picture = Image.open(io.BytesIO(table_sheet.png))
    assert picture.size == table_sheet.buffers.size
    assert picture.size[0] == 384
    assert set(np.unique(table_sheet.buffers.part)) == {-1, 0, 1, 2}
    assert table_sheet.unseen_parts == ()


def test_the_same_input_gives_the_same_bytes(table, table_sheet):
    again = render_sheet(*table, width=384, meta={"asset_id": "a", "round": 0})
    assert again.png == table_sheet.png
    assert buffers_to_bytes(again.buffers) == buffers_to_bytes(table_sheet.buffers)


def test_a_vertex_without_a_face_is_not_framed(table, table_sheet):
    mesh, labels = table
    stray = replace(mesh, vertices=np.vstack([mesh.vertices, [[1e5, 0, 0]]]))
    reported = render_sheet(stray, labels, width=384, meta={"asset_id": "a", "round": 0})
    assert reported.png == table_sheet.png


def test_parts_are_drawn_in_their_colours(table_sheet):
    picture = np.asarray(Image.open(io.BytesIO(table_sheet.png)), dtype=np.float64)
    for part, color in enumerate(assign_part_colors(3).astype(np.float64)):
        shown = picture[table_sheet.buffers.part == part]
        hue = shown / np.maximum(np.linalg.norm(shown, axis=1, keepdims=True), 1)
        close = hue @ (color / np.linalg.norm(color)) > 0.995
        assert close.mean() > 0.5, part


def test_every_pixel_leads_to_a_point_on_its_face_in_the_mesh_frame(table, table_sheet):
    mesh, labels = table
    buffers = buffers_from_bytes(buffers_to_bytes(table_sheet.buffers))
    rows, columns = np.nonzero(buffers.face >= 0)
    for index in np.random.default_rng(0).choice(len(rows), 200, replace=False):
        row, column = int(rows[index]), int(columns[index])
        point = buffers.locate(column, row)
        assert labels[point.face] == buffers.part[row, column]
        corners = mesh.triangles[point.face]
        low, high = corners.min(axis=0) - 1e-5, corners.max(axis=0) + 1e-5
        assert (point.xyz >= low).all() and (point.xyz <= high).all()
        back = buffers.project(point.xyz, point.view)
        assert back == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)


def test_a_click_beside_the_object_snaps_to_it_and_one_far_away_does_not(table_sheet):
    buffers = table_sheet.buffers
    row, column = np.argwhere(buffers.face >= 0)[0]
    while buffers.face[row - 1, column] >= 0:
        row -= 1
    above = buffers.locate_near(int(column), int(row) - 4)
    assert above is not None and above.row <= row and buffers.face[above.row, above.column] >= 0
    assert buffers.locate(int(column), int(row) - 4) is None
    assert buffers.locate_near(1, 1) is None
    assert buffers.locate_near(-5, 10_000) is None


def test_a_hidden_part_is_drawn_alone(make_mesh):
    shell = [
        ((2, 0.1, 2), (0, 1, 0)),
        ((2, 0.1, 2), (0, -1, 0)),
        ((0.1, 2, 2), (1, 0, 0)),
        ((0.1, 2, 2), (-1, 0, 0)),
        ((2, 2, 0.1), (0, 0, 1)),
        ((2, 2, 0.1), (0, 0, -1)),
    ]
    mesh, labels = make_mesh([*shell, ((0.6, 0.6, 0.6), (0, 0, 0)), ((0.5, 0.5, 0.5), (0, 0.6, 0))])
    sheet = render_sheet(mesh, labels, width=384)
    assert sheet.unseen_parts == ()
    assert {6, 7} <= set(np.unique(sheet.buffers.part))
    assert sheet.buffers.meta["views"][-1].startswith("inside: 6, 7")


def test_a_small_part_gets_a_close_up(make_mesh):
    knob = ((0.06, 0.5, 0.06), (0.0, 0.27, 0.0))  # buried but for its top
    cubes = [((1, 1, 1), center) for center in ((0, 0, 0), (3, 0, 0), (0, 0, 3))]
    mesh, labels = make_mesh([knob, *cubes])
    sheet = render_sheet(mesh, labels, width=384)
    close = [name for name in sheet.buffers.meta["views"] if name.startswith("0: close")]
    assert len(close) == 1
    tile = sheet.buffers.meta["views"].index(close[0])
    assert ((sheet.buffers.part == 0) & (sheet.buffers.view == tile)).sum() > 50
    assert sheet.unseen_parts == ()


def test_parts_one_inside_the_other_are_all_seen(make_mesh):
    mesh, labels = make_mesh([((size, size, size), (0, 0, 0)) for size in (4.0, 3.0, 2.0, 1.2)])
    sheet = render_sheet(mesh, labels, width=384)
    assert sheet.unseen_parts == ()
    assert set(np.unique(sheet.buffers.part)) == {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(6))
def test_every_part_above_the_share_is_seen_or_named(make_mesh, seed):
    """Random heaps of boxes: what no tile shows well enough must be reported."""
    rng = np.random.default_rng(seed)
    heap = [
        (rng.uniform(0.15, 1.5, 3), rng.uniform(-1.2, 1.2, 3))
        for _ in range(int(rng.integers(3, 25)))
    ]
    mesh, labels = make_mesh(heap)
    edges = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    share = np.bincount(labels, areas) / areas.sum()
    sheet = render_sheet(mesh, labels, width=768)
    pixels = np.bincount(sheet.buffers.part[sheet.buffers.part >= 0], minlength=len(share))
    for part in np.flatnonzero(share > 0.003):
        assert part in sheet.unseen_parts or pixels[part] > 15, f"seed {seed} part {part}"
    assert len(sheet.unseen_parts) <= 1


def test_names_and_colours_of_parts_come_from_the_meta(table):
    mesh, labels = table
    plain = render_sheet(mesh, labels, width=768)
    meta = {"part_slots": [4, 0, 9], "part_names": ["top", "\u817f <b>", "x" * 64]}
    sheet = render_sheet(mesh, labels, width=768, meta=meta)
    assert sheet.buffers.meta["part_slots"] == [4, 0, 9]
    assert np.array_equal(sheet.buffers.face[:512], plain.buffers.face[:512])
    picture = np.asarray(Image.open(io.BytesIO(sheet.png)))
    legend = picture[-30:].reshape(-1, 3)
    for slot in (4, 0, 9):
        assert (legend == assign_part_colors(10)[slot]).all(axis=1).any(), slot
    before = np.asarray(Image.open(io.BytesIO(plain.png)))
    top = (sheet.buffers.part == 0) & (sheet.buffers.view >= 0)
    assert (picture[top] != before[top]).any()


def test_a_part_below_the_share_may_stay_unseen(make_mesh):
    mesh, labels = make_mesh([((1, 1, 1), (0, 0, 0)), ((0.01, 0.01, 0.01), (0.1, 0, 0))])
    sheet = render_sheet(mesh, labels, width=384)
    assert sheet.unseen_parts == () and 1 not in sheet.buffers.part


@pytest.mark.parametrize("change", [lambda labels: labels[:-1], lambda labels: labels - 1])
def test_labels_that_do_not_fit_are_refused(table, change):
    mesh, labels = table
    with pytest.raises(AssetRejected, match="labels_mismatch"):
        render_sheet(mesh, change(labels), width=384)


def test_many_parts_and_a_degenerate_face(make_mesh):
    boxes = [((0.5, 0.5, 0.5), (x, y, 0)) for x in range(8) for y in range(7)]
    mesh, labels = make_mesh(boxes)
    faces = mesh.faces.copy()
    faces[0] = faces[0][0]
    flawed = type(mesh)(mesh.vertices, faces, mesh.face_material, mesh.materials)
    sheet = render_sheet(flawed, labels, width=384)
    assert sheet.buffers.meta["num_parts"] == 56 and 0 not in sheet.buffers.face


def test_numbers_stand_inside_their_part():
    tile = np.full((60, 60), -1)
    tile[10:40, 5:55] = 3
    tile[45:49, 5:55] = 4  # too thin for a number
    ((part, column, row, room),) = place_numbers(tile, 5)
    assert part == 3 and tile[row, column] == 3 and 12 <= room <= 16
    assert place_numbers(np.full((20, 20), -1), 5) == []


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04junk"])
def test_damaged_buffers_are_named(data):
    with pytest.raises(BadBuffers, match="damaged"):
        buffers_from_bytes(data)
