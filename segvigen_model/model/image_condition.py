"""Image tokens of an asset or of a painted guide, for models that take them from outside.

Released weights were trained with one picture per asset; a model with its own view encoder needs
none of this. Where the image model is absent an error says so: a run without it would be another
model.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.model.bundle import Bundle
from segvigen_model.model.offload import placed
from segvigen_model.rendering.condition_view import render_view
from segvigen_model.slat_flow.image_tokens import ImageTokenizer
from segvigen_model.types import AssetMesh, ByteArray, FloatArray


def condition_of(bundle: Bundle, mesh: AssetMesh) -> FloatArray | None:
    """Make the tokens of an asset's own picture from the fixed camera.

    Args:
        bundle: the model.
        mesh: the asset.

    Returns:
        (L, D) float32, or None for a model that needs none.

    Raises:
        CheckpointMismatch: the model needs image tokens and has no image model.
    """
    if bundle.config.flow.view is not None:
        return None
    return _tokens(bundle, _tokenizer(bundle), render_view(mesh))


def guide_condition(bundle: Bundle, part_map: ByteArray) -> FloatArray:
    """Make the tokens of a painted guide.

    Args:
        bundle: a model that takes image tokens from outside.
        part_map: (S, S, 3) uint8, flat colours on black.

    Returns:
        (L, D) float32.
    """
    alpha = np.where(part_map.any(axis=2, keepdims=True), 255, 0).astype(np.uint8)
    return _tokens(bundle, _tokenizer(bundle), np.concatenate([part_map, alpha], axis=2))


def _tokenizer(bundle: Bundle) -> ImageTokenizer:
    if bundle.image_tokenizer is None:
        reason = bundle.card.get("image_model", "this model was built without one")
        raise CheckpointMismatch(f"the model needs an image model to see the asset; {reason}")
    wanted, got = bundle.config.flow.flow.cond_channels, bundle.image_tokenizer.channels
    if wanted != got:
        raise CheckpointMismatch(f"the image model gives {got} channels, the flow wants {wanted}")
    return bundle.image_tokenizer


def _tokens(bundle: Bundle, tokenizer: ImageTokenizer, picture: ByteArray) -> FloatArray:
    with placed(tokenizer, bundle.device):
        tokens: FloatArray = tokenizer.tokens(picture).cpu().numpy()
    return tokens
