"""The whole way with released weights, in small: encode, propose, clicks, painted view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segvigen_model.checkpoints.loading import load_model
from segvigen_model.checkpoints.official import load_released
from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.model.image_condition import encode_condition, encode_guide_condition
from segvigen_model.model.inference import ClickSet, draw_colorings, draw_masks
from segvigen_model.segmenter import Segmenter
from segvigen_model.serialization import encoding_from_bytes, encoding_to_bytes
from segvigen_model.slat_flow.conditioning import Task
from segvigen_model.types import Click


@pytest.fixture(scope="module")
def asset():
    return make_asset(CATEGORIES[0], 0)


def test_a_folder_is_one_model_for_all_tasks(released_folder, asset):
    segmenter = Segmenter.from_checkpoint(released_folder)
    model = segmenter.model
    assert set(model.flows) == set(Task)
    assert model.select_flow(Task.FULL) is not model.select_flow(Task.GUIDED)
    assert model.select_flow(Task.INTERACTIVE).config.num_click_embeddings == 1

    session = segmenter.open(asset.mesh)
    encoding = session.encoding
    assert encoding.condition.shape == (1 + 4 + 32 * 32, 16)
    again = encoding_from_bytes(encoding_to_bytes(encoding))
    assert np.array_equal(again.condition, encoding.condition)

    proposal = session.propose(num_draws=2, num_steps=2)
    assert len(proposal.face_labels) == asset.mesh.num_faces
    face = 3
    click = Click(face, asset.mesh.triangles[face].mean(axis=0), part=0)
    assert session.click([click]).shape == (asset.mesh.num_faces,)
    refined = session.refine(proposal.face_labels, [click])
    assert refined.face_labels[face] == refined.refinement.id_map.get(0, 0)

    colors = np.random.default_rng(0).integers(60, 255, (99, 3)).astype(np.uint8)
    faces = session.view_faces(128)
    shown = colors[asset.face_labels[np.maximum(faces, 0)]]
    painted = np.where((faces >= 0)[..., None], shown, 0).astype(np.uint8)
    assert session.guided(painted, num_steps=2).num_parts >= 1


def test_the_picture_and_the_seed_reach_the_answer(released_folder, asset):
    segmenter = Segmenter.from_checkpoint(released_folder)
    model, encoding = segmenter.model, segmenter.encode(asset.mesh)
    blind = replace(encoding, condition=np.zeros_like(encoding.condition))
    clicks = [ClickSet(encoding.latent_coords[:2], np.ones(2, bool))]
    seen = draw_masks(model, encoding, clicks)
    assert np.array_equal(seen, draw_masks(model, encoding, clicks))
    assert not np.allclose(seen, draw_masks(model, blind, clicks), atol=1e-4)
    assert not np.allclose(seen, draw_masks(model, encoding, clicks, seed=1), atol=1e-4)
    draws = {"num_draws": 1, "num_steps": 2, "seed": 0}
    full = draw_colorings(model, encoding, **draws)
    assert not np.allclose(full, draw_colorings(model, blind, **draws), atol=1e-4)


def test_masks_follow_the_released_sampler(released_folder, asset):
    model = load_model(released_folder)
    assert model.sampler.num_steps == 3
    encoding = Segmenter(model).encode(asset.mesh)
    clicks = [ClickSet(encoding.latent_coords[:1], np.ones(1, bool))]
    guided = replace(model, sampler=replace(model.sampler, guidance_strength=3.0))
    difference = draw_masks(guided, encoding, clicks) - draw_masks(model, encoding, clicks)
    assert np.abs(difference).max() > 1e-4


def test_one_checkpoint_knows_its_task_only(released_folder, asset):
    segmenter = Segmenter.from_checkpoint(released_folder / "interactive_seg.ckpt")
    session = segmenter.open(asset.mesh)
    with pytest.raises(CheckpointMismatch, match="for interactive, not full"):
        session.propose()
    click = Click(0, asset.mesh.triangles[0].mean(axis=0), part=0)
    assert session.click([click]).max() <= 1.0


def test_a_folder_has_its_own_fingerprint(released_folder):
    whole = load_model(released_folder)
    single = load_model(released_folder / "full_seg.ckpt")
    assert len({whole.sha256, single.sha256}) == 2
    assert load_model(released_folder).sha256 == whole.sha256


def test_two_checkpoints_of_one_task_are_refused(released_folder):
    (released_folder / "full_again.ckpt").write_bytes(
        (released_folder / "full_seg.ckpt").read_bytes()
    )
    with pytest.raises(CheckpointMismatch, match="second one for full"):
        load_model(released_folder)


def test_without_the_image_model_encoding_reports_what_is_missing(write_released, tmp_path, asset):
    model = load_model(write_released(tmp_path, has_image_model=False))
    assert model.card["image_model"].startswith("absent")
    with pytest.raises(CheckpointMismatch, match="accept the licence"):
        encode_condition(model, asset.mesh)
    with pytest.raises(CheckpointMismatch, match="image model"):
        encode_guide_condition(model, np.full((8, 8, 3), 200, np.uint8))


def test_an_image_model_of_another_width_is_refused(released_folder, asset, make_tokenizer):
    model = load_model(released_folder)
    other = make_tokenizer(32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(CheckpointMismatch, match="32 channels, the flow wants 16"):
        encode_condition(replace(model, image_tokenizer=other), asset.mesh)


def test_own_checkpoints_need_no_picture(tiny_model, asset):
    assert encode_condition(tiny_model, asset.mesh) is None


def test_offloaded_weights_give_the_same_answer(released_folder, asset):
    straight = load_model(released_folder)
    offloaded = load_released(released_folder, is_offloaded=True)
    assert offloaded.compute_device == torch.device("cpu")
    one, other = (
        draw_colorings(b, Segmenter(b).encode(asset.mesh), num_draws=1, num_steps=2, seed=0)
        for b in (straight, offloaded)
    )
    assert np.array_equal(one, other)
