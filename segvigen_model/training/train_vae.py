r"""Train the shape and the texture autoencoder together on whole voxelised objects.

    python -m segvigen_model.training.train_vae --data FOLDER --out RUN \
        --preset default --minutes 15

MSE leads the colour loss (L1 alone learns brightness and no hue), the KL term is small. Decoders
follow the encoder's voxels; the shape decoder also learns to predict them. Ends by measuring the
latents' mean and spread and writing a bundle with an untrained transformer to RUN/model.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from segvigen_model.checkpoints import native
from segvigen_model.datasets.voxel_samples import Sample, list_shards, load_shard
from segvigen_model.evaluation.metrics import compute_mask_iou
from segvigen_model.model.bundle import Normalization, SegviGenModel, build_model_from_config
from segvigen_model.model.presets import PRESETS, ModelConfig
from segvigen_model.sparse.structure import Structure
from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.training.colorings import (
    draw_coloring,
    make_mask_features,
    make_palette_features,
)
from segvigen_model.training.runs import MODEL_FOLDER, Average, Run, compute_warm_cosine, set_rate
from segvigen_model.vae.decoder import Decoder, compute_subdivision_loss
from segvigen_model.vae.encoder import Encoder
from segvigen_model.vae.shape import decode_shape_voxels, encode_shape_features

KL_WEIGHT = 3e-4
L1_WEIGHT = 0.1
SHAPE_EVERY = 3  # the texture codec is the harder one and gets the other steps
GRADIENT_LIMIT = 1.0
NUM_VALIDATION = 24

Card = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """How to train.

    Attributes:
        minutes: wall time of this call.
        total_steps: length of the learning-rate schedule.
        batch_size: objects a step.
        rate: peak learning rate.
        seed: of batches and colourings.
        device: torch device.
    """

    minutes: float
    total_steps: int
    batch_size: int = 3
    rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"


def build_structure(samples: Sequence[Sample], device: str) -> Structure:
    """Voxels of a batch."""
    rows = [
        np.insert(s.coords.astype(np.int32), 0, index, axis=1) for index, s in enumerate(samples)
    ]
    return Structure(torch.from_numpy(np.concatenate(rows)).to(device), len(samples))


def build_shape_inputs(samples: Sequence[Sample]) -> Tensor:
    """(N, 6) shape features of a batch."""
    dual = np.concatenate([s.dual for s in samples]).astype(np.float32) / 255.0
    flags = np.concatenate([s.flags for s in samples]).astype(np.float32)
    return encode_shape_features(torch.from_numpy(dual), torch.from_numpy(flags))


def compute_texture_loss(encoder: Encoder, decoder: Decoder, x: SparseTensor) -> dict[str, Tensor]:
    """Reconstruction and KL of texture features (N, 6)."""
    posterior = encoder(x)
    out = decoder(posterior.sample()).voxels.feats.float()
    gap = out - x.feats
    mse, l1 = gap[:, :3].square().mean(), gap[:, :3].abs().mean()
    rest = gap[:, 3:].square().mean()
    total = 2 * mse + L1_WEIGHT * l1 + 0.2 * rest + KL_WEIGHT * posterior.compute_kl()
    return {"tex_loss": total, "tex_mse": mse}


def compute_shape_loss(encoder: Encoder, decoder: Decoder, x: SparseTensor) -> dict[str, Tensor]:
    """Dual vertices, crossed edges, subdivision and KL of shape features (N, 6)."""
    posterior = encoder(x)
    decoded = decoder(posterior.sample())
    voxels = decode_shape_voxels(decoded.voxels)
    dual = (voxels.dual.float() - x.feats[:, :3] - 0.5).square().mean()
    flags = F.binary_cross_entropy_with_logits(
        voxels.intersected_logits.float(), (x.feats[:, 3:] > 0).float()
    )
    subdivision = compute_subdivision_loss(decoded)
    total = 10 * dual + 0.3 * flags + 0.3 * subdivision + KL_WEIGHT * posterior.compute_kl()
    return {"shape_loss": total, "dual_mse": dual, "flags": flags, "subdivision": subdivision}


@torch.no_grad()
def score_codec(
    encoder: Encoder, decoder: Decoder, samples: Sequence[Sample], device: str, seed: int = 0
) -> dict[str, float]:
    """Round trip of masks and palettes: mask IoU and share of voxels with the right colour."""
    rng = np.random.default_rng(seed)
    ious, right = [], []
    for sample in samples:
        structure = build_structure([sample], device)
        mask = sample.labels == rng.integers(int(sample.labels.max()) + 1)
        out = run_round_trip(encoder, decoder, make_mask_features(mask), structure)
        painted = (out[:, :3].mean(1) > 0).numpy()
        ious.append(compute_mask_iou(painted, mask, np.ones(len(mask))))
        target = make_palette_features(sample.labels.astype(int), rng)
        out = run_round_trip(encoder, decoder, target, structure)
        palette = torch.unique(target[:, :3], dim=0)
        nearest = torch.cdist(out[:, :3], palette).argmin(1)
        truth = torch.cdist(target[:, :3], palette).argmin(1)
        right.append((nearest == truth).float().mean().item())
    return {"mask_iou": float(np.mean(ious)), "palette_accuracy": float(np.mean(right))}


def run_round_trip(
    encoder: Encoder, decoder: Decoder, feats: Tensor, structure: Structure
) -> Tensor:
    """Decode the posterior mean of (N, 6) features, back on the CPU."""
    posterior = encoder(SparseTensor(feats.to(structure.device), structure))
    out: Tensor = decoder(posterior.mean).voxels.feats.float().cpu()
    return out


class Codec(nn.Module):
    """The four halves under one roof, so that one state file holds them."""

    def __init__(
        self,
        shape_encoder: Encoder,
        shape_decoder: Decoder,
        tex_encoder: Encoder,
        tex_decoder: Decoder,
    ) -> None:
        super().__init__()
        self.shape_encoder, self.shape_decoder = shape_encoder, shape_decoder
        self.tex_encoder, self.tex_decoder = tex_encoder, tex_decoder


def compute_codec_step(
    codec: Codec, batch: Sequence[Sample], step: int, rng: np.random.Generator, device: str
) -> dict[str, Tensor]:
    """Losses of one step: shape every SHAPE_EVERY-th, else texture."""
    structure = build_structure(batch, device)
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        if step % SHAPE_EVERY == 0:
            x = SparseTensor(build_shape_inputs(batch).to(device), structure)
            return compute_shape_loss(codec.shape_encoder, codec.shape_decoder, x)
        feats = torch.cat([draw_coloring(sample, rng) for sample in batch])
        return compute_texture_loss(
            codec.tex_encoder, codec.tex_decoder, SparseTensor(feats.to(device), structure)
        )


def train_codec(
    codec: Codec, run: Run, data: Path, options: CodecOptions, *, report_every: int = 100
) -> dict[str, float]:
    """Train until the minutes or the steps are used up.

    Args:
        codec: four halves, changed in place; ends with the averaged weights.
        run: folder and position; resumed when it has a state.
        data: folder of shards.
        options: how.
        report_every: steps between reports.

    Returns:
        Last validation scores.
    """
    codec.to(options.device)
    optimizer = torch.optim.AdamW(codec.parameters(), options.rate, (0.9, 0.98), weight_decay=1e-4)
    average = Average(codec, 0.998)
    run.resume(codec, optimizer, average)
    rng = np.random.default_rng([options.seed, run.step])
    torch.manual_seed(options.seed + run.step)
    samples, held = load_samples(data, "train"), load_samples(data, "validation")[:NUM_VALIDATION]
    sums: dict[str, list[float]] = {}
    scores: dict[str, float] = {}
    end = time.monotonic() + 60 * options.minutes
    bar = tqdm(total=options.total_steps, initial=run.step, desc="codec", mininterval=10)
    while run.step < options.total_steps and time.monotonic() < end:
        set_rate(optimizer, options.rate * compute_warm_cosine(run.step, options.total_steps))
        batch = [samples[i] for i in rng.choice(len(samples), options.batch_size)]
        for name, value in optimise_step(codec, optimizer, batch, run.step, rng).items():
            sums.setdefault(name, []).append(value)
        run.step += 1
        average.update(codec, run.step)
        bar.update()
        if run.step % report_every == 0:
            run.report(**{k: float(np.mean(v)) for k, v in sums.items()})
            sums = {}
        if run.step % (5 * report_every) == 0:
            scores = validate_codec(codec, average, held, run)
            run.save(codec, optimizer, average)
            samples = load_samples(data, "train")  # a generator may still be adding shards
    scores = validate_codec(codec, average, held, run)
    run.save(codec, optimizer, average)
    average.swap(codec)
    return scores


def optimise_step(
    codec: Codec,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Sample],
    step: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One optimiser step; returns its losses."""
    device = str(next(codec.parameters()).device)
    losses = compute_codec_step(codec, batch, step, rng, device)
    optimizer.zero_grad(set_to_none=True)
    next(iter(losses.values())).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(codec.parameters(), GRADIENT_LIMIT)
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def validate_codec(
    codec: Codec, average: Average, held: Sequence[Sample], run: Run
) -> dict[str, float]:
    """Score the moving average on validation samples and report it."""
    device = str(next(codec.parameters()).device)
    average.swap(codec)
    scores = score_codec(codec.tex_encoder, codec.tex_decoder, held, device)
    average.swap(codec)
    run.report(**scores)
    return scores


