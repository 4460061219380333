"""Evaluation runs the whole library on a labelled folder and reports every promised key."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from segvigen_model import segmenter as segmenter_module
from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.weights import hash_file
from segvigen_model.config import AutoPromptConfig, CropConfig, SegmenterConfig
from segvigen_model.datasets.labelled_folder import choose_rows, load_object, wrap_labelled_mesh
from segvigen_model.datasets.procedural import make_asset, primitives
from segvigen_model.datasets.synthetic_pack import write_object
from segvigen_model.datasets.voxel_samples import load_labelled
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation import baselines
from segvigen_model.evaluation.protocol import (
    MODES,
    ORACLE,
    ObjectScores,
    Protocol,
    add_partition,
    evaluate,
    measure_row,
    partition_by_random_clicks,
)
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks
from segvigen_model.evaluation.tables import render_markdown
from segvigen_model.interactive.mask_selector import WEIGHTS_FILE as SELECTOR
from segvigen_model.interactive.patch_network import WEIGHTS_FILE as PATCHES
from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.session import Session
from segvigen_model.types import AssetMesh, Material


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    rows = [write_object(folder, make_asset(c, 7)) for c in ("mug", "table", "sword")]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def segmenter():
    """A tiny model that reads no crops of large meshes and tries few clicks, to be quick."""
    few = SegmenterConfig(
        crops=CropConfig(max_faces=500),
        auto_prompts=AutoPromptConfig(num_clicks=4, max_faces=500),
    )
    model = build_model("tiny")
    return Segmenter(replace(model, config=replace(model.config, segmenter=few)))


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
    reported = result["error_clicks"]
    assert reported["clicks_to_0.9"] >= reported["clicks_to_0.8"]
    assert 0 <= reported["share_to_0.9"] <= reported["share_to_0.8"] <= 1
    assert {"iou@1", "iou@10"} <= set(reported)


def test_limit_spreads_over_the_manifest(pack):
    assert [row["category"] for row in choose_rows(pack, None, 2)] == ["mug", "sword"]
    assert len(choose_rows(pack, None, None)) == 3


def test_unknown_modes_are_refused(pack, segmenter):
    with pytest.raises(ValueError, match="fusion"):
        evaluate(pack, modes=("fusion",), segmenter=segmenter)


def test_means_have_intervals_and_margins(pack, segmenter):
    result = evaluate(pack, clicks=(1, 3), segmenter=segmenter, seeds=2)
    for name, mean in result["interactive"].items():
        low, high = result["intervals"]["interactive"][name]
        assert low <= mean <= high
        margin = result["margins"]["interactive"][name]
        bars = {n: v[name] for n, v in result["baselines"].items() if name in v}
        assert margin["difference"] == pytest.approx(mean - max(bars.values()))
        assert margin["interval"][0] <= margin["difference"] <= margin["interval"][1]
        assert bars[margin["baseline"]] == max(bars.values())
    full = result["margins"]["full"]["miou_matched"]
    assert full["baseline"] != ORACLE, "the oracle is not the baseline to beat"
    assert result["baselines"][ORACLE]["miou_matched"] > 0.3
    assert result["seeds"] == 2
    each = json.loads(json.dumps(result))["by_object"]
    assert len({tree["object"] for tree in each}) == len(each) == result["objects"]
    numbers = [n for tree in each for n in tree["interactive"]["iou@1"]]
    assert len(numbers) == 2 * result["parts"]
    assert np.mean(numbers) == pytest.approx(result["interactive"]["iou@1"])


def test_one_object_has_means_but_no_intervals(pack, segmenter):
    result = evaluate(pack, modes=("interactive",), clicks=(1,), limit=1, segmenter=segmenter)
    assert result["objects"] == 1
    assert result["intervals"] == {} and result["margins"] == {}


def test_more_seeds_sample_more_but_keep_the_first(pack, segmenter):
    once = measure(pack, segmenter, seeds=1)
    twice = measure(pack, segmenter, seeds=2)
    (name,) = (n for n in once.values if n.startswith("interactive"))
    assert twice.values[name][: len(once.values[name])] == once.values[name]
    assert len(twice.values[name]) == 2 * len(once.values[name])


def measure(pack, segmenter, seeds):
    protocol = Protocol(modes=("interactive",), clicks=(1,), seeds=seeds)
    return measure_row(pack, choose_rows(pack, None, 1)[0], protocol, segmenter)


def damaged(pack, tmp_path, **changes):
    """A pack whose first object's labels are as given, and whose other objects are well."""
    rows = choose_rows(pack, None, None)
    (tmp_path / "objects").mkdir()
    for row in rows:
        for file in (row["glb"], row["parts"]):
            (tmp_path / file).write_bytes((pack / file).read_bytes())
    with np.load(tmp_path / rows[0]["parts"]) as arrays:
        table = dict(arrays)
    table["face_inst"] = changes["labels"](table["face_inst"])
    np.savez_compressed(tmp_path / rows[0]["parts"], **table)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "manifest.jsonl").write_text(text + changes.get("more", ""))
    return tmp_path


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (lambda ids: ids * 0 - 1, "no face has both area and a label"),
        (lambda ids: ids[:-1], "labels must follow the file's face order"),
    ],
)
def test_objects_that_cannot_be_used_are_counted_and_reported(
    pack, segmenter, tmp_path, labels, word
):
    folder = damaged(pack, tmp_path, labels=labels, more='{"id": "ghost"}\n')
    result = evaluate(folder, modes=("interactive",), clicks=(1,), segmenter=segmenter)
    assert result["objects"] == 2 and result["refused"] == 2
    reported = {name: " ".join(reasons) for name, reasons in result["refusals"].items()}
    assert word in reported[choose_rows(pack, None, 1)[0]["id"]]
    assert "KeyError: 'glb'" in reported["ghost"]


