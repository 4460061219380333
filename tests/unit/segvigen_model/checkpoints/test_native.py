"""Checkpoints: round trips and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.loading import load_model
from segvigen_model.checkpoints.native import CONFIG_FILE, WEIGHTS_FILE, parse_config
from segvigen_model.config import CropConfig, FusionWeights, SegmenterConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.patch_network import (
    PATCHES_FILE,
    read_patch_network,
    save_patch_network,
)
from segvigen_model.interactive.patch_network import WEIGHTS_FILE as SHIPPED_PATCHES
from segvigen_model.model.bundle import build_model, build_normalization
from segvigen_model.model.presets import PRESETS


@pytest.fixture
def saved(tiny_model, tmp_path):
    return native.save_model(replace(tiny_model, card={"steps": 3}), tmp_path / "mine")


@pytest.fixture
def folder(saved, tmp_path):
    return tmp_path / "mine"


def test_a_saved_model_comes_back(tiny_model, saved, folder):
    again = load_model(folder)
    assert again.sha256 == saved.sha256 != tiny_model.sha256
    assert again.card == {"steps": 3}
    assert again.config == tiny_model.config
    for name, value in again.collect_state().items():
        assert torch.equal(value, tiny_model.collect_state()[name].half().float()), name
    assert not any(module.training for module in again.list_modules().values())


def test_full_precision_is_exact_and_saving_is_deterministic(tiny_model, tmp_path):
    shas = {native.save_model(tiny_model, tmp_path / n, is_half=False).sha256 for n in "ab"}
    again = load_model(tmp_path / "a")
    assert len(shas) == 1
    assert all(
        torch.equal(v, tiny_model.collect_state()[n]) for n, v in again.collect_state().items()
    )


def test_normalisation_round_trips(tiny_model, tmp_path):
    values = {
        "shape_mean": [1.0] * 8,
        "shape_std": [2.0] * 8,
        "tex_mean": [3.0] * 8,
        "tex_std": [4.0] * 8,
    }
    model = replace(tiny_model, normalization=build_normalization(values))
    native.save_model(model, tmp_path)
    again = load_model(tmp_path).normalization
    slat = torch.randn(5, 8)
    assert torch.allclose(again.denormalize_tex(again.normalize_tex(slat)), slat, atol=1e-5)
    assert torch.allclose(again.normalize_shape(slat), (slat - 1) / 2)


def test_a_patch_network_of_its_own_goes_where_the_checkpoint_goes(tiny_model, tmp_path):
    mine, copy = tmp_path / "mine", tmp_path / "copy"
    native.save_model(tiny_model, mine)
    assert load_model(mine).patch_weights == SHIPPED_PATCHES
    (mine / PATCHES_FILE).write_bytes(SHIPPED_PATCHES.read_bytes())
    loaded = load_model(mine)
    assert loaded.patch_weights == mine / PATCHES_FILE
    assert native.save_model(loaded, copy).patch_weights == copy / PATCHES_FILE
    assert native.save_model(loaded, mine).patch_weights == mine / PATCHES_FILE
    native.save_model(tiny_model, copy)
    assert load_model(copy).patch_weights == SHIPPED_PATCHES, "the file before is gone"


@pytest.mark.parametrize("content", [None, b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}"])
def test_what_is_no_patch_network_is_reported(tmp_path, content):
    file = tmp_path / PATCHES_FILE
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=r"patches.safetensors holds no patch network: "):
        read_patch_network(file)


def test_the_layer_names_of_version_0_1_are_read(tmp_path):
    stored = load_file(SHIPPED_PATCHES)
    assert {"read_answer.1.weight", "pair_odds.weight"} <= set(stored), "the file has them"
    network = read_patch_network(SHIPPED_PATCHES)
    state = network.state_dict()
    assert torch.equal(state["pair_logits.weight"], stored["pair_odds.weight"].float())
    assert torch.equal(state["read_prediction.1.weight"], stored["read_answer.1.weight"].float())
    save_patch_network(network, tmp_path / PATCHES_FILE)
    assert set(load_file(tmp_path / PATCHES_FILE)) == set(state)
    again = read_patch_network(tmp_path / PATCHES_FILE).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_other_tensors_are_no_patch_network(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / PATCHES_FILE)
    with pytest.raises(CheckpointMismatch, match="holds no patch network"):
        read_patch_network(tmp_path / PATCHES_FILE)


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_survive_json(name):
    assert parse_config(json.loads(json.dumps(asdict(PRESETS[name])))) == PRESETS[name]


def test_the_configuration_is_stored_with_the_model(tiny_model, tmp_path):
    config = SegmenterConfig(crops=CropConfig(num_patches=100))
    native.save_model(
        replace(tiny_model, config=replace(tiny_model.config, segmenter=config)), tmp_path
    )
    stored = json.loads((tmp_path / CONFIG_FILE).read_text())["model"]["segmenter"]
    assert stored["crops"]["num_patches"] == 100
    assert load_model(tmp_path).config.segmenter == config


def test_the_configuration_is_read_without_the_weights(folder, tiny_model):
    (folder / WEIGHTS_FILE).unlink()
    assert native.read_config(folder) == tiny_model.config
    (folder / CONFIG_FILE).write_text("[]")
    with pytest.raises(CheckpointMismatch, match="has format 'list'"):
        native.read_config(folder)


def test_files_from_before_there_was_a_configuration_are_read(folder):
    edit_header(folder, lambda h: h["model"].pop("segmenter"))
    assert load_model(folder).config.segmenter == SegmenterConfig()
    edit_header(folder, lambda h: h["model"].update(trust={"mask": 1.5, "draws": 0.2}))
    assert load_model(folder).config.segmenter == SegmenterConfig(fusion=FusionWeights(1.5, 0.2))


def test_random_weights_depend_on_the_seed_only():
    torch.manual_seed(7)
    first = build_model("tiny")
    state = torch.random.get_rng_state()
    second = build_model("tiny")
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.sha256 == second.sha256 != build_model("tiny", seed=1).sha256


def edit_weights(folder, change):
    state = load_file(folder / WEIGHTS_FILE)
    change(state)
    save_file(state, folder / WEIGHTS_FILE)


def edit_header(folder, change):
    header = json.loads((folder / CONFIG_FILE).read_text())
    change(header)
    (folder / CONFIG_FILE).write_text(json.dumps(header))


def drop_layer(state):
    del state["dit.flow_model.out_layer.bias"]


def add_layer(state):
    state["dit.flow_model.surplus"] = torch.zeros(1)


def add_part(state):
    state["renderer.weight"] = torch.zeros(1)


def bend_layer(state):
    state["dit.flow_model.out_layer.bias"] = torch.zeros(3)


def spoil_layer(state):
    state["dit.flow_model.out_layer.bias"][1] = torch.nan


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop_layer, r"dit does not fit.*1 missing: flow_model.out_layer.bias"),
        (add_layer, r"1 unknown: flow_model.surplus"),
        (add_part, r"unknown tensors: renderer.weight"),
        (bend_layer, r"1 wrong shape: flow_model.out_layer.bias \(3,\) instead of \(8,\)"),
        (spoil_layer, r"NaN or infinite weights: flow_model.out_layer.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, match):
    edit_weights(folder, change)
    with pytest.raises(CheckpointMismatch, match=match):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h.update(format="other-9"), "format 'other-9'"),
        (lambda h: h.pop("normalization"), "lacks 'normalization'"),
        (lambda h: h["normalization"].pop("tex_std"), "normalisation is incomplete"),
        (lambda h: h["model"].pop("grid"), "sizes in config.json are wrong"),
        (lambda h: h["model"]["flow"].update(surplus=1), "sizes in config.json are wrong"),
        (lambda h: h["model"]["segmenter"].update(a=1), r"model\.segmenter\.a is no setting"),
        (lambda h: h["model"].update(trust={}), "both trust and segmenter"),
        (lambda h: h["normalization"]["tex_std"].__setitem__(0, 0.0), "scale nothing"),
        (lambda h: h["model"]["flow"]["flow"].update(model_channels=2**30), "a size above 65536"),
        (lambda h: h["model"]["flow"]["flow"].update(num_blocks=10**4), "make no model"),
        (lambda h: h["model"]["flow"]["flow"].update(model_channels=4096), "describes [0-9]+ w"),
        (lambda h: h["model"]["flow"]["flow"].update(num_heads=0), "make no model"),
    ],
)
def test_a_wrong_header_reports_what_is_wrong(folder, change, match):
    edit_header(folder, change)
    with pytest.raises(CheckpointMismatch, match=match):
        load_model(folder)


def test_damaged_and_absent_files_report_what_to_do(folder, tmp_path):
    (folder / WEIGHTS_FILE).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}")
    with pytest.raises(CheckpointMismatch, match="fetch the file again"):
        load_model(folder)
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(CheckpointMismatch, match="is no JSON"):
        load_model(folder)
    with pytest.raises(CheckpointMismatch, match="no checkpoint at"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointMismatch, match="choose one of tiny, default"):
        build_model("huge")
