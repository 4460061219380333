from __future__ import annotations

import gc
import json
import weakref
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from segvigen_model import segmenter as segmenter_module
from segvigen_model import session as session_module
from segvigen_model.checkpoints import native
from segvigen_model.config import (
    ALGORITHM_VERSION,
    GranularityConfig,
    GuidedConfig,
    MergingConfig,
    SegmenterConfig,
)
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.patch_network import PatchNetwork, save_patch_network
from segvigen_model.model.bundle import build_model
from segvigen_model.model.inference import ClickSet, _split_click_slots
from segvigen_model.partition.view_guided import find_map_colors
from segvigen_model.segmenter import Segmenter
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import Proposal


def is_same(left: Proposal, right: Proposal) -> bool:
    return proposal_to_bytes(left) == proposal_to_bytes(right)


def test_propose_is_a_partition_fixed_by_its_seed(table, segmenter):
    mesh, _ = table
    encoding = segmenter.encode(mesh)
    first = segmenter.open(mesh, encoding).propose(num_draws=2, num_steps=2, seed=3)
    again = Segmenter(segmenter.model).open(mesh).propose(num_draws=2, num_steps=2, seed=3)
    assert is_same(first, again)
    assert first.face_labels.shape == (60,)
    assert first.voxel_labels.shape == (len(encoding.coords),)
    assert np.unique(first.face_labels).tolist() == list(range(first.num_parts))
    assert first.provenance["labels_source"] == "draw_consensus"
    assert first.provenance["checkpoint"] == segmenter.model.sha256
    assert segmenter.weights.items() <= first.provenance.items()
    assert first.provenance["algorithm"] == ALGORITHM_VERSION
    assert first.provenance["config"] == {"digest": SegmenterConfig().digest, "changed": {}}


def test_a_checkpoint_may_be_used_with_another_configuration(table, segmenter, tmp_path):
    mesh, _ = table
    native.save_model(segmenter.model, tmp_path)
    apart = GranularityConfig(merge_threshold=0.001, min_part_area=0.0)
    config = SegmenterConfig(merging=MergingConfig(apart, apart, apart))
    plain = Segmenter.from_checkpoint(tmp_path)
    other = Segmenter.from_checkpoint(tmp_path, config=config)
    assert plain.config == SegmenterConfig() and other.config == config
    assert {k for k in plain.identity if plain.identity[k] != other.identity[k]} == {"config"}
    few, many = (each.open(mesh).propose(num_draws=1, num_steps=1) for each in (plain, other))
    assert many.num_parts > few.num_parts
    assert many.provenance["config"] == config.summary
    assert many.provenance["config"]["changed"]["merging"]["fine"]["merge_threshold"] == 0.001


def test_the_shipped_checkpoint_shows_every_setting():
    header = json.loads(
        (native.resolve_checkpoint_folder("default") / native.CONFIG_FILE).read_text()
    )
    assert header["model"]["segmenter"] == json.loads(json.dumps(asdict(SegmenterConfig())))


def test_a_patch_network_of_its_own_answers_and_leaves_encodings_as_they_are(
    table, segmenter, click_at, tmp_path
):
    torch.manual_seed(5)
    save_patch_network(PatchNetwork(width=32, heads=2, depth=(1, 1), pair_width=8), tmp_path / "p")
    other = Segmenter(replace(segmenter.model, patch_weights=tmp_path / "p"))
    mesh, _ = table
    encoding = segmenter.encode(mesh)
    changed = {k for k in segmenter.weights if segmenter.weights[k] != other.weights[k]}
    assert changed == {"patch_network"} and other.encode(mesh).checkpoint == encoding.checkpoint
    clicks = [click_at(mesh, 0, part=0)]
    own, by_other_network = (each.open(mesh, encoding).click(clicks) for each in (segmenter, other))
    assert not np.allclose(own, by_other_network), "the other network was asked"


