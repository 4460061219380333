r"""Train the segmentation flow on latents of a trained codec.

    python -m segvigen_model.training.train_flow --codec RUN/model --data FOLDER \
        --out RUN --minutes 40

Official v-prediction and click tokens. Most interactive questions are asked at t = 1 from zero
noise (the one-step answer that clicks use); full mode is diffusion over random palettes; every
GUIDED_EVERY-th batch is guided by a painted view. The learning rate follows whichever is further,
steps or minutes. The best moving average by validation IoU stands in RUN/model.
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
from segvigen_model.checkpoints.loading import load_model
from segvigen_model.datasets.voxel_samples import Sample, list_shards, load_shard
from segvigen_model.evaluation.metrics import compute_mask_iou
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.presets import ModelConfig
from segvigen_model.slat_flow.conditioning import make_click_tokens, stack_clicks
from segvigen_model.slat_flow.sampler import compute_velocity_target, mix_noise, sample_in_one_step
from segvigen_model.slat_flow.segmentation import SegmentationFlow
from segvigen_model.sparse.structure import Structure
from segvigen_model.sparse.tensor import SparseTensor
from segvigen_model.training.colorings import make_natural_features
from segvigen_model.training.flow_tasks import (
    Question,
    choose_part,
    make_full_question,
    make_guided_question,
    make_interactive_question,
)
from segvigen_model.training.runs import MODEL_FOLDER, Average, Run, compute_warm_cosine, set_rate
from segvigen_model.training.train_vae import build_shape_inputs, build_structure

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


def fold_to_latent(structure: Structure, num_levels: int) -> Structure:
    """Fold voxels to the latent grid."""
    for _ in range(num_levels):
        structure = structure.fold()
    return structure


@torch.no_grad()
def encode_items(
    model: SegviGenModel, samples: Sequence[Sample], batch_size: int = 16
) -> list[Item]:
    """Compute the latents of samples once."""
    device, items = str(model.device), []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        structure = build_structure(batch, device)
        x = SparseTensor(build_shape_inputs(batch).to(device), structure)
        feats = torch.cat([make_natural_features(sample) for sample in batch]).to(device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            shapes = model.shape_encoder(x).mean
            textures = model.tex_encoder(SparseTensor(feats, structure)).mean
        sizes = list(shapes.lengths)
        shape = model.normalization.normalize_shape(shapes.feats.float()).cpu()
        texture = model.normalization.normalize_tex(textures.feats.float()).cpu()
        parts = zip(batch, torch.split(shape, sizes), torch.split(texture, sizes), strict=True)
        items += [Item(s, a, b, find_cells(s, model.config.factor)) for s, a, b in parts]
    return items


def find_cells(sample: Sample, factor: int) -> Tensor:
    """(N,) latent row of every voxel, rows in ascending order of cell."""
    cells = sample.coords // factor
    return torch.from_numpy(np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1))


def draw_questions(
    items: Sequence[Item], config: ModelConfig, step: int, rng: np.random.Generator
) -> list[Question]:
    """Draw one question per item; a batch is guided as a whole or not at all."""
    if config.flow.view is not None and step % GUIDED_EVERY == GUIDED_EVERY - 1:
        return [make_guided_question(item.sample, config.grid, rng) for item in items]
    return [
        make_full_question(item.sample, rng)
        if rng.random() < FULL_SHARE
        else make_interactive_question(item.sample, config.factor, rng)
        for item in items
    ]


def compute_flow_loss(
    model: SegviGenModel, items: Sequence[Item], questions: Sequence[Question]
) -> Tensor:
    """(B,) mean weighted squared velocity error of each question."""
    device = str(model.device)
    structure = build_structure([item.sample for item in items], device)
    with torch.no_grad():
        target = torch.cat([q.target for q in questions]).to(device)
        latents = model.tex_encoder(SparseTensor(target, structure)).mean
        x_0 = model.normalization.normalize_tex(latents.feats.float())
    lengths = torch.tensor(latents.lengths, device=device)
    times = torch.tensor([q.t for q in questions], device=device)
    noisy = torch.tensor([float(q.is_noisy) for q in questions], device=device)
    noise = torch.randn_like(x_0) * noisy.repeat_interleave(lengths)[:, None]
    x_t = mix_noise(x_0, noise, times.repeat_interleave(lengths)[:, None])
    views = [q.view for q in questions if q.view is not None]
    inputs = model.dit.prepare(
        latents.structure,
        torch.cat([item.shape for item in items]).to(device),
        torch.cat([item.texture for item in items]).to(device),
        cond=model.dit.encode_view(torch.stack(views).to(device)) if views else None,
        clicks=stack_clicks([q.clicks for q in questions]),
        task=torch.tensor([int(q.task) for q in questions], device=device),
    )
    velocity = model.dit(x_t, times, inputs)
    error = (velocity.float() - compute_velocity_target(x_0, noise)).square().mean(1)
    weight = torch.cat([compute_cell_weight(i, q) for i, q in zip(items, questions, strict=True)])
    parts = (error * weight.to(device)).split(latents.lengths)
    return torch.stack([part.mean() for part in parts])


def compute_cell_weight(item: Item, question: Question) -> Tensor:
    """(T,) mean voxel weight of each latent cell, scaled to mean 1."""
    total = torch.zeros(len(item.shape)).index_add(0, item.cells, torch.from_numpy(question.weight))
    mean = total / torch.bincount(item.cells, minlength=len(item.shape))
    return mean / mean.mean()


@torch.no_grad()
def score_clicks(model: SegviGenModel, items: Sequence[Item], seed: int = 0) -> dict[str, float]:
    """Voxel IoU of the one-step answer to 1, 3, 5 and 10 positive clicks on a random part."""
    counts = (1, 3, 5, 10)
    table: dict[int, list[float]] = {n: [] for n in counts}
    threshold = model.config.segmenter.clicks.mask_threshold
    rng = np.random.default_rng(seed)
    for item in items:
        sample = item.sample
        mask = sample.labels == choose_part(sample.labels.astype(int), rng)
        rows = rng.choice(np.flatnonzero(mask), max(counts))
        cells = sample.coords[rows].astype(np.int32) // model.config.factor
        for n in counts:
            painted = predict_click_mask(model, item, cells[:n]) > threshold
            table[n].append(compute_mask_iou(painted, mask, np.ones(len(mask))))
    return {f"iou@{n}": float(np.mean(values)) for n, values in table.items()}


@torch.no_grad()
def predict_click_mask(
    model: SegviGenModel, item: Item, cells: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """(N,) probability per voxel after positive clicks in latent cells (K, 3)."""
    device = str(model.device)
    structure = fold_to_latent(build_structure([item.sample], device), model.config.num_levels)
    inputs = model.dit.prepare(
        structure,
        item.shape.to(device),
        item.texture.to(device),
        clicks=make_click_tokens(cells, np.ones(len(cells), bool)),
        task=torch.zeros(1, dtype=torch.long, device=device),
    )
    latents = model.normalization.denormalize_tex(sample_in_one_step(model.dit, inputs).float())
    out = model.tex_decoder(SparseTensor(latents, structure)).voxels.feats
    values: np.ndarray[Any, Any] = (out[:, :3].float().mean(1) / 2 + 0.5).cpu().numpy()
    return values


class Feed:
    """The growing list of samples; takes in new shards when asked, encodes on first use."""

    def __init__(self, model: SegviGenModel, folder: Path, split: str) -> None:
        self.model, self.folder, self.split = model, folder, split
        self.seen: set[Path] = set()
        self.samples: list[Sample] = []
        self.known: dict[int, Item] = {}
        self.refresh()

    def refresh(self) -> None:
        """Load shards that were not there before."""
        for path in list_shards(self.folder, self.split):
            if path not in self.seen:
                self.samples += load_shard(path)
                self.seen.add(path)

    def take_items(self, indices: Sequence[int]) -> list[Item]:
        """Items by index; training begins at once instead of after encoding everything."""
        missing = sorted({i for i in indices if i not in self.known})
        fresh = encode_items(self.model, [self.samples[i] for i in missing])
        self.known.update(zip(missing, fresh, strict=True))
        return [self.known[i] for i in indices]

    def draw_items(self, count: int, rng: np.random.Generator) -> list[Item]:
        """A random batch."""
        return self.take_items(rng.choice(len(self.samples), count).tolist())


def train_flow(
    model: SegviGenModel, run: Run, data: Path, options: FlowOptions
) -> dict[str, float]:
    """Train until the minutes or the steps are used up.

    Args:
        model: trained codec and the flow, which is changed in place.
        run: folder and position; resumed when it has a state.
        data: folder of shards.
        options: how.

    Returns:
        The last validation scores.
    """
    flow = model.dit.train()
    for parameter in flow.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(flow.parameters(), options.rate, (0.9, 0.95), weight_decay=0.01)
    average = Average(flow, options.decay)
    run.resume(flow, optimizer, average)
    rng = np.random.default_rng([options.seed, run.step])
    torch.manual_seed(options.seed + run.step)
    feed, held = Feed(model, data, "train"), Feed(model, data, "validation")
    judged = held.take_items(range(min(NUM_VALIDATION, len(held.samples))))
    start, scores = time.monotonic(), {}
    losses: list[float] = []
    bar = tqdm(total=options.total_steps, initial=run.step, desc="flow", mininterval=15)
    while (share := compute_progress(run.step, start, options)) < 1:
        set_rate(
            optimizer, options.rate * compute_warm_cosine(int(1e4 * share), 10_000, warmup=200)
        )
        losses.append(
            run_flow_step(model, optimizer, feed.draw_items(options.batch_size, rng), run.step, rng)
        )
        run.step += 1
        average.update(flow, run.step)
        bar.update()
        if run.step % options.report_every == 0:
            run.report(loss=float(np.mean(losses)))
            losses = []
        if run.step % (5 * options.report_every) == 0:
            scores = validate(model, run, average, judged)
            run.save(flow, optimizer, average)
            feed.refresh()
    scores = validate(model, run, average, judged)
    run.save(flow, optimizer, average)
    return scores


def compute_progress(step: int, start: float, options: FlowOptions) -> float:
    """Share of the run that is over, by steps or by the clock, whichever is further."""
    clock = (time.monotonic() - start) / (60 * options.minutes)
    return max(step / options.total_steps, clock)


def run_flow_step(
    model: SegviGenModel,
    optimizer: torch.optim.Optimizer,
    items: Sequence[Item],
    step: int,
    rng: np.random.Generator,
) -> float:
    """One optimiser step; returns the loss."""
    questions = draw_questions(items, model.config, step, rng)
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = compute_flow_loss(model, items, questions).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.dit.parameters(), GRADIENT_LIMIT)
    optimizer.step()
    return loss.item()


def validate(
    model: SegviGenModel, run: Run, average: Average, items: Sequence[Item]
) -> dict[str, float]:
    """Score the moving average; the best so far is written to RUN/model."""
    average.swap(model.dit)
    model.dit.eval()
    scores = score_clicks(model, items)
    run.report(**scores)
    score = float(np.mean(list(scores.values())))
    if score > run.best:
        run.best = score
        card = {**model.card, "flow": {"steps": run.step, "validation": scores}}
        native.save_model(replace(model, card=card), run.folder / MODEL_FOLDER)
    average.swap(model.dit)
    model.dit.train()
    return scores


def replace_flow(
    model: SegviGenModel, *, width: int, depth: int, heads: int, seed: int
) -> SegviGenModel:
    """Put a fresh flow of another size on a trained codec."""
    old = model.config.flow
    flow = replace(old.flow, model_channels=width, num_blocks=depth, num_heads=heads)
    config = replace(model.config, flow=replace(old, flow=flow))
    torch.manual_seed(seed)
    return replace(model, dit=SegmentationFlow(config.flow), config=config)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", type=Path, required=True, help="model folder")
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
    model = load_model(args.codec)
    if args.width:
        model = replace_flow(
            model, width=args.width, depth=args.depth, heads=args.heads, seed=args.seed
        )
    for module in model.list_modules().values():
        module.to(args.device).requires_grad_(False)
    model = replace(model, normalization=model.normalization.to(args.device))
    options = FlowOptions(
        args.minutes, args.steps, args.batch, args.rate, seed=args.seed, device=args.device
    )
    train_flow(model, Run(args.out), args.data, options)


if __name__ == "__main__":
    main()
