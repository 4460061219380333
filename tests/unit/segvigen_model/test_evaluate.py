"""Evaluation runs the whole library on a labelled folder and reports every promised key."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model import checkpoint
from segvigen_model.evaluate import chosen_rows, evaluate
from segvigen_model.procedural import make_asset
from segvigen_model.segmenter import Segmenter
from segvigen_model.training.data import load_labelled
from segvigen_model.training.pack import write_object


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    import json

    folder = tmp_path_factory.mktemp("pack")
    rows = [write_object(folder, make_asset(c, 7)) for c in ("mug", "table", "sword")]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(checkpoint.build("tiny"))


@pytest.mark.parametrize("textured", [False, True])
def test_written_labels_come_back_on_the_same_faces(tmp_path, textured):
    made = make_asset("chair", 11, textured=textured)
    row = write_object(tmp_path, made)
    mesh, labels = load_labelled(tmp_path, row)
    assert np.array_equal(labels, made.face_labels)
    assert np.allclose(mesh.triangles, made.mesh.triangles, atol=1e-4)


@pytest.mark.parametrize("surface", ["as-is", "fused"])
def test_all_promised_keys_are_there(pack, segmenter, surface):
    result = evaluate(
        pack,
        surface=surface,
        modes=("interactive", "full", "guided") if surface == "as-is" else ("interactive",),
        clicks=(1, 3),
        limit=2,
        segmenter=segmenter,
    )
    assert result["objects"] == 2 and result["parts"] >= 4
    assert set(result["interactive"]) == {"iou@1", "iou@3"}
    assert set(result["baselines"]["components"]) >= {"iou@1", "iou@3"}
    assert result["seconds"]["total"] > 0 and result["seconds"]["encode"] > 0
    if surface == "as-is":
        for name in ("miou_best", "miou_matched", "boundary_f1"):
            assert 0 <= result["full"][name] <= 1
            assert 0 <= result["guided"][name] <= 1
        # procedural parts are separate pieces: connectivity alone must find them all
        assert result["baselines"]["components"]["iou@1"] > 0.7
    else:
        assert result["baselines"]["components"]["iou@1"] < 0.7


def test_error_clicks_count_up_to_the_limit(pack, segmenter):
    result = evaluate(pack, modes=("error_clicks",), limit=1, segmenter=segmenter)
    assert 1 <= result["error_clicks"]["clicks_to_0.8"] <= 11
    assert result["error_clicks"]["clicks_to_0.9"] >= result["error_clicks"]["clicks_to_0.8"]


def test_limit_spreads_over_the_manifest(pack):
    assert [row["category"] for row in chosen_rows(pack, None, 2)] == ["mug", "sword"]
    assert len(chosen_rows(pack, None, None)) == 3


def test_unknown_modes_are_refused(pack, segmenter):
    with pytest.raises(ValueError, match="fusion"):
        evaluate(pack, modes=("fusion",), segmenter=segmenter)