def test_a_session_encodes_and_measures_once_and_only_when_requested(
    table, segmenter, click_at, monkeypatch
):
    mesh, _ = table
    calls = Counter()

    def count(module, name):
        inner = getattr(module, name)

        def counted(*args, **kwargs):
            calls[name] += 1
            return inner(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    count(segmenter_module, "encode_voxels")
    count(session_module, "measure_asset")
    session = segmenter.open(mesh)
    assert calls == {"encode_voxels": 1}, "opening does not measure"
    session.prepare()
    assert calls == {"encode_voxels": 1, "measure_asset": 1}
    clicks = [click_at(mesh, 0, part=0)]
    first = session.propose(num_draws=1, num_steps=1)
    session.click(clicks)
    session.refine(first.face_labels, clicks)
    again = segmenter.open(mesh, session.encoding)
    assert calls == {"encode_voxels": 1, "measure_asset": 1}
    assert is_same(again.propose(num_draws=1, num_steps=1), first)
    assert calls == {"encode_voxels": 1, "measure_asset": 2}


def test_a_segmenter_keeps_nothing_of_a_session(table, segmenter):
    session = segmenter.open(table[0])
    # An array, because the dataclass itself takes no weak reference.
    kept = weakref.ref(session.geometry.surface.areas)
    del session
    gc.collect()
    assert kept() is None


def test_face_order_does_not_matter(table, segmenter):
    bent = table[0].vertices + 0.05 * np.sin(table[0].vertices[:, [1, 2, 0]] * [3.1, 4.3, 5.7])
    mesh = replace(table[0], vertices=bent)  # no two borders alike: ties may fall either way
    order = np.random.default_rng(0).permutation(60)
    shuffled = replace(mesh, faces=mesh.faces[order], face_material=mesh.face_material[order])
    here, there = [
        segmenter.open(each).propose(num_draws=2, num_steps=1).face_labels
        for each in (mesh, shuffled)
    ]
    pairs = np.unique(np.stack([here[order], there]), axis=1)
    assert pairs.shape[1] == here.max() + 1


@pytest.mark.parametrize("name", ["single_face", "two_boxes", "split_box"])
def test_small_meshes_go_all_the_way(name, request, segmenter, click_at):
    mesh = request.getfixturevalue(name)
    session = segmenter.open(mesh)
    proposal = session.propose(num_draws=1, num_steps=1)
    assert len(proposal.face_labels) == mesh.num_faces
    mask = session.click([click_at(mesh, 0)])
    assert mask.dtype == np.float32
    assert mask[0] == 1.0
    assert ((mask >= 0) & (mask <= 1)).all()


def test_a_click_keeps_the_clicked_face_and_none_of_the_denied_box(two_boxes, segmenter, click_at):
    clicks = [click_at(two_boxes, 2), click_at(two_boxes, 14, is_positive=False)]
    mask = segmenter.open(two_boxes).click(clicks) > 0.5
    assert mask[2]
    assert not mask[12:].any()


def test_clicks_without_a_positive_one_are_refused(two_boxes, segmenter, click_at):
    session = segmenter.open(two_boxes)
    for clicks in ([], [click_at(two_boxes, 0, is_positive=False)]):
        with pytest.raises(ValueError, match=f"none of {len(clicks)} clicks is positive"):
            session.click(clicks)


def test_no_click_is_lost_beyond_ten():
    cells = np.arange(36, dtype=np.int32).reshape(-1, 1).repeat(3, axis=1)
    is_positive = np.ones(36, bool)
    is_positive[[0, 35]] = False
    groups = _split_click_slots(ClickSet(cells, is_positive), knows_negatives=True)
    assert all(len(group.cells) <= 10 for group in groups)
    assert {int(cell) for group in groups for cell in group.cells[:, 0]} == set(range(36))
    plain = _split_click_slots(ClickSet(cells, is_positive), knows_negatives=False)
    assert {int(cell) for group in plain for cell in group.cells[:, 0]} == set(range(1, 35))


def test_many_clicks_all_hold(table, segmenter, click_at):
    mesh, _ = table
    clicks = [click_at(mesh, face) for face in range(24)]
    mask = segmenter.open(mesh).click(clicks)
    assert (mask[:24] == 1.0).all()


def test_an_encoding_of_another_model_is_refused(two_boxes, segmenter):
    other = Segmenter(build_model("tiny", seed=1))
    with pytest.raises(CheckpointMismatch, match="encode again"):
        other.open(two_boxes, segmenter.encode(two_boxes))


def test_guided_uses_the_colours_of_the_view(table, segmenter):
    mesh, _ = table
    view = np.zeros((32, 32, 3), np.uint8)
    view[:16] = [255, 0, 0]
    view[20:] = [0, 0, 255]
    proposal = segmenter.open(mesh).guided(view, num_steps=1)
    assert proposal.provenance["num_map_colors"] == 2
    assert len(proposal.face_labels) == 60


def test_a_view_without_flat_colours_is_refused():
    with pytest.raises(ValueError, match="has 0"):
        find_map_colors(np.zeros((8, 8, 3), np.uint8), GuidedConfig())
    noise = np.random.default_rng(0).integers(1, 255, (32, 32, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="without shading"):
        find_map_colors(noise, GuidedConfig())
