"""Cards get their numbers from result files; tables say what results hold and nothing else."""

from __future__ import annotations

import json

import pytest

from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation import model_card
from segvigen_model.evaluation.tables import render_markdown

RESULT = {
    "surface": "fused",
    "labels": "face_inst",
    "seed": 0,
    "seeds": 3,
    "objects": 14,
    "parts": 147,
    "refused": 1,
    "checkpoint": "0123456789abcdef",
    "seconds": {"encode": 1.25, "total": 9.0},
    "interactive": {"iou@10": 0.5, "iou@1": 0.25},
    "full": {"miou_matched": 0.4, "confidence": 0.9},
    "baselines": {"ball 0.1": {"iou@1": 0.2, "iou@10": 0.3}, "components": {"miou_matched": 0.1}},
    "intervals": {"interactive": {"iou@1": [0.2, 0.3]}, "full": {"miou_matched": [0.3, 0.5]}},
    "margins": {
        "interactive": {
            "iou@1": {"baseline": "ball 0.1", "difference": 0.05, "interval": [-0.01, 0.1]}
        }
    },
}


def cells(text, title):
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {title} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_headline_shows_mean_interval_bar_and_margin():
    text = render_markdown({"fused": RESULT})
    assert cells(text, "IoU@1") == [
        "0.250 [0.200, 0.300]",
        "0.200 ball 0.1",
        "+0.050 [-0.010, +0.100]",
    ]
    assert cells(text, "IoU@10") == ["0.500", "-", "-"]
    assert text.index("IoU@1 ") < text.index("IoU@10")
    assert "14 objects, 147 parts" in text and "1 refused" in text and "3 seed(s)" in text


def test_regimes_stand_side_by_side_and_what_is_missing_is_a_dash():
    other = {**RESULT, "surface": "as-is", "interactive": {"iou@1": 0.75}, "margins": {}}
    text = render_markdown({"as-is": other, "fused": RESULT})
    row = cells(text, "IoU@1")
    assert row[0].startswith("0.750") and row[3].startswith("0.250") and len(row) == 6
    assert cells(text, "IoU@10")[:3] == ["-", "-", "-"]
    assert text.count("| components ") == 2, "each regime has its own table of baselines"


def test_tables_are_replaced_and_the_rest_stays(tmp_path):
    path, result = tmp_path / "CARD.md", tmp_path / "r.json"
    path.write_text("before\n<!-- table a -->\nold\n<!-- end a -->\nafter \\1\n")
    for content in (RESULT, {"fused": RESULT}):
        result.write_text(json.dumps(content))
        model_card.main(["--card", str(path), "--table", f"a={result}"])
        text = path.read_text()
        assert text.startswith("before\n<!-- table a -->\n| measure")
        assert text.endswith("<!-- end a -->\nafter \\1\n") and "old" not in text


def test_a_table_without_a_place_is_an_error_with_advice():
    with pytest.raises(SegvigenError, match=r"no lines <!-- table b --> .* add them"):
        model_card.replace_table("text", "b", "x")


def test_a_wrong_table_option_is_reported(capsys):
    with pytest.raises(SystemExit):
        model_card.main(["--card", "x", "--table", "heldout"])
    assert "'heldout' is not of the form NAME=FILE.json" in capsys.readouterr().err
