"""DINOv3 with random weights: shapes, the left-out norm, and the preprocessing step by step."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segvigen_model.errors import AssetRejected, CheckpointMismatch, MissingExtra
from segvigen_model.slat_flow.image_tokens import (
    MODEL_FOLDER,
    MODEL_NAME,
    crop_to_object,
    find_image_model,
    load_tokenizer,
    resize_pixels,
)

transformers = pytest.importorskip("transformers")
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_register_tokens": 4,
}


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    torch.manual_seed(0)
    return make_tokenizer(64, **TINY)


def object_picture(height=40, width=60):
    picture = np.zeros((height, width, 4), np.uint8)
    picture[10:31, 20:31] = [200, 100, 50, 255]
    picture[5, 5] = [255, 255, 255, 100]  # a faint speck does not count
    return picture


def test_full_size_has_the_official_shape(make_tokenizer):
    with torch.device("meta"):
        full = make_tokenizer()
        tokens = full(torch.zeros(2, 3, 512, 512))
    assert tokens.shape == (2, 1029, 1024)
    assert full.channels == 1024
    assert sum(p.numel() for p in full.parameters()) == pytest.approx(303e6, rel=0.01)


def test_equals_all_layers_then_a_norm_without_gain(tokenizer):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    got = tokenizer(pixels)
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[None, :, None, None]
    model, image = tokenizer.model, (pixels - mean) / std
    with torch.no_grad():
        hidden = model.embeddings(image, bool_masked_pos=None)
        position = model.rope_embeddings(image)
        layers = model.layer if hasattr(model, "layer") else model.model.layer
        for layer in layers:
            hidden = layer(hidden, position_embeddings=position)
    assert got.shape == (2, 1 + 4 + 16, 32)
    assert torch.allclose(got, F.layer_norm(hidden, (32,)), atol=1e-6)
    assert torch.allclose(got.mean(-1), torch.zeros(2, 21), atol=1e-5)


def test_the_models_own_norm_would_be_noticed(make_tokenizer):
    tokenizer = make_tokenizer(64, **TINY)
    raw = transformers.models.dinov3_vit.DINOv3ViTModel(tokenizer.model.config)
    with torch.no_grad():
        raw.norm.bias += 1.0
    raw.eval()
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = raw(pixel_values=pixels).last_hidden_state
    tokenizer.model.load_state_dict(raw.state_dict(), strict=False)
    assert not torch.allclose(tokenizer(pixels), before, atol=0.1)


def test_crop_is_the_centred_square_on_black():
    square = crop_to_object(object_picture())
    # rows 10..30, columns 20..30: side 20, centre (25, 20)
    assert square.shape == (20, 20, 3)
    assert (square[:, 5:15] == [200, 100, 50]).all()
    assert not square[:, :4].any() and not square[:, 16:].any()


def test_crop_reaches_over_the_border_with_black():
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[:, :4] = 255
    square = crop_to_object(picture)
    assert square.shape[0] == square.shape[1]
    assert not square[:, 0].any()


def test_half_transparent_colours_are_dimmed():
    picture = object_picture()
    picture[20, 25, 3] = 128
    square = crop_to_object(picture)
    dim = square[10, 10] / np.array([200, 100, 50])
    assert np.allclose(dim, 128 / 255, atol=0.02)


def test_large_pictures_are_shrunk_first():
    big = np.full((1600, 2048, 4), 255, np.uint8)
    assert crop_to_object(big).shape == (1022, 1022, 3)


@pytest.mark.parametrize("alpha", [0, 200])
def test_nothing_solid_is_refused(alpha):
    with pytest.raises(AssetRejected, match="empty_view"):
        crop_to_object(np.full((8, 8, 4), alpha, np.uint8))


def test_resize_is_the_official_one():
    picture = np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(picture).resize((64, 64), Image.LANCZOS), np.float32) / 255
    assert np.array_equal(resize_pixels(picture, 64), wanted.transpose(2, 0, 1))


def test_tokens_of_a_picture(tokenizer):
    tokens = tokenizer.tokenize(object_picture())
    assert tokens.shape == (21, 32)
    assert torch.isfinite(tokens).all()


def test_saved_weights_load_again(tokenizer, tmp_path):
    folder = tmp_path / MODEL_FOLDER
    model = transformers.models.dinov3_vit.DINOv3ViTModel(tokenizer.model.config)
    model.load_state_dict(tokenizer.model.state_dict(), strict=False)
    model.save_pretrained(folder)
    assert find_image_model(tmp_path / "absent", tmp_path) == str(folder)
    loaded = load_tokenizer(folder)
    loaded.image_size = 64
    picture = object_picture()
    assert torch.equal(loaded.tokenize(picture), tokenizer.tokenize(picture))


def test_absent_weights_report_what_to_do(tmp_path, monkeypatch):
    assert find_image_model(tmp_path) == MODEL_NAME
    with pytest.raises(CheckpointMismatch, match="accept the licence"):
        load_tokenizer(tmp_path / "nowhere")


def test_absent_transformers_report_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="official"):
        load_tokenizer(tmp_path)
