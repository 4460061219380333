r"""Train the segmentation flow on latents of a trained codec.

    python -m segvigen_model.training.train_flow --codec RUN/bundle --data FOLDER \
        --out RUN --minutes 40

Official v-prediction and click tokens. Most interactive questions are asked at t = 1 from zero
noise (the one-step answer that clicks use); full mode is diffusion over random palettes; every
GUIDED_EVERY-th batch is guided by a painted view. The learning rate follows whichever is further,
steps or minutes. The best moving average by validation IoU stands in RUN/bundle.
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
from torch import Tensor, nn
from tqdm import tqdm

from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.loading import load
from segvigen_model.datasets.voxel_samples import Sample, load_shard, shard_paths
from segvigen_model.model.bundle import Bundle
from segvigen_model.model.presets import ModelConfig
from segvigen_model.slat_flow.conditioning import click_tokens, stack_clicks
from segvigen_model.slat_flow.sampler import noisy_latents, one_step, velocity_target
from segvigen_model.slat_flow.segmentation import SegmentationFlow
from segvigen_model.sparse.structure import Structure
from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.training.colorings import natural_features
from segvigen_model.training.flow_tasks import (
    Question,
    choose_part,
    full_question,
    guided_question,
    interactive_question,
)
from segvigen_model.training.runs import Average, Run, set_rate, warm_cosine
from segvigen_model.training.train_vae import shape_inputs, structure_of

FULL_SHARE = 0.2
GUIDED_EVERY = 16
GRADIENT_LIMIT = 1.0
NUM_VALIDATION = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """How to train.

    Attributes:
        minutes: wall time of this call.
        total_steps: length of the schedule.
        batch_size: questions a step.
        rate: peak learning rate.
        decay: of the moving average.
        seed: of everything.
        device: torch device.
        report_every: steps between reports; every fifth also validates and saves.
    """

    minutes: float
    total_steps: int
    batch_size: int = 12
    rate: float = 1e-3
    decay: float = 0.999
    seed: int = 0
    device: str = "cpu"
    report_every: int = 50


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A sample with its (normalised) latents.

    Attributes:
        sample: voxels and labels.
        shape, texture: (T, C) float32 on the CPU, of the object as it is.
        cells: (N,) int64 latent row of every voxel.
    """

    sample: Sample
    shape: Tensor
    texture: Tensor
    cells: Tensor


def latent_structure(structure: Structure, num_levels: int) -> Structure:
    """Fold voxels to the latent grid."""
    for _ in range(num_levels):
        structure = structure.fold()
    return structure


@torch.no_grad()
def encode_items(bundle: Bundle, samples: Sequence[Sample], batch_size: int = 16) -> list[Item]:
    """Compute the latents of samples once."""
    device, items = str(bundle.device), []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        structure = structure_of(batch, device)
        x = SparseTensor(shape_inputs(batch).to(device), structure)
        feats = torch.cat([natural_features(sample) for sample in batch]).to(device)
        with torch.autocast(bundle.device.type, dtype=torch.bfloat16):
            shapes = bundle.shape_encoder(x).mean
            textures = bundle.tex_encoder(SparseTensor(feats, structure)).mean
        sizes = list(shapes.lengths)
        shape = bundle.normalization.normalize_shape(shapes.feats.float()).cpu()
        texture = bundle.normalization.normalize_tex(textures.feats.float()).cpu()
        parts = zip(batch, torch.split(shape, sizes), torch.split(texture, sizes), strict=True)
        items += [Item(s, a, b, cells_of(s, bundle.config.factor)) for s, a, b in parts]
    return items


def cells_of(sample: Sample, factor: int) -> Tensor:
    """(N,) latent row of every voxel, rows in ascending order of cell."""
    cells = sample.coords // factor
    return torch.from_numpy(np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1))


def ask(
    items: Sequence[Item], config: ModelConfig, step: int, rng: np.random.Generator
) -> list[Question]:
    """Draw one question per item; a batch is guided as a whole or not at all."""
    if config.flow.view is not None and step % GUIDED_EVERY == GUIDED_EVERY - 1:
        return [guided_question(item.sample, config.grid, rng) for item in items]
    return [
        full_question(item.sample, rng)
        if rng.random() < FULL_SHARE
        else interactive_question(item.sample, config.factor, rng)
        for item in items
    ]


