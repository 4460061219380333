"""Euler sampling of the flow from noise (t = 1) to data (t = 0), with optional guidance.

`sample_in_one_step` reads the data off a single evaluation at t = 1 from zero noise: the mean
answer, which small checkpoints give better than a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from segvigen_model.slat_flow.segmentation import FlowInputs, SegmentationFlow
from segvigen_model.types import FloatArray

SIGMA_MIN = 1e-5
StepCallback = Callable[[int, Tensor], None]


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """How to integrate; the defaults are the official ones.

    Attributes:
        num_steps: Euler steps.
        rescale_t: > 1 spends more steps near noise.
        guidance_strength: 1 = the plain conditional flow, one evaluation per step.
        guidance_interval: times within which guidance acts.
        guidance_rescale: 0..1, how far to pull the guided spread back to the conditional one.
    """

    num_steps: int = 12
    rescale_t: float = 3.0
    guidance_strength: float = 1.0
    guidance_interval: tuple[float, float] = (0.6, 0.9)
    guidance_rescale: float = 0.0

    @property
    def needs_null(self) -> bool:
        """Whether sampling evaluates the empty condition."""
        return self.guidance_strength != 1.0


def compute_schedule(num_steps: int, rescale_t: float) -> FloatArray:
    """(num_steps + 1,) float64 times, from 1 down to 0."""
    t = np.linspace(1.0, 0.0, num_steps + 1)
    return np.asarray(rescale_t * t / (1.0 + (rescale_t - 1.0) * t))


def mix_noise(x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the point at time t between data and noise; t broadcasts over (T, C)."""
    return (1.0 - t) * x_0 + (SIGMA_MIN + (1.0 - SIGMA_MIN) * t) * noise


def compute_velocity_target(x_0: Tensor, noise: Tensor) -> Tensor:
    """Return what the flow must predict at every time between `x_0` and `noise`."""
    return (1.0 - SIGMA_MIN) * noise - x_0


def compute_data(x_t: Tensor, velocity: Tensor, t: float) -> Tensor:
    """Return the data that the velocity points at."""
    return (1.0 - SIGMA_MIN) * x_t - (SIGMA_MIN + (1.0 - SIGMA_MIN) * t) * velocity


def compute_velocity(x_t: Tensor, x_0: Tensor, t: float) -> Tensor:
    """Invert `compute_data`."""
    return ((1.0 - SIGMA_MIN) * x_t - x_0) / (SIGMA_MIN + (1.0 - SIGMA_MIN) * t)


@torch.no_grad()
def sample_latents(
    flow: SegmentationFlow,
    inputs: FlowInputs,
    noise: Tensor,
    options: SamplerOptions,
    on_step: StepCallback | None = None,
) -> Tensor:
    """Draw texture latents.

    Args:
        flow: the model.
        inputs: from `flow.prepare`, with `needs_null=options.needs_null`.
        noise: (T, C) standard normal.
        options: how to integrate.
        on_step: called with (step, x) after each step.

    Returns:
        (T, C) normalised latents.
    """
    times = compute_schedule(options.num_steps, options.rescale_t).tolist()
    x = noise
    for step, (t, t_next) in enumerate(pairwise(times)):
        x = x - (t - t_next) * _predict_guided_velocity(flow, inputs, x, t, options)
        if on_step is not None:
            on_step(step, x)
    return x


@torch.no_grad()
def sample_in_one_step(
    flow: SegmentationFlow, inputs: FlowInputs, noise: Tensor | None = None
) -> Tensor:
    """Answer in one evaluation at t = 1.

    Args:
        flow: the model.
        inputs: from `flow.prepare`.
        noise: (T, C) start; zeros when None.

    Returns:
        (T, C) normalised latents.
    """
    if noise is None:
        channels = flow.config.flow.out_channels
        noise = inputs.static.new_zeros(len(inputs.structure), channels)
    return compute_data(noise, flow.predict_velocity(noise, 1.0, inputs), 1.0)


def draw_noise(num_tokens: int, channels: int, seed: int) -> Tensor:
    """(T, C) standard normal numbers that depend on the seed only, not on the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, channels, generator=generator)


def _predict_guided_velocity(
    flow: SegmentationFlow, inputs: FlowInputs, x: Tensor, t: float, options: SamplerOptions
) -> Tensor:
    low, high = options.guidance_interval
    strength = options.guidance_strength if low <= t <= high else 1.0
    if strength == 1.0:
        return flow.predict_velocity(x, t, inputs)
    if strength == 0.0:
        return flow.predict_velocity(x, t, inputs, is_null=True)
    positive = flow.predict_velocity(x, t, inputs)
    negative = flow.predict_velocity(x, t, inputs, is_null=True)
    guided = strength * positive + (1.0 - strength) * negative
    if options.guidance_rescale == 0.0:
        return guided
    return _rescale_guidance(x, t, positive, guided, inputs, options.guidance_rescale)


def _rescale_guidance(
    x: Tensor, t: float, positive: Tensor, guided: Tensor, inputs: FlowInputs, amount: float
) -> Tensor:
    """Pull the spread of the guided data towards the conditional one, per asset."""
    x_0 = compute_data(x, guided, t)
    lengths = list(inputs.structure.lengths)
    conditional = torch.split(compute_data(x, positive, t), lengths)
    ratios = [
        c.std(correction=0) / g.std(correction=0)
        for c, g in zip(conditional, torch.split(x_0, lengths), strict=True)
    ]
    ratio = inputs.layout.kept_lengths.spread_per_asset(torch.stack(ratios)[:, None])
    return compute_velocity(x, amount * (x_0 * ratio) + (1.0 - amount) * x_0, t)
