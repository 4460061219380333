"""Image tokens of an asset or of a painted guide, for models that take them from outside.

Released weights were trained with one picture per asset; a model with its own view encoder needs
none of this. Where the image model is absent an error says so: a run without it would be another
model.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.offload import on_device
from segvigen_model.rendering.condition_view import render_view
from segvigen_model.slat_flow.image_tokens import ImageTokenizer
from segvigen_model.types import AssetMesh, ByteArray, FloatArray


def encode_condition(model: SegviGenModel, mesh: AssetMesh) -> FloatArray | None:
    """Make the tokens of an asset's own picture from the fixed camera.

    Args:
        model: the model.
        mesh: the asset.

    Returns:
        (L, D) float32, or None for a model that needs none.

    Raises:
        CheckpointMismatch: the model needs image tokens and has no image model.
    """
    if model.config.flow.view is not None:
        return None
    return _tokenize_picture(model, _get_tokenizer(model), render_view(mesh))


def encode_guide_condition(model: SegviGenModel, part_map: ByteArray) -> FloatArray:
    """Make the tokens of a painted guide.

    Args:
        model: a model that takes image tokens from outside.
        part_map: (S, S, 3) uint8, flat colours on black.

    Returns:
        (L, D) float32.
    """
    alpha = np.where(part_map.any(axis=2, keepdims=True), 255, 0).astype(np.uint8)
    return _tokenize_picture(
        model, _get_tokenizer(model), np.concatenate([part_map, alpha], axis=2)
    )


def _get_tokenizer(model: SegviGenModel) -> ImageTokenizer:
    if model.image_tokenizer is None:
        reason = model.card.get("image_model", "this model was built without one")
        raise CheckpointMismatch(f"the model needs an image model to see the asset; {reason}")
    wanted, got = model.config.flow.flow.cond_channels, model.image_tokenizer.channels
    if wanted != got:
        raise CheckpointMismatch(f"the image model gives {got} channels, the flow wants {wanted}")
    return model.image_tokenizer


def _tokenize_picture(
    model: SegviGenModel, tokenizer: ImageTokenizer, picture: ByteArray
) -> FloatArray:
    with on_device(tokenizer, model.device):
        tokens: FloatArray = tokenizer.tokenize(picture).cpu().numpy()
    return tokens