def flow_loss(bundle: Bundle, items: Sequence[Item], questions: Sequence[Question]) -> Tensor:
    """(B,) mean weighted squared velocity error of each question."""
    device = str(bundle.device)
    structure = structure_of([item.sample for item in items], device)
    with torch.no_grad():
        target = torch.cat([q.target for q in questions]).to(device)
        latents = bundle.tex_encoder(SparseTensor(target, structure)).mean
        x_0 = bundle.normalization.normalize_tex(latents.feats.float())
    lengths = torch.tensor(latents.lengths, device=device)
    times = torch.tensor([q.t for q in questions], device=device)
    noisy = torch.tensor([float(q.is_noisy) for q in questions], device=device)
    noise = torch.randn_like(x_0) * noisy.repeat_interleave(lengths)[:, None]
    x_t = noisy_latents(x_0, noise, times.repeat_interleave(lengths)[:, None])
    views = [q.view for q in questions if q.view is not None]
    inputs = bundle.dit.prepare(
        latents.structure,
        torch.cat([item.shape for item in items]).to(device),
        torch.cat([item.texture for item in items]).to(device),
        cond=bundle.dit.encode_view(torch.stack(views).to(device)) if views else None,
        clicks=stack_clicks([q.clicks for q in questions]),
        task=torch.tensor([int(q.task) for q in questions], device=device),
    )
    velocity = bundle.dit(x_t, times, inputs)
    error = (velocity.float() - velocity_target(x_0, noise)).square().mean(1)
    weight = torch.cat([cell_weight(i, q) for i, q in zip(items, questions, strict=True)])
    parts = (error * weight.to(device)).split(latents.lengths)
    return torch.stack([part.mean() for part in parts])


def cell_weight(item: Item, question: Question) -> Tensor:
    """(T,) mean voxel weight of each latent cell, scaled to mean 1."""
    total = torch.zeros(len(item.shape)).index_add(0, item.cells, torch.from_numpy(question.weight))
    mean = total / torch.bincount(item.cells, minlength=len(item.shape))
    return mean / mean.mean()


@torch.no_grad()
def click_scores(bundle: Bundle, items: Sequence[Item], seed: int = 0) -> dict[str, float]:
    """Voxel IoU of the one-step answer to 1, 3, 5 and 10 positive clicks on a random part."""
    counts = (1, 3, 5, 10)
    table: dict[int, list[float]] = {n: [] for n in counts}
    threshold = bundle.config.segmenter.clicks.mask_threshold
    rng = np.random.default_rng(seed)
    for item in items:
        sample = item.sample
        mask = sample.labels == choose_part(sample.labels.astype(int), rng)
        rows = rng.choice(np.flatnonzero(mask), max(counts))
        cells = sample.coords[rows].astype(np.int32) // bundle.config.factor
        for n in counts:
            painted = click_answer(bundle, item, cells[:n]) > threshold
            union = (painted | mask).sum()
            table[n].append(float((painted & mask).sum() / max(1, union)))
    return {f"iou@{n}": float(np.mean(values)) for n, values in table.items()}


