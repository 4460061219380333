"""Clicks from the command line and from JSON: read, placed on faces, refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh

from segvigen_model.command.clicks import (
    BadClicks,
    PointClick,
    are_corrections,
    parse_clicks,
    place_clicks,
)
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.types import ClickKind


@pytest.fixture
def mesh():
    return mesh_from_bytes(trimesh.creation.box().export(file_type="glb"), "glb")


def parse_entries(folder, entries):
    (folder / "c.json").write_text(json.dumps(entries))
    return parse_clicks(str(folder / "c.json"))


def test_points_of_the_command_line():
    assert parse_clicks(" 1, 2,3;-4,5e-1,6; ") == [
        PointClick((1.0, 2.0, 3.0)),
        PointClick((-4.0, 0.5, 6.0)),
    ]


def test_every_field_of_a_file(tmp_path):
    assert parse_entries(
        tmp_path,
        [
            {"xyz": [0, 0, 0.5], "part": 3, "is_positive": False},
            {"xyz": [0, 0, 0.5], "kind": "new_part", "group": 2},
            {"xyz": [0, 0, 0.5], "kind": "not_object"},
        ],
    ) == [
        PointClick((0.0, 0.0, 0.5), ClickKind.BELONGS, 3, is_positive=False),
        PointClick((0.0, 0.0, 0.5), ClickKind.NEW_PART, group=2),
        PointClick((0.0, 0.0, 0.5), ClickKind.NOT_OBJECT),
    ]


def test_points_show_one_part_and_named_ones_correct(tmp_path):
    plain = PointClick((0, 0, 0))
    assert not are_corrections([plain, PointClick((0, 0, 0), is_positive=False)])
    assert are_corrections(parse_entries(tmp_path, [{"xyz": [0, 0, 0], "part": 0}]))


def test_clicks_lie_on_the_nearest_face(mesh):
    (click,) = place_clicks([PointClick((0.1, 0.2, 0.51), is_positive=False)], mesh)
    np.testing.assert_allclose(click.xyz, (0.1, 0.2, 0.5), atol=1e-6)
    assert np.allclose(mesh.triangles[click.face][:, 2], 0.5)
    assert click.kind is ClickKind.BELONGS and not click.is_positive


def test_a_face_without_area_takes_no_click():
    flat = trimesh.Trimesh(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.2, 0]], [[3, 3, 3], [0, 1, 2]], process=False
    )
    mesh = mesh_from_bytes(flat.export(file_type="ply"), "ply")
    (click,) = place_clicks([PointClick((0.3, 0.3, 0.0))], mesh)
    assert click.face == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "click 1 is [''], not x, y, z"),
        ("1,2,3;1,2", "click 2 is ['1', '2'], not x, y, z"),
        ("1,2,nan", "click 1 is ['1', '2', 'nan']; a point is finite"),
        ("none.json", "cannot read none.json: "),
    ],
)
def test_wrong_texts_are_refused(text, words):
    with pytest.raises(BadClicks) as caught:
        parse_clicks(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "is no list of clicks"),
        ([], "is no list of clicks"),
        ([{"part": 1}], "click 1 has no xyz"),
        ([{"xyz": [0, 0, 0]}, 7], "click 2 has no xyz"),
        ([{"xyz": [0, 0]}], "click 1 is [0, 0], not x, y, z"),
        ([{"xyz": "0,0,0"}], "click 1: xyz is '0,0,0', not list"),
        ([{"xyz": [0, 0, 0], "prat": 1}], "click 1 has unknown 'prat'; known: xyz, kind"),
        ([{"xyz": [0, 0, 0], "part": "1"}], "click 1: part is '1', not int"),
        ([{"xyz": [0, 0, 0], "part": True}], "click 1: part is True, not int"),
        ([{"xyz": [0, 0, 0], "kind": "old"}], "kind 'old' is none of belongs, new_part"),
        ([{"xyz": [0, 0, 0], "kind": "belongs"}], "give its number as part, from 0"),
        ([{"xyz": [0, 0, 0], "part": -2}], "give its number as part, from 0"),
    ],
)
def test_wrong_files_are_refused(tmp_path, entries, words):
    with pytest.raises(BadClicks) as caught:
        parse_entries(tmp_path, entries)
    assert words in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "c.json").write_text("[")
    with pytest.raises(BadClicks, match="cannot read"):
        parse_clicks(str(tmp_path / "c.json"))


def test_mixed_and_only_negative_clicks_are_refused():
    plain, named = PointClick((0, 0, 0)), PointClick((0, 0, 0), ClickKind.NEW_PART)
    with pytest.raises(BadClicks, match="name it in all or none"):
        are_corrections([plain, named])
    with pytest.raises(BadClicks, match="every click is negative"):
        are_corrections([PointClick((0, 0, 0), is_positive=False)])


def test_clicks_that_do_not_fit_are_refused(mesh):
    with pytest.raises(BadClicks, match=r"click 2 at \(0\.0, 0\.0, 9\.0\) is 8\.5 away"):
        place_clicks([PointClick((0.0, 0.0, 0.5)), PointClick((0.0, 0.0, 9.0))], mesh)
    both = [PointClick((0.0, 0.0, 0.5)), PointClick((0.0, 0.0, 0.5), is_positive=False)]
    with pytest.raises(BadClicks, match="click 1 and another one contradict each other"):
        place_clicks(both, mesh)
    with pytest.raises(BadClicks, match="click 1 names part 2; the proposal has 0 to 1"):
        place_clicks([PointClick((0.0, 0.0, 0.5), ClickKind.BELONGS, 2)], mesh, 2)
