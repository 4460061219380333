from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.types import ClickKind
from tasks.rendering.labels import make_task_labels, parse_label
from tasks.review.annotations import parse_annotation
from tasks.review.label_config import format_task_title
from tasks.review.scripted_reviewer import Spot, make_annotation


def make_keypoint(x, y, label="part 1", **extra):
    value = {"x": x, "y": y, "width": 0.9, "keypointlabels": [label]}
    return {"from_name": "click", "type": "keypointlabels", "id": "k", "value": value, **extra}


@pytest.fixture
def parse_results(table, table_sheet):
    def read_results(*results, **fields):
        annotation = {"result": list(results), **fields}
        return parse_annotation(annotation, table_sheet.buffers, lambda: table[0].triangles)

    return read_results


@pytest.fixture
def pixel(table_sheet):
    """An object pixel of part 1 and its percent."""
    buffers = table_sheet.buffers
    row, column = np.argwhere(buffers.part == 1)[20]
    width, height = buffers.size
    return buffers, row, column, (column + 0.5) / width * 100, (row + 0.5) / height * 100


def test_a_sheet_click_becomes_the_face_under_its_pixel(parse_results, pixel):
    buffers, row, column, x, y = pixel
    (click,) = parse_results(make_keypoint(x, y, "part 2")).clicks
    assert click.face == buffers.face[row, column]
    assert (click.source, click.meaning.kind, click.meaning.part) == (
        "sheet",
        ClickKind.BELONGS,
        2,
    )
    assert click.view in buffers.meta["views"] and click.is_positive


def test_what_the_editor_submits_is_understood(parse_results, pixel):
    buffers, row, column, _, _ = pixel
    spots = [Spot(int(column), int(row), "new part 2", 1), Spot(int(column), int(row), "part 0", 1)]
    annotation = make_annotation("refine", spots, "left leg", buffers.size)
    parsed = parse_results(*annotation["result"])
    assert (parsed.verdict, parsed.note, parsed.problems) == ("refine", "left leg", ())
    assert [click.meaning.kind for click in parsed.clicks] == ["new_part", "belongs"]
    assert parsed.clicks[0].meaning.group == 1
    assert {click.face for click in parsed.clicks} == {int(buffers.face[row, column])}


def test_a_point_from_the_viewer_wins_over_its_place_on_the_sheet(parse_results, table):
    xyz = table[0].triangles[14].mean(axis=0)
    meta = {"text": [json.dumps({"face": 14, "xyz": xyz.tolist()})]}
    (click,) = parse_results(make_keypoint(0.2, 0.2, meta=meta)).clicks
    assert (click.source, click.face) == ("viewer", 14)
    assert np.array_equal(click.xyz, xyz)


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        ({"face": 14, "xyz": [0, 0, 99]}, "not on face 14"),
        ({"face": 10**6, "xyz": [0, 0, 0]}, "does not exist"),
        ({"face": True, "xyz": [0, 0, 0]}, "does not exist"),
        ({"face": 1, "xyz": [0, 0]}, "not a point"),
        ({"face": 1, "xyz": [math.nan, 0, 0]}, "not a point"),
        ({"face": 1}, "cannot be read"),
        ({"face": 1, "xyz": {"a": 1}}, "cannot be read"),
    ],
)
def test_a_lying_viewer_is_not_believed(parse_results, reported, reason):
    parsed = parse_results(make_keypoint(50, 50, meta={"text": [json.dumps(reported)]}))
    assert parsed.clicks == () and reason in parsed.problems[0]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (make_keypoint(0.2, 0.2), "background"),
        (make_keypoint(50, 50, "part 3"), "not of this task"),
        (make_keypoint(50, 50, "part -1"), "not of this task"),
        (make_keypoint(50, 50, "part 01"), "not of this task"),
        (make_keypoint(50, 50, "<script>"), "not of this task"),
        (make_keypoint(-1, 50), "not on the sheet"),
        (make_keypoint("50", 50), "not on the sheet"),
        (make_keypoint(math.inf, 50), "not on the sheet"),
        (make_keypoint(True, 50), "not on the sheet"),
        ({"from_name": "click", "value": {}}, "not of this task"),
        ("text", "not an object"),
        ({"from_name": "verdict", "value": {"choices": ["maybe"]}}, "unknown verdict"),
    ],
)
def test_what_cannot_be_understood_is_dropped_and_reported(parse_results, result, reason):
    parsed = parse_results(result)
    assert parsed.clicks == () and parsed.verdict is None
    assert reason in parsed.problems[0]


def test_skip_wins_over_a_verdict_and_clicks_are_cut(parse_results, pixel, table, table_sheet):
    verdict = {"from_name": "verdict", "value": {"choices": ["accept"]}}
    assert parse_results(verdict, was_cancelled=True).verdict == "skip"
    assert parse_results(verdict).verdict == "accept"
    *_, x, y = pixel
    many = {"result": [make_keypoint(x, y)] * 7}
    parsed = parse_annotation(many, table_sheet.buffers, lambda: table[0].triangles, max_clicks=5)
    assert len(parsed.clicks) == 5 and "2 of 7" in parsed.problems[0]


def test_negative_points_are_kept_as_such(parse_results, pixel):
    *_, x, y = pixel
    (click,) = parse_results(make_keypoint(x, y, is_positive=False)).clicks
    assert not click.is_positive


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "from_name", "x", "y", "keypointlabels", "meta", "text"])
            | st.text(max_size=4),
            inner | st.sampled_from(["click", "verdict", "note", "part 1"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_no_annotation_breaks_the_reader(table, table_sheet, result):
    annotation = {"result": [result] if not isinstance(result, list) else result}
    parsed = parse_annotation(annotation, table_sheet.buffers, lambda: table[0].triangles)
    assert parsed.verdict in (None, "accept", "refine", "reject", "skip")


def test_labels_of_a_task_are_unique_and_each_means_something():
    labels = make_task_labels(50)
    names = [label["value"] for label in labels]
    keys = [label["hotkey"] for label in labels if "hotkey" in label]
    assert len(set(names)) == len(names) == 54
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set("afx")  # the verdicts' own
    assert all(parse_label(name, 50) for name in names)
    assert parse_label("part 50", 50) is None


def test_a_title_is_one_short_line():
    title = format_task_title("a\n\x1b[31m" + "b" * 500, 1, 7)
    assert "\n" not in title and "\x1b" not in title and len(title) < 120
    assert "round 2" in title and "7 parts" in title
