"""Two runs are paired object by object; what cannot be paired is refused or counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.comparison import check_comparable, compare, read_results
from segvigen_model.evaluation.tables import render_comparison


def result(ious, surface="fused", **more):
    """A run whose objects, by name, have these IoUs of one click."""
    rows = [{"object": n, "interactive": {"iou@1": v}, "seconds": {"click": [1]}} for n, v in ious]
    means = {"iou@1": float(np.mean([x for _, v in ious for x in v]))}
    settings = {"surface": surface, "labels": "face_inst", "seed": 0, "seeds": 1}
    return {**settings, "interactive": means, "by_object": rows, **more}


def test_a_small_gain_everywhere_is_sure_though_objects_differ_widely():
    rng = np.random.default_rng(0)
    before = [(f"o{i}", rng.uniform(0, 1, 5).tolist()) for i in range(30)]
    now = [(name, [value + 0.02 for value in values]) for name, values in before]
    change = compare(result(before), result(now)).changes["interactive|iou@1"]
    assert change.difference == pytest.approx(0.02)
    assert change.interval == pytest.approx((0.02, 0.02))


def test_only_objects_of_both_runs_count_by_name_and_order():
    before = result([("a", [0.0, 0.2]), ("twin", [0.5]), ("twin", [0.9]), ("gone", [1.0])])
    now = result([("twin", [0.6]), ("twin", [0.8]), ("new", [0.0]), ("a", [0.1])])
    comparison = compare(before, now)
    change = comparison.changes["interactive|iou@1"]
    assert comparison.objects == 2, "the twins; 'a' has other parts now"
    assert comparison.left_out == 4, "gone, new, and 'a' of both runs"
    assert (change.before, change.now) == (pytest.approx(0.7), pytest.approx(0.7))


def test_clocks_and_baselines_are_not_compared():
    row = {"object": "a", "baselines": {"ball 0.1": {"iou@1": [0.1]}}, "full": {"miou_best": [0.4]}}
    run = {"by_object": [row, {**row, "object": "b"}]}
    assert set(compare(run, run).changes) == {"full|miou_best"}


def test_the_table_shows_both_runs_and_the_paired_interval():
    before = result([("a", [0.2]), ("b", [0.4])])
    now = result([("a", [0.3]), ("b", [0.5])])
    comparison = compare(before, now)
    text = render_comparison("fused", comparison)
    assert text.startswith("fused, 2 objects in both runs, 0 in one only:")
    assert "| IoU@1   | 0.300  | 0.400 | +0.100 [+0.100, +0.100] |" in text
    reported = json.loads(json.dumps(comparison.as_json()))
    assert reported["objects"] == 2 and reported["interactive"]["iou@1"][
        "difference"
    ] == pytest.approx(0.1)


def test_one_common_object_has_no_interval():
    one = result([("a", [0.2])])
    assert compare(one, one).changes["interactive|iou@1"].interval is None
    assert render_comparison("fused", compare(one, one)).split("|")[-2].strip() == "+0.000"


def test_no_common_object_leaves_an_empty_table():
    comparison = compare(result([("a", [0.2])]), result([("b", [0.2])]))
    assert (comparison.objects, comparison.left_out, comparison.changes) == (0, 2, {})


@pytest.mark.parametrize(
    ("settings", "most", "words"),
    [
        ({"surface": "fused", "labels": "face_part"}, 1, "labels=face_inst, .* labels=face_part"),
        ({"surface": "fused", "seeds": 2}, 1, "seeds=1, this run has seeds=2: other questions"),
        ({"surface": "fused"}, 10, "clicks up to=1, this run has clicks up to=10"),
    ],
)
def test_other_questions_are_refused(settings, most, words):
    with pytest.raises(SegvigenError, match=words):
        check_comparable(result([("a", [0.2])]), settings, most)


def test_a_run_of_the_same_questions_passes_and_one_without_clicks_minds_no_number():
    run = result([("a", [0.2])])
    check_comparable(run, {"surface": "fused", "labels": "face_inst", "seed": 0, "seeds": 1}, 1)
    run.pop("interactive")
    check_comparable(run, {"surface": "fused"}, 10)


def test_a_result_without_numbers_of_objects_is_refused():
    with pytest.raises(SegvigenError, match=r"no by_object.*measure it again"):
        check_comparable({"surface": "fused"}, {"surface": "fused"}, 1)


def test_files_of_one_or_both_regimes_are_read(tmp_path):
    file = tmp_path / "r.json"
    one = result([("a", [0.2])])
    file.write_text(json.dumps(one))
    assert read_results(file) == {"fused": one}
    file.write_text(json.dumps({"fused": one, "as-is": one}))
    assert list(read_results(file)) == ["as-is", "fused"]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ("{", "cannot be read"), ("[1]", "holds no result")],
)
def test_what_is_no_result_is_reported_by_name(tmp_path, text, words):
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SegvigenError, match=f"results file=.*r.json {words}"):
        read_results(file)
