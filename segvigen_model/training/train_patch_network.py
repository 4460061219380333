r"""Train the patch network on shards of patches.

    python -m segvigen_model.training.train_patch_network --data FOLDER [FOLDER ...] \
        --out RUN --minutes 60

Resumable; the learning rate follows the clock or the steps, whichever is further. The best moving
average by validation IoU is written to RUN/patches.safetensors. `--start` begins with weights
that are there, `--depth` with more layers than they have.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from segvigen_model.interactive.patch_network import (
    PatchNetwork,
    build_patch_tensors,
    read_patch_network,
    rename_layers,
    save_patch_network,
    with_depth,
)
from segvigen_model.training.click_sampling import (
    add_corrections,
    draw_patches,
    draw_question,
    make_click_tensors,
    rotate_example,
    thin_example,
)
from segvigen_model.training.patch_data import PatchExample, read_file
from segvigen_model.training.runs import Average, Run, compute_warm_cosine, set_rate
from segvigen_model.types import FloatArray

CORRECTED_SHARE = 0.4  # of objects: clicks on what the network got wrong
NUM_QUESTIONS = 5
AFFINITY_WEIGHT = 0.5
GRADIENT_LIMIT = 1.0
NUM_VALIDATION = 100
COUNTS = (1, 3, 5, 10)
_FEW_COMPONENTS = 1.5  # single shells have one component or two
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to train.

    Attributes:
        minutes: wall time of this call.
        total_steps: length of the schedule.
        batch: objects a step, QUESTIONS questions each.
        rate: peak learning rate.
        decay: of the moving average.
        seed: of everything.
        device: torch device.
        threads: objects at once, each on one CPU core.
        validate_every: steps between validations.
        validates_start: the weights to begin with count too: what is kept is never worse.
    """

    minutes: float
    total_steps: int = 100_000
    batch: int = 4
    rate: float = 1e-3
    decay: float = 0.998
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    validate_every: int = 500
    validates_start: bool = False


class Examples:
    """The growing list of examples of some folders and a split."""

    def __init__(self, folders: Sequence[Path], split: str) -> None:
        self.folders, self.split = folders, split
        self.seen: set[Path] = set()
        self.rows: list[PatchExample] = []
        self.refresh()

    def refresh(self) -> None:
        """Load shards that were not there before."""
        for folder in self.folders:
            for path in sorted(folder.glob(f"{self.split}-*[0-9].npz")):
                if path not in self.seen:
                    self.rows += read_file(path)
                    self.seen.add(path)


def compute_mask_loss(logits: Tensor, target: Tensor, areas: Tensor) -> Tensor:
    """(Q, A) logits and targets, (A,) areas -> scalar: cross-entropy and soft IoU,
    area-weighted."""
    entropy = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * areas).sum(1)
    # Small parts would hardly count in the entropy, whose weights are areas.
    entropy = entropy / ((target * areas).sum(1) + 1e-4).sqrt()
    chance = logits.sigmoid()
    shared = (chance * target * areas).sum(1)
    union = ((chance + target - chance * target) * areas).sum(1) + 1e-5
    return (entropy + 1.0 - shared / union).mean()


