"""Train the patch network on shards of patches.

    python -m segvigen_model.training.patch_fit --data FOLDER --out RUN --minutes 60

Resumable; the learning rate follows the clock or the steps, whichever is further. The best moving
average by validation IoU is written to RUN/patches.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from segvigen_model.patch_network import Encoded, PatchNetwork, tensors_of
from segvigen_model.patches import FAR
from segvigen_model.procedural.builder import turn
from segvigen_model.training.patch_data import PatchExample, read_file
from segvigen_model.training.runs import Average, Run, set_rate, warm_cosine
from segvigen_model.types import FloatArray, IntArray

CLICK_COUNTS = (1, 1, 1, 2, 3, 3, 5, 7, 10)
NEGATIVE_SHARE = 0.3
CORRECTED_SHARE = 0.4  # of objects: clicks on what the network got wrong
MIN_PART_SHARE = 0.001
QUESTIONS = 5
TOGETHER_WEIGHT = 0.5
GRADIENT_LIMIT = 1.0
NUM_VALIDATION = 100
COUNTS = (1, 3, 5, 10)
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
    """

    minutes: float
    total_steps: int = 100_000
    batch: int = 4
    rate: float = 1e-3
    decay: float = 0.998
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Question:
    """Clicks on one part.

    Attributes:
        positive, negative: (K,), (N,) int64 clicked patches.
        target: (A,) float32 share of each patch's area in the part.
    """

    positive: IntArray
    negative: IntArray
    target: FloatArray