@torch.no_grad()
def click_answer(bundle: Bundle, item: Item, cells: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N,) probability per voxel after positive clicks in latent cells (K, 3)."""
    device = str(bundle.device)
    structure = latent_structure(structure_of([item.sample], device), bundle.config.num_levels)
    inputs = bundle.dit.prepare(
        structure,
        item.shape.to(device),
        item.texture.to(device),
        clicks=click_tokens(cells, np.ones(len(cells), bool)),
        task=torch.zeros(1, dtype=torch.long, device=device),
    )
    latents = bundle.normalization.denormalize_tex(one_step(bundle.dit, inputs).float())
    out = bundle.tex_decoder(SparseTensor(latents, structure)).voxels.feats
    values: np.ndarray[Any, Any] = (out[:, :3].float().mean(1) / 2 + 0.5).cpu().numpy()
    return values


class Feed:
    """The growing list of samples; takes in new shards when asked, encodes on first use."""

    def __init__(self, bundle: Bundle, folder: Path, split: str) -> None:
        self.bundle, self.folder, self.split = bundle, folder, split
        self.seen: set[Path] = set()
        self.samples: list[Sample] = []
        self.known: dict[int, Item] = {}
        self.refresh()

    def refresh(self) -> None:
        """Load shards that were not there before."""
        for path in shard_paths(self.folder, self.split):
            if path not in self.seen:
                self.samples += load_shard(path)
                self.seen.add(path)

    def take(self, indices: Sequence[int]) -> list[Item]:
        """Items by index; training begins at once instead of after encoding everything."""
        missing = sorted({i for i in indices if i not in self.known})
        fresh = encode_items(self.bundle, [self.samples[i] for i in missing])
        self.known.update(zip(missing, fresh, strict=True))
        return [self.known[i] for i in indices]

    def draw(self, count: int, rng: np.random.Generator) -> list[Item]:
        """A random batch."""
        return self.take(rng.choice(len(self.samples), count).tolist())


def train_flow(bundle: Bundle, run: Run, data: Path, options: FlowOptions) -> dict[str, float]:
    """Train until the minutes or the steps are used up.

    Args:
        bundle: trained codec and the flow, which is changed in place.
        run: folder and position; resumed when it has a state.
        data: folder of shards.
        options: how.

    Returns:
        The last validation scores.
    """
    flow = bundle.dit.train()
    for parameter in flow.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(flow.parameters(), options.rate, (0.9, 0.95), weight_decay=0.01)
    average = Average(flow, options.decay)
    run.resume(flow, optimizer, average)
    rng = np.random.default_rng([options.seed, run.step])
    torch.manual_seed(options.seed + run.step)
    feed, held = Feed(bundle, data, "train"), Feed(bundle, data, "validation")
    judged = held.take(range(min(NUM_VALIDATION, len(held.samples))))
    start, scores = time.monotonic(), {}
    losses: list[float] = []
    bar = tqdm(total=options.total_steps, initial=run.step, desc="flow", mininterval=15)
    while (share := progress(run.step, start, options)) < 1:
        set_rate(optimizer, options.rate * warm_cosine(int(1e4 * share), 10_000, warmup=200))
        losses.append(
            flow_step(bundle, optimizer, feed.draw(options.batch_size, rng), run.step, rng)
        )
        run.step += 1
        average.update(flow, run.step)
        bar.update()
        if run.step % options.report_every == 0:
            run.report(loss=float(np.mean(losses)))
            losses = []
        if run.step % (5 * options.report_every) == 0:
            scores = validate(bundle, run, average, judged)
            run.save(flow, optimizer, average)
            feed.refresh()
    scores = validate(bundle, run, average, judged)
    run.save(flow, optimizer, average)
    return scores


def progress(step: int, start: float, options: FlowOptions) -> float:
    """Share of the run that is over, by steps or by the clock, whichever is further."""
    clock = (time.monotonic() - start) / (60 * options.minutes)
    return max(step / options.total_steps, clock)


def flow_step(
    bundle: Bundle,
    optimizer: torch.optim.Optimizer,
    items: Sequence[Item],
    step: int,
    rng: np.random.Generator,
) -> float:
    """One optimiser step; returns the loss."""
    questions = ask(items, bundle.config, step, rng)
    with torch.autocast(bundle.device.type, dtype=torch.bfloat16):
        loss = flow_loss(bundle, items, questions).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(bundle.dit.parameters(), GRADIENT_LIMIT)
    optimizer.step()
    return loss.item()


def validate(bundle: Bundle, run: Run, average: Average, items: Sequence[Item]) -> dict[str, float]:
    """Score the moving average; the best so far is written to RUN/bundle."""
    average.swap(bundle.dit)
    bundle.dit.eval()
    scores = click_scores(bundle, items)
    run.report(**scores)
    score = float(np.mean(list(scores.values())))
    if score > run.best:
        run.best = score
        card = {**bundle.card, "flow": {"steps": run.step, "validation": scores}}
        native.save(replace(bundle, card=card), run.folder / "bundle")
    average.swap(bundle.dit)
    bundle.dit.train()
    return scores


def with_flow(bundle: Bundle, *, width: int, depth: int, heads: int, seed: int) -> Bundle:
    """Put a fresh flow of another size on a trained codec."""
    old = bundle.config.flow
    flow = replace(old.flow, model_channels=width, num_blocks=depth, num_heads=heads)
    config = replace(bundle.config, flow=replace(old, flow=flow))
    torch.manual_seed(seed)
    return replace(bundle, dit=SegmentationFlow(config.flow), config=config)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, required=True, help="bundle folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, help="new flow of this width; default: the bundle's")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    bundle = load(args.codec)
    if args.width:
        bundle = with_flow(
            bundle, width=args.width, depth=args.depth, heads=args.heads, seed=args.seed
        )
    for module in bundle.modules().values():
        module.to(args.device).requires_grad_(False)
    bundle = replace(bundle, normalization=bundle.normalization.to(args.device))
    options = FlowOptions(
        args.minutes, args.steps, args.batch, args.rate, seed=args.seed, device=args.device
    )
    train_flow(bundle, Run(args.out), args.data, options)


if __name__ == "__main__":
    main()