def load_samples(data: Path, split: str) -> list[Sample]:
    """All samples of a split's finished shards."""
    return [sample for path in list_shards(data, split) for sample in load_shard(path)]


@torch.no_grad()
def measure_normalization(
    codec: Codec, samples: Sequence[Sample], device: str, seed: int = 0
) -> Normalization:
    """Mean and spread of shape latents, and of texture latents over all kinds of colourings."""
    rng = np.random.default_rng(seed)
    shapes, textures = [], []
    for start in range(0, len(samples), 8):
        batch = samples[start : start + 8]
        structure = build_structure(batch, device)
        x = SparseTensor(build_shape_inputs(batch).to(device), structure)
        shapes.append(codec.shape_encoder(x).mean.feats)
        feats = torch.cat([draw_coloring(sample, rng) for sample in batch])
        x = SparseTensor(feats.to(device), structure)
        textures.append(codec.tex_encoder(x).mean.feats)
    shape, tex = torch.cat(shapes).float().cpu(), torch.cat(textures).float().cpu()
    return Normalization(shape.mean(0), shape.std(0), tex.mean(0), tex.std(0))


def build_codec_model(
    config: ModelConfig, codec: Codec, norm: Normalization, card: Card
) -> SegviGenModel:
    """A bundle that holds the trained halves and an untrained transformer."""
    model = build_model_from_config(config)
    for name, half in codec.named_children():
        getattr(model, name).load_state_dict(half.state_dict())
    return replace(model, normalization=norm, card=card)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="default", choices=sorted(PRESETS))
    parser.add_argument("--grid", type=int, help="of the data; the preset's own when left out")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    preset = PRESETS[args.preset]
    config = replace(preset, grid=args.grid or preset.grid)
    model = build_model_from_config(config, seed=args.seed)
    codec = Codec(model.shape_encoder, model.shape_decoder, model.tex_encoder, model.tex_decoder)
    options = CodecOptions(args.minutes, args.steps, args.batch, args.rate, args.seed, args.device)
    run = Run(args.out)
    scores = train_codec(codec, run, args.data, options)
    samples = load_samples(args.data, "train")[:400]
    norm = measure_normalization(codec, samples, args.device)
    card = {"codec": {"steps": run.step, "seed": args.seed, "batch": args.batch, **scores}}
    codec.to("cpu")
    native.save_model(
        build_codec_model(config, codec, norm, card), args.out / MODEL_FOLDER, is_half=False
    )


if __name__ == "__main__":
    main()