def test_a_folder_without_a_manifest_is_an_error_with_advice(tmp_path, segmenter):
    with pytest.raises(SegvigenError, match=r"manifest\.jsonl cannot be used .* one JSON object"):
        evaluate(tmp_path, segmenter=segmenter)


def test_unlabelled_faces_count_nowhere(pack, segmenter):
    row = choose_rows(pack, None, 1)[0]
    whole = load_object(pack, row, "face_inst", "as-is")
    half = wrap_labelled_mesh(
        "half", whole.mesh, np.where(whole.labels == 1, -1, whole.labels), "as-is"
    )
    assert len(half.list_part_masks()) == len(whole.list_part_masks()) - 1
    assert half.areas[whole.labels == 1].sum() == 0
    assert not (half.labels[half.judged_surface.pairs] == -1).any()
    scores = ObjectScores("half", {})
    add_partition(scores, "full", whole.labels, half)
    assert scores.values["full|miou_matched"] == [1.0] and scores.values["full|boundary_f1"] == [1]


@pytest.mark.parametrize("surface", ["as-is", "fused"])
def test_nasty_labels_do_not_stop_any_mode(pack, segmenter, tmp_path, surface):
    """One part; every face its own part; ids with gaps and unlabelled faces; a part of no area."""
    rng = np.random.default_rng(0)
    kinds = {
        "one part": lambda ids: ids * 0,
        "many parts": lambda ids: np.arange(len(ids)) // 3,
        "gaps": lambda ids: np.where(rng.random(len(ids)) < 0.3, -1, ids * 7 + 2),
    }
    for name, labels in kinds.items():
        (tmp_path / name).mkdir()
        folder = damaged(pack, tmp_path / name, labels=labels)
        modes = MODES if name == "gaps" else ("interactive", "full", "guided")
        protocol = Protocol(surface=surface, modes=modes, clicks=(1,))
        row = choose_rows(folder, None, 1)[0]
        scores = measure_row(folder, row, protocol, segmenter)
        assert scores.num_parts >= 1, name
        assert all(text.startswith("guided") for text in scores.refusals), scores.refusals
        assert all(np.isfinite(values).all() for values in scores.values.values()), name
        assert scores.values["full|miou_matched"][0] > 0


def test_too_many_colours_for_a_painted_view_are_a_reported_refusal(pack, segmenter, monkeypatch):
    class Refuses(Session):
        def guided(self, *args, **kwargs):
            raise ValueError("a painted view needs 1..64 flat colours")

    monkeypatch.setattr(segmenter_module, "Session", Refuses)
    row = choose_rows(pack, None, 1)[0]
    scores = measure_row(pack, row, Protocol(modes=("guided",)), segmenter)
    assert scores.refusals == ["guided: no_part_map: a painted view needs 1..64 flat colours"]


def test_workers_give_the_same_numbers_in_the_same_order(pack, tmp_path):
    saved = native.save_model(build_model("tiny"), tmp_path / "tiny")
    wanted = {
        "modes": ("interactive",),
        "clicks": (1,),
        "limit": 2,
        "checkpoint": tmp_path / "tiny",
    }
    alone, together = evaluate(pack, **wanted), evaluate(pack, **wanted, workers=2)
    assert together["workers"] == 2 and together["checkpoint"] == saved.sha256
    for name, path in (("patch_network", PATCHES), ("mask_choice", SELECTOR)):
        assert together[name] == hash_file(path)
        assert together[name][:12] in render_markdown({"fused": together})
    for key in ("interactive", "baselines", "intervals", "margins", "parts"):
        assert alone[key] == together[key], key


def test_workers_need_a_checkpoint(pack, segmenter):
    with pytest.raises(ValueError, match="workers=2 needs the name of a checkpoint"):
        evaluate(pack, segmenter=segmenter, workers=2)


def test_baselines_and_scores_keep_up_with_large_meshes():
    """Ten thousand loose boxes, 10^5 faces, 300 parts."""
    box = primitives.make_box((0.01, 0.01, 0.01))
    count = 100_000 // len(box.faces)
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 1, 3))
    vertices = (box.vertices[None] + places).reshape(-1, 3)
    faces = (box.faces[None] + len(box.vertices) * np.arange(count)[:, None, None]).reshape(-1, 3)
    mesh = AssetMesh(vertices, faces, np.zeros(len(faces), np.int32), (Material(),))
    labels = np.repeat(np.arange(count) % 300, len(box.faces))
    item = wrap_labelled_mesh("boxes", mesh, labels, "as-is")
    scores = ObjectScores("boxes", {})
    add_partition(scores, "voronoi", partition_by_random_clicks(item, 0), item)
    assert scores.values["voronoi|miou_matched"][0] > 1 / 300
    clicks = draw_surface_clicks(item.surface, labels == 3, 10, np.random.default_rng(0))
    masks = baselines.predict_click_masks(baselines.prepare_baselines(item.surface), clicks)
    for name in ("components", "geodesic ball 0.1"):
        assert masks[name].sum() % len(box.faces) == 0, "loose boxes are whole or not at all"