class Examples:
    """The growing list of examples of a folder and split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.seen: set[Path] = set()
        self.rows: list[PatchExample] = []
        self.refresh()

    def refresh(self) -> None:
        """Load shards that were not there before."""
        for path in sorted(self.folder.glob(f"{self.split}-*[0-9].npz")):
            if path not in self.seen:
                self.rows += read_file(path)
                self.seen.add(path)


def turned(example: PatchExample, rng: np.random.Generator) -> PatchExample:
    """A stored example seen from elsewhere: turned about Y, mirrored, sometimes another axis up."""
    matrix = turn((0, 1, 0), rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.5:
        matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
    if rng.random() < 0.25:
        matrix = turn(np.eye(3)[rng.integers(3)], rng.integers(1, 4) * np.pi / 2) @ matrix
    facts = example.facts
    normals = np.asarray(facts.normals, np.float32) @ matrix.T
    moved = replace(
        facts,
        centers=(facts.centers @ matrix.T).astype(np.float32),
        normals=normals.astype(np.float32),
        ways=facts.ways.astype(np.float32) * (FAR / 255),
    )
    return replace(example, facts=moved, shares=example.shares.astype(np.float32) / 255)


def draw_question(example: PatchExample, rng: np.random.Generator) -> Question:
    """Ask about a random part with random clicks."""
    areas, shares = example.facts.areas, example.shares
    totals = areas @ shares
    part = int(rng.choice(np.flatnonzero(totals > MIN_PART_SHARE * totals.sum())))
    target = shares[:, part]
    positive = _patches(areas * target, int(rng.choice(CLICK_COUNTS)), rng)
    negative: IntArray = np.zeros(0, np.int64)
    outside = areas * (1 - target)
    if rng.random() < NEGATIVE_SHARE and outside.sum() > 1e-4:
        middle = example.facts.centers[positive].mean(axis=0)
        gap = np.linalg.norm(example.facts.centers - middle, axis=1)
        chance = outside * (np.exp(-gap / rng.choice([0.05, 0.2, 3.0])) + 1e-9)
        negative = _patches(chance, int(rng.integers(1, 6)), rng)
    return Question(positive, negative, target)


def _patches(chance: FloatArray, count: int, rng: np.random.Generator) -> IntArray:
    chosen: IntArray = rng.choice(len(chance), count, p=chance / chance.sum())
    return chosen


@torch.no_grad()
def corrected(
    network: PatchNetwork,
    encoded: Encoded,
    questions: list[Question],
    areas: FloatArray,
    rng: np.random.Generator,
) -> list[Question]:
    """The same questions with up to three more clicks each where the first answer is wrong."""
    clicks = [_clicks(question, network.mean.device) for question in questions]
    masks = network.ask(encoded, clicks).float().cpu().numpy() > 0
    longer = []
    for question, mask in zip(questions, masks, strict=True):
        error = areas * np.abs(question.target - mask)
        if error.sum() > 1e-4:
            ids = _patches(error, int(rng.integers(1, 4)), rng)
            inside = question.target[ids] > 0.5
            question = Question(
                np.concatenate([question.positive, ids[inside]]),
                np.concatenate([question.negative, ids[~inside]]),
                question.target,
            )
        longer.append(question)
    return longer


def mask_loss(odds: Tensor, target: Tensor, areas: Tensor) -> Tensor:
    """(Q, A) odds and targets, (A,) areas -> scalar: cross-entropy and soft IoU, area-weighted."""
    entropy = (F.binary_cross_entropy_with_logits(odds, target, reduction="none") * areas).sum(1)
    # Small parts would hardly count in the entropy, whose weights are areas.
    entropy = entropy / ((target * areas).sum(1) + 1e-4).sqrt()
    chance = odds.sigmoid()
    shared = (chance * target * areas).sum(1)
    union = ((chance + target - chance * target) * areas).sum(1) + 1e-5
    return (entropy + 1.0 - shared / union).mean()


def together_loss(odds: Tensor, example: PatchExample) -> Tensor:
    """Cross-entropy of all pairs, and of those that touch."""
    device = odds.device
    shares = torch.from_numpy(example.shares).to(device)
    target = (shares @ shares.T).clamp(0, 1)
    entropy = F.binary_cross_entropy_with_logits(odds, target, reduction="none")
    root = torch.from_numpy(example.facts.areas).to(device).sqrt()
    weight = root[:, None] * root
    left, right = torch.from_numpy(example.pairs.astype(np.int64)).to(device).T
    touching = entropy[left, right].mean() if len(left) else entropy.sum() * 0
    return (entropy * weight).sum() / weight.sum() + touching


def example_loss(network: PatchNetwork, example: PatchExample, rng: np.random.Generator) -> Tensor:
    """Loss of one object with several questions."""
    device = network.mean.device
    moved = turned(example, rng)
    questions = [draw_question(moved, rng) for _ in range(QUESTIONS)]
    facts = tensors_of(moved.facts, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        encoded = network.encode(facts)
        if rng.random() < CORRECTED_SHARE:
            questions = corrected(network, encoded, questions, moved.facts.areas, rng)
        odds = network.ask(encoded, [_clicks(q, device) for q in questions])
        together = network.together(encoded)
    target = torch.from_numpy(np.stack([q.target for q in questions])).to(device)
    areas = torch.from_numpy(moved.facts.areas).to(device)
    loss = mask_loss(odds.float(), target, areas)
    return loss + TOGETHER_WEIGHT * together_loss(together.float(), moved)


def _clicks(question: Question, device: torch.device) -> tuple[Tensor, Tensor]:
    pair = (question.positive, question.negative)
    return tuple(torch.from_numpy(ids).to(device) for ids in pair)  # type: ignore[return-value]


@torch.no_grad()
def validate(
    network: PatchNetwork, examples: list[PatchExample], seed: int = 0
) -> dict[str, float]:
    """Mean IoU on patches after 1, 3, 5 and 10 positive clicks, on fused objects and others."""
    table: dict[str, list[float]] = {}
    for number, example in enumerate(examples):
        rng = np.random.default_rng([seed, number])
        moved = turned(example, rng)
        kind = "fused" if moved.facts.scalars[0, -3] < 0.1 else "as-is"
        with torch.autocast(network.mean.device.type, dtype=torch.bfloat16):
            encoded = network.encode(tensors_of(moved.facts, network.mean.device))
            for _ in range(3):
                asked = replace(draw_question(moved, rng), negative=np.zeros(0, np.int64))
                points = _patches(moved.facts.areas * asked.target, max(COUNTS), rng)
                sets = [replace(asked, positive=points[:n]) for n in COUNTS]
                clicks = [_clicks(each, network.mean.device) for each in sets]
                masks = network.ask(encoded, clicks).float().cpu().numpy() > 0
                for count, mask in zip(COUNTS, masks, strict=True):
                    iou = _iou(mask, asked.target, moved.facts.areas)
                    table.setdefault(f"{kind}@{count}", []).append(iou)
    return {name: float(np.mean(values)) for name, values in sorted(table.items())}


def _iou(mask: FloatArray, target: FloatArray, areas: FloatArray) -> float:
    shared = (areas * mask * target).sum()
    union = (areas * (mask + target - mask * target)).sum()
    return float(shared / max(union, 1e-12))


def fit(network: PatchNetwork, run: Run, data: Path, options: FitOptions) -> dict[str, float]:
    """Train until the minutes or the steps are used up; returns the last validation scores."""
    network.to(options.device).train()
    feed, held = Examples(data, "train"), Examples(data, "validation")
    judged = held.rows[:: max(1, len(held.rows) // NUM_VALIDATION)]
    if run.step == 0:
        set_normalization(network, feed.rows[:400])
    optimizer = torch.optim.AdamW(
        network.parameters(), options.rate, (0.9, 0.98), weight_decay=0.02
    )
    average = Average(network, options.decay)
    run.resume(network, optimizer, average)
    rng = np.random.default_rng([options.seed, run.step])
    start, losses, scores = time.monotonic(), [], {}
    bar = tqdm(total=options.total_steps, initial=run.step, desc="patches", mininterval=30)
    while (share := _progress(run.step, start, options)) < 1:
        set_rate(optimizer, options.rate * warm_cosine(int(1e4 * share), 10_000, warmup=200))
        optimizer.zero_grad(set_to_none=True)
        for index in rng.choice(len(feed.rows), options.batch):
            loss = example_loss(network, feed.rows[index], rng) / options.batch
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item() * options.batch)
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_LIMIT)
        optimizer.step()
        run.step += 1
        average.update(network, run.step)
        bar.update()
        if run.step % 50 == 0:
            run.report(loss=float(np.mean(losses)), objects=len(feed.rows))
            losses = []
            feed.refresh()
        if run.step % 500 == 0:
            scores = _judge(network, run, average, judged)
            run.save(network, optimizer, average)
    scores = _judge(network, run, average, judged)
    run.save(network, optimizer, average)
    return scores


def _progress(step: int, start: float, options: FitOptions) -> float:
    clock = (time.monotonic() - start) / (60 * options.minutes)
    return max(step / options.total_steps, clock)


def set_normalization(network: PatchNetwork, examples: list[PatchExample]) -> None:
    """Mean and spread of the token facts."""
    facts = [
        tensors_of(replace(e.facts, ways=e.facts.ways.astype(np.float32))).tokens for e in examples
    ]
    tokens = torch.cat(facts)
    network.mean.copy_(tokens.mean(dim=0))
    network.scale.copy_(tokens.std(dim=0) + 0.05)


def _judge(
    network: PatchNetwork, run: Run, average: Average, examples: list[PatchExample]
) -> dict[str, float]:
    """Score the moving average; the best so far is written."""
    average.swap(network)
    network.eval()
    scores = validate(network, examples)
    run.report(**scores)
    score = float(np.mean(list(scores.values())))
    if score > run.best:
        run.best = score
        save_weights(network, run.folder / "patches.safetensors")
    average.swap(network)
    network.train()
    return scores


def save_weights(network: PatchNetwork, path: Path) -> None:
    """Write weights in half precision, with the sizes that rebuild the network."""
    told = {**network.sizes, "encoder": network.depth[0], "decoder": network.depth[1]}
    state = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    save_file(state, path, metadata={name: str(value) for name, value in told.items()})


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(args.seed)
    options = FitOptions(
        args.minutes, args.steps, args.batch, args.rate, seed=args.seed, device=args.device
    )
    log.info("%s", fit(PatchNetwork(), Run(args.out), args.data, options))


if __name__ == "__main__":
    main()
