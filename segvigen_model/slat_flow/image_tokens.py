"""Image tokens for the released weights: DINOv3 ViT-L/16 as the official extractor treats it.

All layers run, then channels are normalised WITHOUT the model's own last norm. The weights are
gated: they are used when a folder or the local hub cache holds them, never downloaded here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from segvigen_model.errors import AssetRejected, CheckpointMismatch, MissingExtra
from segvigen_model.types import ByteArray

MODEL_NAME = "facebook/dinov3-vitl16-pretrain-lvd1689m"
MODEL_FOLDER = MODEL_NAME.split("/")[1]
IMAGE_SIZE = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
MAX_SIDE = 1024  # larger pictures are shrunk before the crop
SOLID_ALPHA = 0.8 * 255  # what counts as object for the crop


class ImageTokenizer(nn.Module):
    """Pictures -> condition tokens.

    Args:
        model: a `DINOv3ViTModel`; it is changed: its last norm is taken out.
        image_size: side that pictures are resized to, a multiple of the patch size.
    """

    def __init__(self, model: nn.Module, image_size: int = IMAGE_SIZE) -> None:
        super().__init__()
        model.norm = nn.Identity()
        self.model = model.eval().requires_grad_(False)
        self.image_size = image_size

    @property
    def channels(self) -> int:
        """Width of a token."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pixels: (B, 3, S, S) RGB, 0..1.

        Returns:
            (B, L, D) float32: one class token, registers, then patches row by row.
        """
        mean, std = (pixels.new_tensor(each)[:, None, None] for each in (MEAN, STD))
        hidden = self.model(pixel_values=(pixels - mean) / std).last_hidden_state.float()
        return F.layer_norm(hidden, hidden.shape[-1:])

    def tokenize(self, picture: ByteArray) -> Tensor:
        """(H, W, 4) uint8 RGBA -> (L, D) tokens of the object in it, on the model's device."""
        pixels = torch.from_numpy(resize_pixels(crop_to_object(picture), self.image_size))
        tokens: Tensor = self(pixels[None].to(next(self.model.parameters()).device))
        return tokens[0]


def crop_to_object(picture: ByteArray) -> ByteArray:
    """Crop a picture to its object on black, as the official preprocessing does after matting.

    Args:
        picture: (H, W, 4) uint8 RGBA, straight alpha: the true one, so nothing is matted here.

    Returns:
        (S, S, 3) uint8: the centred square round all solid pixels, colours times alpha.
    """
    image = Image.fromarray(picture)
    shrink = min(1.0, MAX_SIDE / max(image.size))
    if shrink < 1.0:
        size = int(image.width * shrink), int(image.height * shrink)
        image = image.resize(size, Image.Resampling.LANCZOS)
    rows, columns = np.nonzero(np.asarray(image)[..., 3] > SOLID_ALPHA)
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < 2:
        raise AssetRejected(
            "empty_view",
            f"only {len(rows)} solid pixels in the condition picture; is the asset transparent?",
        )
    left, right, top, bottom = (
        int(each) for each in (columns.min(), columns.max(), rows.min(), rows.max())
    )
    half = max(right - left, bottom - top) // 2
    x, y = (left + right) / 2, (top + bottom) / 2
    # Half pixels are rounded by PIL, outside is transparent: both as in the official crop.
    box: Any = (x - half, y - half, x + half, y + half)
    cropped = np.asarray(image.crop(box)).astype(np.float32) / 255
    square: ByteArray = (cropped[..., :3] * cropped[..., 3:] * 255).astype(np.uint8)
    return square


def resize_pixels(picture: ByteArray, size: int) -> Any:
    """(H, W, 3) uint8 -> (3, size, size) float32 0..1, resized as the official extractor does."""
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    return np.ascontiguousarray((np.asarray(resized, np.float32) / 255).transpose(2, 0, 1))


def load_tokenizer(source: str | Path, device: str = "cpu") -> ImageTokenizer:
    """Load DINOv3 from a folder, or by name from the local hub cache.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointMismatch: no weights there.
    """
    dino = _import_dinov3()
    try:
        model = dino.DINOv3ViTModel.from_pretrained(
            str(source), local_files_only=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as err:
        raise CheckpointMismatch(
            f"no image model at {str(source)!r}: accept the licence of {MODEL_NAME} on its hub "
            f"page and put its files into a folder {MODEL_FOLDER} beside the SegviGen checkpoint "
            f"({type(err).__name__})"
        ) from err
    tokenizer = ImageTokenizer(model)
    tokenizer.to(device)
    return tokenizer


def find_image_model(*places: Path) -> str:
    """Find DINOv3: a folder of its name in one of `places`, the hub's cache, or a name.

    Args:
        places: folders to look into, first come, first served.

    Returns:
        A folder, or the hub's name when there is none.
    """
    for place in places:
        for folder in (place / MODEL_FOLDER, place / MODEL_NAME):
            if (folder / "config.json").is_file():
                return str(folder)
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return MODEL_NAME
    cached = try_to_load_from_cache(MODEL_NAME, "config.json")
    return str(Path(cached).parent) if isinstance(cached, str) else MODEL_NAME


def _import_dinov3() -> Any:
    try:
        import transformers
        from transformers.models import dinov3_vit
    except ImportError as err:
        raise MissingExtra(
            "transformers >= 4.56", "pip install 'segvigen-pipeline[official]'"
        ) from err
    del transformers
    return dinov3_vit
