"""The released sizes with random weights on a GPU: `python tests/bench/bench_gpu.py`.

Prints a table for docs/performance.md: the flow at 4,700 latent tokens and 12 steps (seconds, peak
memory, share of the bf16 peak), both autoencoders at grid 512, both convolution backends, and
mesh to O-Voxel on the device against the CPU's kernels.
`--limit-gib 12` proves that the model fits a small card when networks visit it one by one.
Without CUDA it says so and ends well; `--device cpu --preset tiny` checks the script itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import time
from collections.abc import Callable

import torch
import trimesh
from bench_ovoxel import textured

from segvigen_model.model.offload import on_device
from segvigen_model.model.presets import PRESETS, ModelConfig
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.slat_flow import transformer
from segvigen_model.slat_flow.sampler import SamplerOptions, sample_latents
from segvigen_model.slat_flow.segmentation import SegmentationFlow
from segvigen_model.slat_flow.transformer import FlowConfig
from segvigen_model.sparse.conv import use_conv_backend
from segvigen_model.sparse.structure import Structure, fold_levels
from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.types import AssetMesh
from segvigen_model.vae import encoder as vae
from segvigen_model.vae.decoder import Decoder
from segvigen_model.vae.encoder import Encoder

COND_TOKENS = 1029
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0}  # dense
Row = tuple[str, str, str, str]


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Best seconds of some runs after one to warm up, and the peak memory in GiB."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    run()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        wait()
        best = min(best, time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return best, peak


def flow_tflop(config: FlowConfig, tokens: int, kept: int) -> float:
    """Matrix products of one evaluation, in 1e12; the last block computes `kept` rows only."""
    width, hidden = config.model_channels, int(config.model_channels * config.mlp_ratio)
    total = 0.0
    for block in range(config.num_blocks):
        rows = kept if block == config.num_blocks - 1 else tokens
        linear = rows * width * (width + width + 2 * width + 2 * hidden)  # q, out, cross, mlp
        linear += tokens * width * 2 * width  # keys and values
        attention = 2 * rows * width * (tokens + COND_TOKENS)
        total += 2 * (linear + attention)
    return total / 1e12


def surface(num: int, grid: int, device: torch.device) -> Structure:
    """About `num` voxels of a thin sphere in a grid."""
    axis = torch.arange(grid, device=device)
    parts = []
    radius = grid / 2 - 2
    thickness = max(0.5, num / (4 * torch.pi * radius**2) / 2)
    for x in axis.tolist():  # slice by slice: the full cube would need gigabytes
        yz = torch.cartesian_prod(axis, axis)
        cells = torch.cat([torch.full_like(yz[:, :1], x), yz], dim=1)
        distance = (cells - (grid - 1) / 2).float().norm(dim=1)
        parts.append(cells[(distance - radius).abs() < thickness])
    return Structure(torch.nn.functional.pad(torch.cat(parts), (1, 0)).to(torch.int32))


def bench_flow(config: ModelConfig, args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Sample with a random flow in bf16, limited in memory when asked for."""
    home = torch.device("cpu") if args.limit_gib else device
    with home:
        flow = SegmentationFlow(config.flow).eval().requires_grad_(False)
    transformer.set_torso_dtype(flow.flow_model, torch.bfloat16)
    flow.to(home)
    structure = surface(args.tokens, config.grid // config.factor, device)
    structure = Structure(structure.coords[: args.tokens])
    num, channels = len(structure), config.latent_channels
    shape, tex, noise = torch.randn(3, num, channels, device=device)
    cond = torch.randn(1, COND_TOKENS, config.flow.flow.cond_channels, device=device)
    options = SamplerOptions(num_steps=args.steps)

    def run() -> None:
        with on_device(flow, device):
            sample_latents(flow, flow.prepare(structure, shape, tex, cond=cond), noise, options)

    seconds, peak = timed(run, device, args.repeats)
    tflop = flow_tflop(config.flow.flow, 2 * num, num) * args.steps
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    top = next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
    share = "" if top is None else f"{100 * tflop / seconds / top:.0f} % of {top:.0f} TFLOP/s"
    what = f"flow, {num} tokens, {args.steps} steps, bf16"
    return [(what, f"{seconds:.2f} s", f"{peak:.1f} GiB", share or f"{tflop:.2f} TFLOP")]


def bench_autoencoders(
    config: ModelConfig, args: argparse.Namespace, device: torch.device
) -> list[Row]:
    """Encode and decode a sphere's voxels in fp16 with each convolution backend."""
    voxels = surface(args.voxels, config.grid, device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    home = torch.device("cpu") if args.limit_gib else device
    with home:
        encoder = Encoder(config.tex_encoder).eval().requires_grad_(False)
        decoder = Decoder(config.tex_decoder).eval().requires_grad_(False)
    vae.set_torso_dtype(encoder, half)
    vae.set_torso_dtype(decoder, half)
    rows: list[Row] = []
    has_spconv = device.type == "cuda" and importlib.util.find_spec("spconv") is not None
    for backend in ["native", *(["spconv"] if has_spconv else [])]:
        feats = torch.randn(len(voxels), config.tex_encoder.in_channels, device=device)

        def encode(feats: torch.Tensor = feats) -> None:
            structure = Structure(voxels.coords)
            with on_device(encoder, device):
                encoder(SparseTensor(feats, structure))

        def decode() -> None:
            top = fold_levels(voxels.coords, config.num_levels, 1)
            latents = torch.zeros(len(top), config.latent_channels, device=device)
            with on_device(decoder, device):
                decoder(SparseTensor(latents, top))

        for what, run in (("encode", encode), ("decode", decode)):
            with torch.no_grad(), use_conv_backend(backend):  # type: ignore[arg-type]
                seconds, peak = timed(run, device, args.repeats)
            label = f"texture {what}, {len(voxels)} voxels, fp16, {backend}"
            rows.append((label, f"{seconds:.2f} s", f"{peak:.1f} GiB", ""))
    return rows


def bench_ovoxel(config: ModelConfig, args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Convert two textured meshes to O-Voxels: by torch on the device, by the CPU's kernels."""
    meshes = {
        "sphere": trimesh.creation.icosphere(subdivisions=4),
        "sphere, fine": trimesh.creation.icosphere(subdivisions=7 if device.type == "cuda" else 4),
    }
    rows: list[Row] = []
    for name, mesh in meshes.items():
        asset = textured(mesh)
        for label, where, backend in (("torch", device, "torch"), ("kernels", "cpu", "compiled")):
            found = []

            def convert(
                asset: AssetMesh = asset, where: object = where, backend: str = backend
            ) -> None:
                found[:] = [mesh_to_ovoxel(asset, config.grid, where, backend)]  # type: ignore[arg-type]  # noqa: B023

            seconds, peak = timed(convert, device, args.repeats)
            count = len(found[0].coords)
            what = f"O-Voxel at {config.grid}, {name}, {asset.num_faces} faces, {count} voxels"
            memory = f"{peak:.1f} GiB" if label == "torch" else ""
            each = f"{seconds / count * 1e6:.2f} s per 1M"
            rows.append((f"{what}, {label}", f"{seconds:.2f} s", memory, each))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="trellis2_1b", choices=sorted(PRESETS))
    parser.add_argument("--tokens", type=int, default=4700)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--voxels", type=int, default=1_300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit-gib", type=float, default=None, help="pretend a smaller card")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    if args.limit_gib and device.type == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(args.limit_gib / total)
    config, rows = PRESETS[args.preset], []
    for bench in (bench_ovoxel, bench_flow, bench_autoencoders):
        rows += bench(config, args, device)
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
    where = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"device={where} torch={torch.__version__} limit_gib={args.limit_gib}\n")
    print("| what | best time | peak memory | of the peak |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