def compute_affinity_loss(logits: Tensor, example: PatchExample) -> Tensor:
    """Cross-entropy of all pairs, and of those that touch."""
    device = logits.device
    shares = torch.from_numpy(example.shares).to(device)
    target = (shares @ shares.T).clamp(0, 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    root = torch.from_numpy(example.features.areas).to(device).sqrt()
    weight = root[:, None] * root
    left, right = torch.from_numpy(example.pairs.astype(np.int64)).to(device).T
    touching = entropy[left, right].mean() if len(left) else entropy.sum() * 0
    return (entropy * weight).sum() / weight.sum() + touching


def compute_example_loss(
    network: PatchNetwork,
    example: PatchExample,
    rng: np.random.Generator,
    num_questions: int = NUM_QUESTIONS,
) -> Tensor:
    """Loss of one object with several questions."""
    device = network.mean.device
    moved = rotate_example(thin_example(example, rng), rng)
    questions = [draw_question(moved, rng) for _ in range(num_questions)]
    features = build_patch_tensors(moved.features, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        encoded = network.encode(features)
        if rng.random() < CORRECTED_SHARE:
            questions = add_corrections(network, encoded, questions, moved.features.areas, rng)
        logits = network.predict_clicks(encoded, [make_click_tensors(q, device) for q in questions])
        affinity_logits = network.predict_affinity(encoded)
    target = torch.from_numpy(np.stack([q.target for q in questions])).to(device)
    areas = torch.from_numpy(moved.features.areas).to(device)
    loss = compute_mask_loss(logits.float(), target, areas)
    return loss + AFFINITY_WEIGHT * compute_affinity_loss(affinity_logits.float(), moved)


def compute_example_gradient(
    network: PatchNetwork,
    example: PatchExample,
    seed: Sequence[int],
    num_questions: int = NUM_QUESTIONS,
) -> tuple[float, list[Tensor | None]]:
    """Loss of one object and its gradient by parameter."""
    loss = compute_example_loss(network, example, np.random.default_rng(seed), num_questions)
    gradient = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return loss.item(), list(gradient)


def validate(
    network: PatchNetwork,
    examples: list[PatchExample],
    seed: int = 0,
    pool: Executor | None = None,
) -> dict[str, float]:
    """Mean IoU on patches after 1, 3, 5 and 10 positive clicks, of single single shells and of
    others."""
    seeds = [[seed, number] for number in range(len(examples))]
    each = (pool.map if pool else map)(partial(_score_example, network), examples, seeds)
    table: dict[str, list[float]] = {}
    for scores in each:
        for name, values in scores.items():
            table.setdefault(name, []).extend(values)
    return {name: float(np.mean(values)) for name, values in sorted(table.items())}


@torch.no_grad()
def _score_example(
    network: PatchNetwork, example: PatchExample, seed: Sequence[int]
) -> dict[str, list[float]]:
    """IoU of three parts of an object by kind and count of clicks."""
    rng = np.random.default_rng(seed)
    moved = rotate_example(example, rng)
    num_components = moved.features.scalar("log_num_components")[0]
    kind = "shell" if num_components < np.log1p(_FEW_COMPONENTS) else "loose"
    table: dict[str, list[float]] = {}
    with torch.autocast(network.mean.device.type, dtype=torch.bfloat16):
        encoded = network.encode(build_patch_tensors(moved.features, network.mean.device))
        for _ in range(3):
            question = replace(draw_question(moved, rng), negative=np.zeros(0, np.int64))
            points = draw_patches(moved.features.areas * question.target, max(COUNTS), rng)
            sets = [replace(question, positive=points[:n]) for n in COUNTS]
            clicks = [make_click_tensors(each, network.mean.device) for each in sets]
            masks = network.predict_clicks(encoded, clicks).float().cpu().numpy() > 0
            for count, mask in zip(COUNTS, masks, strict=True):
                iou = _compute_iou(mask, question.target, moved.features.areas)
                table.setdefault(f"{kind}@{count}", []).append(iou)
    return table


def _compute_iou(mask: FloatArray, target: FloatArray, areas: FloatArray) -> float:
    shared = (areas * mask * target).sum()
    union = (areas * (mask + target - mask * target)).sum()
    return float(shared / max(union, 1e-12))


def fit_network(
    network: PatchNetwork, run: Run, data: Sequence[Path], options: FitOptions
) -> dict[str, float]:
    """Train until the minutes or the steps are used up; returns the last validation scores."""
    network.to(options.device).train()
    feed, held = Examples(data, "train"), Examples(data, "validation")
    judged = held.rows[:: max(1, len(held.rows) // NUM_VALIDATION)]
    if not network.mean.any():
        set_normalization(network, feed.rows[:400])
    optimizer = torch.optim.AdamW(
        network.parameters(), options.rate, (0.9, 0.98), weight_decay=0.02
    )
    average = Average(network, options.decay)
    run.resume(network, optimizer, average, rename_layers)
    start, losses, scores = time.monotonic(), [], {}
    bar = tqdm(total=options.total_steps, initial=run.step, desc="patches", mininterval=30)
    with ThreadPoolExecutor(options.threads, initializer=_limit_threads) as pool:
        if options.validates_start and run.step == 0:
            _validate_network(network, run, average, judged, pool)
        while (share := _compute_progress(run.step, start, options)) < 1:
            set_rate(
                optimizer, options.rate * compute_warm_cosine(int(1e4 * share), 10_000, warmup=200)
            )
            losses.append(_take_step(network, optimizer, feed.rows, run.step, options, pool))
            run.step += 1
            average.update(network, run.step)
            bar.update()
            if run.step % 50 == 0:
                run.report(loss=float(np.mean(losses)), objects=len(feed.rows))
                losses = []
                feed.refresh()
            if run.step % options.validate_every == 0:
                scores = _validate_network(network, run, average, judged, pool)
                run.save(network, optimizer, average)
        scores = _validate_network(network, run, average, judged, pool)
    run.save(network, optimizer, average)
    return scores


def _limit_threads() -> None:
    torch.set_num_threads(1)


def _take_step(
    network: PatchNetwork,
    optimizer: torch.optim.Optimizer,
    examples: list[PatchExample],
    step: int,
    options: FitOptions,
    pool: Executor,
) -> float:
    """Mean loss of a batch, whose gradients are summed in a fixed order."""
    chosen = np.random.default_rng([options.seed, step]).choice(len(examples), options.batch)
    seeds = [[options.seed, step, number] for number in range(options.batch)]
    rows = [examples[index] for index in chosen]
    losses, gradients = zip(
        *pool.map(partial(compute_example_gradient, network), rows, seeds), strict=True
    )
    set_gradients(network, gradients)
    optimizer.step()
    return float(np.mean(losses))


def set_gradients(network: PatchNetwork, gradients: Sequence[Sequence[Tensor | None]]) -> None:
    """Set every parameter's gradient to the mean over a batch, clipped."""
    for values, *columns in zip(network.parameters(), *gradients, strict=True):
        there = [column for column in columns if column is not None]
        values.grad = torch.stack(there).sum(dim=0) / len(gradients) if there else None
    torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)


def _compute_progress(step: int, start: float, options: FitOptions) -> float:
    clock = (time.monotonic() - start) / (60 * options.minutes)
    return max(step / options.total_steps, clock)


def set_normalization(network: PatchNetwork, examples: list[PatchExample]) -> None:
    """Mean and spread of the token facts."""
    features = [
        build_patch_tensors(
            replace(e.features, geodesic_distances=e.features.geodesic_distances.astype(np.float32))
        ).tokens
        for e in examples
    ]
    tokens = torch.cat(features)
    network.mean.copy_(tokens.mean(dim=0))
    network.scale.copy_(tokens.std(dim=0) + 0.05)


def _validate_network(
    network: PatchNetwork,
    run: Run,
    average: Average,
    examples: list[PatchExample],
    pool: Executor,
) -> dict[str, float]:
    """Score the moving average; the best so far is written."""
    average.swap(network)
    network.eval()
    scores = validate(network, examples, pool=pool)
    run.report(**scores)
    score = float(np.mean(list(scores.values())))
    if score > run.best:
        run.best = score
        save_patch_network(network, run.folder / "patches.safetensors")
    average.swap(network)
    network.train()
    return scores


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.998, help="of the moving average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="objects at once, on CPUs")
    parser.add_argument("--start", type=Path, help="weights to begin with")
    parser.add_argument("--depth", type=int, nargs=2, help="layers of encoder and decoder")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(args.seed)
    network = read_patch_network(args.start) if args.start else PatchNetwork()
    if args.depth:
        network = with_depth(network, tuple(args.depth))
    options = FitOptions(
        minutes=args.minutes,
        total_steps=args.steps,
        batch=args.batch,
        rate=args.rate,
        decay=args.decay,
        seed=args.seed,
        device=args.device,
        threads=args.threads,
    )
    log.info("%s", fit_network(network, Run(args.out), args.data, options))


if __name__ == "__main__":
    main()
