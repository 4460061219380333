"""A whole model in memory: five networks, their sizes, and the normalisation of latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.patch_network import WEIGHTS_FILE as SHIPPED_PATCHES
from segvigen_model.model.presets import PRESETS, ModelConfig
from segvigen_model.slat_flow.conditioning import Task
from segvigen_model.slat_flow.image_tokens import ImageTokenizer
from segvigen_model.slat_flow.sampler import SamplerOptions
from segvigen_model.slat_flow.segmentation import SegmentationFlow
from segvigen_model.vae.decoder import Decoder
from segvigen_model.vae.encoder import Encoder

PARTS = ("shape_encoder", "shape_decoder", "tex_encoder", "tex_decoder", "dit")


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """Mean and spread of latents; the flow works on (latent - mean) / std.

    Attributes:
        shape_mean, shape_std, tex_mean, tex_std: (C,) float32.
    """

    shape_mean: Tensor
    shape_std: Tensor
    tex_mean: Tensor
    tex_std: Tensor

    def normalize_shape(self, slat: Tensor) -> Tensor:
        """(T, C) shape latents -> normalised."""
        return (slat - self.shape_mean) / self.shape_std

    def normalize_tex(self, slat: Tensor) -> Tensor:
        """(T, C) texture latents -> normalised."""
        return (slat - self.tex_mean) / self.tex_std

    def denormalize_tex(self, slat: Tensor) -> Tensor:
        """(T, C) normalised texture latents -> latents."""
        return slat * self.tex_std + self.tex_mean

    def to(self, device: torch.device | str) -> Normalization:
        """Move to a device."""
        return Normalization(
            self.shape_mean.to(device),
            self.shape_std.to(device),
            self.tex_mean.to(device),
            self.tex_std.to(device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SegviGenModel:
    """A whole model.

    Attributes:
        shape_encoder, shape_decoder, tex_encoder, tex_decoder: autoencoders.
        dit: the segmentation flow.
        config: sizes.
        normalization: of latents.
        sha256: of the weights file; of the weights in memory when never saved.
        card: what is known of its making: data, licences, steps, seed...; JSON-able.
        flows: released checkpoints know one task each; empty = `dit` does them all.
        sampler: how the released weights sample; None = masks in one step.
        image_tokenizer: makes image tokens for a flow without own view encoder, when present.
        compute_device: where to compute when weights rest elsewhere (see offload.py).
        patch_weights: file of the patch network that reads geometry beside the flow.
    """

    shape_encoder: Encoder
    shape_decoder: Decoder
    tex_encoder: Encoder
    tex_decoder: Decoder
    dit: SegmentationFlow
    config: ModelConfig
    normalization: Normalization
    sha256: str
    card: Mapping[str, Any] = field(default_factory=dict)
    flows: Mapping[Task, SegmentationFlow] = field(default_factory=dict)
    sampler: SamplerOptions | None = None
    image_tokenizer: ImageTokenizer | None = None
    compute_device: torch.device | None = None
    patch_weights: Path = SHIPPED_PATCHES

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return self.compute_device or self.dit.flow_model.out_layer.weight.device

    def select_flow(self, task: Task) -> SegmentationFlow:
        """Return the flow that knows a task."""
        if self.flows and task not in self.flows:
            known = ", ".join(each.name.lower() for each in self.flows)
            raise CheckpointMismatch(
                f"these released weights are for {known}, not {task.name.lower()}; "
                "put all SegviGen .ckpt files into one folder and load that folder"
            )
        return self.flows.get(task, self.dit)

    def list_modules(self) -> dict[str, nn.Module]:
        """Return the five networks by name."""
        return {name: getattr(self, name) for name in PARTS}

    def collect_state(self) -> dict[str, Tensor]:
        """Return all weights, keys prefixed by the network's name."""
        return {
            f"{part}.{name}": value
            for part, module in self.list_modules().items()
            for name, value in module.state_dict().items()
        }


def build_model(preset: str, *, seed: int = 0, device: str = "cpu") -> SegviGenModel:
    """Make a model with random weights.

    Args:
        preset: a key of `PRESETS`.
        seed: of the random weights.
        device: where to put it.
    """
    if preset not in PRESETS:
        raise CheckpointMismatch(f"no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    model = build_model_from_config(PRESETS[preset], seed=seed, device=device)
    return replace(model, sha256=_hash_state(model.collect_state()))


def build_model_from_config(
    config: ModelConfig, *, seed: int = 0, device: str = "cpu"
) -> SegviGenModel:
    """Make a model of any size with random weights and an empty `sha256`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SegviGenModel(
            shape_encoder=Encoder(config.shape_encoder),
            shape_decoder=Decoder(config.shape_decoder),
            tex_encoder=Encoder(config.tex_encoder),
            tex_decoder=Decoder(config.tex_decoder),
            dit=SegmentationFlow(config.flow),
            config=config,
            normalization=_make_unit_normalization(config.latent_channels),
            sha256="",
        )
    return move_to_device(model, device)


def _make_unit_normalization(channels: int) -> Normalization:
    zero, one = torch.zeros(channels), torch.ones(channels)
    return Normalization(zero, one, zero, one)


def move_to_device(model: SegviGenModel, device: str) -> SegviGenModel:
    """Put every network and the normalisation on a device, in evaluation mode."""
    for module in model.list_modules().values():
        module.to(device).eval()
    return replace(model, normalization=model.normalization.to(device))


def _hash_state(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def build_normalization(values: Mapping[str, Any], channels: int | None = None) -> Normalization:
    """Make a normalisation of lists `shape_mean`, `shape_std`, `tex_mean`, `tex_std`.

    Args:
        values: one number per latent channel in each.
        channels: how many there must be, when known.
    """
    names = ("shape_mean", "shape_std", "tex_mean", "tex_std")
    try:
        tensors = {name: torch.tensor(values[name], dtype=torch.float32) for name in names}
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as err:
        raise CheckpointMismatch(f"the latents' normalisation is incomplete: {err!r}") from err
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() or (name.endswith("std") and not (tensor > 0).all()):
            raise CheckpointMismatch(
                f"the normalisation's {name} has numbers that scale nothing; take the file that "
                "came with the weights"
            )
        if channels is not None and tensor.shape != (channels,):
            raise CheckpointMismatch(
                f"the normalisation's {name} has shape {tuple(tensor.shape)} for latents of "
                f"{channels} channels; take the file that came with the weights"
            )
    return Normalization(**tensors)
