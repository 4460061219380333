"""How long the network takes on this machine: `python tests/bench/bench_network.py`.

Sampling with everything reused against the naive form (everything made anew at every step, all
tokens through the last block), and the sparse convolution forward and backward.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from segvigen_model.model.bundle import build_model
from segvigen_model.slat_flow.blocks import TokenLayout
from segvigen_model.slat_flow.conditioning import make_click_tokens
from segvigen_model.slat_flow.sampler import (
    SamplerOptions,
    compute_schedule,
    draw_noise,
    sample_latents,
)
from segvigen_model.sparse.conv_native import convolve_native
from segvigen_model.sparse.structure import Structure, fold_levels


def shell(grid: int, radius: float) -> Structure:
    """Voxels of a thin sphere."""
    cells = torch.cartesian_prod(*[torch.arange(grid)] * 3)
    distance = (cells - (grid - 1) / 2).norm(dim=1)
    return Structure(
        torch.nn.functional.pad(cells[(distance - radius).abs() < 0.8], (1, 0)).to(torch.int32)
    )


def best_ms(run: Callable[[], object], repeats: int) -> float:
    """Least CPU time of some runs, after one to warm up; other work on the machine counts less."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) * 1e3


@torch.no_grad()
def naive_sample(flow, structure, shape, tex, cond, clicks, noise, steps: int) -> torch.Tensor:
    """Make inputs, rotations and condition keys anew per step; compute every token's output."""
    x = noise
    times = compute_schedule(steps, 3.0)
    for t, t_next in pairwise(times):
        inputs = flow.prepare(structure, shape, tex, cond=cond, clicks=clicks)
        rows = inputs.static.clone()
        rows[: len(x), : x.shape[1]] = x
        model = flow.flow_model
        tokens = torch.cat([model.input_layer(rows), inputs.click_feats])[inputs.order]
        coords = torch.cat([structure.coords[:, 1:]] * 2 + [clicks.coords])
        layout = TokenLayout(coords, (len(tokens),), model.config.head_dim)
        modulation = model.compute_modulation(torch.full((1,), float(t) * 1000))
        out = model.run_blocks(tokens, modulation, inputs.context, layout)
        x = x - float(t - t_next) * out[inputs.layout.kept]
    return x


def bench_sampler(preset: str, steps: int, repeats: int) -> None:
    model = build_model(preset)
    channels = model.config.latent_channels
    top = fold_levels(shell(model.config.grid, model.config.grid / 3.2).coords, 2)
    shape, tex = (draw_noise(len(top), channels, seed) for seed in (0, 1))
    cond = draw_noise(64, model.config.flow.flow.cond_channels, 2)[None]
    clicks = make_click_tokens(np.array([[1, 2, 3]]), np.array([True]))
    noise, flow = draw_noise(len(top), channels, 3), model.dit
    options = SamplerOptions(num_steps=steps)

    def reused() -> torch.Tensor:
        inputs = flow.prepare(top, shape, tex, cond=cond, clicks=clicks)
        return sample_latents(flow, inputs, noise, options)

    def naive() -> torch.Tensor:
        return naive_sample(flow, top, shape, tex, cond, clicks, noise, steps)

    assert torch.allclose(reused(), naive(), atol=1e-4)
    times = best_ms(reused, repeats), best_ms(naive, repeats)
    print(
        f"sampler preset={preset} tokens={len(top)} steps={steps} threads="
        f"{torch.get_num_threads()} reused_cpu_ms={times[0]:.0f} naive_cpu_ms={times[1]:.0f}"
    )


def bench_conv(repeats: int) -> None:
    structure = shell(64, 20)
    neighbours = structure.neighbours
    for dtype in (torch.float32, torch.bfloat16):
        feats = torch.randn(len(structure), 32, dtype=dtype, requires_grad=True)
        weight = torch.randn(32, 3, 3, 3, 32, dtype=dtype, requires_grad=True)

        def both(feats=feats, weight=weight) -> None:
            convolve_native(feats, weight, neighbours).sum().backward()

        with torch.no_grad():
            forward = best_ms(lambda f=feats, w=weight: convolve_native(f, w, neighbours), repeats)
        print(
            f"conv voxels={len(structure)} channels=32 dtype={dtype} "
            f"forward_cpu_ms={forward:.1f} both_cpu_ms={best_ms(both, repeats):.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench_conv(args.repeats)
    bench_sampler(args.preset, args.steps, args.repeats)


if __name__ == "__main__":
    main()
