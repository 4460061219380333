"""Sizes of whole models by name: `tiny` for tests, `default` shipped, `trellis2_1b` official.

A model is two autoencoders and a segmentation flow; latents of both autoencoders share one grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from segvigen_model.config import FusionWeights, SegmenterConfig
from segvigen_model.slat_flow.conditioning import ViewConfig
from segvigen_model.slat_flow.segmentation import SegmentationConfig
from segvigen_model.slat_flow.transformer import FlowConfig
from segvigen_model.vae import shape, texture
from segvigen_model.vae.decoder import DecoderConfig
from segvigen_model.vae.encoder import EncoderConfig

# A choice, not measured: it outweighs geometry where it is sure.
OFFICIAL_SEGMENTER = SegmenterConfig(fusion=FusionWeights(mask=1.5, draws=1.5))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a whole model.

    Attributes:
        name: what it is called.
        grid: voxels along each axis of the unit cube.
        shape_encoder, shape_decoder: shape autoencoder.
        tex_encoder, tex_decoder: texture autoencoder.
        flow: segmentation flow.
        segmenter: how its colours and masks become labels.
    """

    name: str
    grid: int
    shape_encoder: EncoderConfig
    shape_decoder: DecoderConfig
    tex_encoder: EncoderConfig
    tex_decoder: DecoderConfig
    flow: SegmentationConfig
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)

    @property
    def num_levels(self) -> int:
        """How often the autoencoders halve the grid."""
        return len(self.shape_encoder.channels) - 1

    @property
    def factor(self) -> int:
        """Voxels per latent along each axis."""
        return 1 << self.num_levels

    @property
    def latent_channels(self) -> int:
        """Channels of both latents."""
        return self.shape_encoder.latent_channels


def _build_config(
    name: str,
    grid: int,
    *,
    channels: tuple[int, ...],
    encoder_blocks: tuple[int, ...],
    decoder_blocks: tuple[int, ...],
    latent_channels: int,
    logvar_bias: float,
    flow: SegmentationConfig,
    segmenter: SegmenterConfig | None = None,
) -> ModelConfig:
    def make_encoder(in_channels: int) -> EncoderConfig:
        return EncoderConfig(in_channels, channels, encoder_blocks, latent_channels, logvar_bias)

    def make_decoder(out_channels: int, predicts: bool) -> DecoderConfig:
        return DecoderConfig(
            out_channels, channels[::-1], decoder_blocks, latent_channels, predicts
        )

    return ModelConfig(
        name=name,
        grid=grid,
        shape_encoder=make_encoder(shape.IN_CHANNELS),
        shape_decoder=make_decoder(shape.OUT_CHANNELS, predicts=True),
        tex_encoder=make_encoder(texture.CHANNELS),
        tex_decoder=make_decoder(texture.CHANNELS, predicts=False),
        flow=flow,
        segmenter=segmenter or SegmenterConfig(),
    )


PRESETS: dict[str, ModelConfig] = {
    "tiny": _build_config(
        "tiny",
        32,
        channels=(8, 16, 16),
        encoder_blocks=(0, 1, 1),
        decoder_blocks=(1, 1, 0),
        latent_channels=8,
        logvar_bias=-5.0,
        flow=SegmentationConfig(
            FlowConfig(16, 8, 48, 24, num_blocks=2, num_heads=2),
            view=ViewConfig(image_size=32, patch_size=8),
        ),
    ),
    "default": _build_config(
        "default",
        64,
        channels=(32, 64, 128),
        encoder_blocks=(0, 1, 1),
        decoder_blocks=(1, 1, 0),
        latent_channels=16,
        logvar_bias=-5.0,
        flow=SegmentationConfig(
            FlowConfig(32, 16, 256, 128, num_blocks=8, num_heads=4),
            view=ViewConfig(image_size=64, patch_size=8),
        ),
    ),
    "trellis2_1b": _build_config(
        "trellis2_1b",
        512,
        channels=(64, 128, 256, 512, 1024),
        encoder_blocks=(0, 4, 8, 16, 4),
        decoder_blocks=(4, 16, 8, 4, 0),
        latent_channels=32,
        logvar_bias=0.0,
        flow=SegmentationConfig(
            FlowConfig(64, 32, 1536, 1024, num_blocks=30, num_heads=12, mlp_ratio=5.3334),
            num_click_embeddings=1,
            has_task_embedding=False,
            view=None,
        ),
        segmenter=OFFICIAL_SEGMENTER,
    ),
}
