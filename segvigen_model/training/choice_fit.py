"""Train the network that chooses a mask (mask_choice.py).

    python -m segvigen_model.training.choice_fit --out choice.safetensors
        --ask OLD.safetensors UNSEEN --ask NEW.safetensors MADE --check NEW.safetensors DATA

Each `--ask` names a patch network and a folder of shards (patch_data.py) that it was NOT trained
on: a network is too sure of what it has seen. `--check` prints IoU before and after on the
validation split of a folder. The same seed asks the same questions.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from segvigen_model.atoms import Atoms
from segvigen_model.evidence import sigmoid
from segvigen_model.mask_choice import ChoiceNetwork, is_choice
from segvigen_model.mask_measures import EXPECTED, NUM_MEASURES, measure_masks
from segvigen_model.mask_proposals import (
    LEAST_AREA,
    Answer,
    Masks,
    Terrain,
    propose_masks,
    terrain_of,
)
from segvigen_model.patch_network import Encoded, PatchNetwork, load_patch_network, tensors_of
from segvigen_model.training.patch_data import PatchExample, read_file
from segvigen_model.training.patch_questions import (
    MIN_PART_SHARE,
    Question,
    click_tensors,
    correction,
    draw_negative,
    draw_patches,
    turned,
)
from segvigen_model.types import FloatArray

CLICK_COUNTS = (1, 2, 3, 5, 10)
MAX_PARTS = 4  # asked for of one object
BATCH = 64
MAX_RATE = 4e-3
NOT_THERE = -1e4  # score of what pads a question's masks
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its masks.

    Attributes:
        count: clicks; without the negative ones where they were drawn.
        is_corrected: whether the clicks were set on errors, not drawn on the part.
        is_choice: whether the product would choose here; nothing is learned from others.
        measures: (C, M) float32.
        iou: (C,) float32 with the true part; the plain mask first.
    """

    count: int
    is_corrected: bool
    is_choice: bool
    measures: FloatArray
    iou: FloatArray


def ask_file(network_path: Path, path: Path, seed: int) -> list[Asked]:
    """All questions about the objects of one shard."""
    torch.set_num_threads(1)
    number = int(path.stem.rpartition("-")[2])
    found = []
    for index, example in enumerate(read_file(path)):
        found += ask_object(network_path, example, np.random.default_rng([seed, number, index]))
    return found


@torch.no_grad()
def ask_object(network_path: Path, example: PatchExample, rng: np.random.Generator) -> list[Asked]:
    """Questions about some parts: more and more clicks, drawn on the part or set on errors.

    Only those where the product would choose.
    """
    network = load_patch_network(network_path)
    moved = turned(example, rng)
    areas = np.maximum(moved.facts.areas.astype(np.float64), LEAST_AREA)
    areas /= areas.sum()
    encoded = network.encode(tensors_of(moved.facts))
    odds = network.together(encoded).double().numpy()
    pairs = moved.pairs.astype(np.int64)
    atoms = Atoms(
        np.arange(len(areas)), areas, pairs, np.ones(len(pairs)), np.zeros(len(pairs)), "patches"
    )
    terrain = terrain_of(atoms, sigmoid(0.5 * (odds + odds.T)), moved.facts)
    parts = np.flatnonzero(areas @ moved.shares > MIN_PART_SHARE)
    found = []
    object_ = _Object(network, encoded, moved, areas, terrain)
    for part in rng.permutation(parts)[:MAX_PARTS]:
        target = moved.shares[:, part]
        found += object_.ask(_ladder(moved, target, rng))[0]
        found += _corrections(object_, target, rng)
    return [each for each in found if each.is_choice]


@dataclass(frozen=True, slots=True)
class _Object:
    network: PatchNetwork
    encoded: Encoded
    seen: PatchExample
    areas: FloatArray
    terrain: Terrain

    def ask(self, questions: Sequence[Question]) -> tuple[list[Asked], list[Masks]]:
        """What was asked, and its masks."""
        device = torch.device("cpu")
        clicks = [click_tensors(each, device) for each in questions]
        answers = self.network.ask(self.encoded, clicks).double().numpy()
        rows = [self._measured(*pair) for pair in zip(questions, answers, strict=True)]
        return [asked for asked, _ in rows], [masks for _, masks in rows]

    def _measured(self, question: Question, odds: FloatArray) -> tuple[Asked, Masks]:
        answer = Answer(self.terrain, odds, question.positive, question.negative)
        found = propose_masks(answer)
        shared = found.masks @ (self.areas * question.target)
        iou = shared / (found.masks @ self.areas + self.areas @ question.target - shared)
        told = measure_masks(answer, found)
        asked = Asked(
            *(len(question.positive), False, is_choice(answer)),
            *(told, iou.astype(np.float32)),
        )
        return asked, found


def _corrections(object_: _Object, target: FloatArray, rng: np.random.Generator) -> list[Asked]:
    """One click after the other on what a mask has wrong: the plain mask's, or the likeliest's."""
    none = np.zeros(0, np.int64)
    by_chance = rng.random() < 0.5
    question, mask = Question(none, none, target), np.zeros(len(target), bool)
    found = []
    for count in range(1, max(CLICK_COUNTS) + 1):
        patch = correction(object_.seen, target, mask)
        if patch is None:
            break
        if mask[patch]:
            question = replace(question, negative=np.append(question.negative, patch))
        else:
            question = replace(question, positive=np.append(question.positive, patch))
        (asked,), (masks,) = object_.ask([question])
        if count in CLICK_COUNTS:
            found.append(replace(asked, count=count, is_corrected=True))
        mask = masks.masks[int(asked.measures[:, EXPECTED].argmax()) if by_chance else 0]
    return found


def _ladder(example: PatchExample, target: FloatArray, rng: np.random.Generator) -> list[Question]:
    points = draw_patches(example.facts.areas * target, max(CLICK_COUNTS), rng)
    none = np.zeros(0, np.int64)
    plain = [Question(points[:count], none, target) for count in CLICK_COUNTS]
    counts = rng.choice(CLICK_COUNTS[:4], 2)
    return plain + [
        Question(points[:count], draw_negative(example, points[:count], target, rng), target)
        for count in counts
    ]


def ask_all(asks: Sequence[tuple[Path, Path]], split: str, seed: int, workers: int) -> list[Asked]:
    """Questions about all shards of a split, in a fixed order."""
    jobs = [
        (network, path, seed)
        for network, folder in asks
        for path in sorted(folder.glob(f"{split}-*[0-9].npz"))
    ]
    found: list[Asked] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        answers = pool.map(ask_file, *zip(*jobs, strict=True))
        for rows in tqdm(answers, total=len(jobs), desc="questions", mininterval=10):
            found += rows
    return found


def fit(asked: Sequence[Asked], epochs: int, seed: int) -> ChoiceNetwork:
    """Learn scores whose softmax over a question's masks has the greatest mean IoU."""
    torch.manual_seed(seed)
    network = ChoiceNetwork()
    known = np.concatenate([each.measures for each in asked])
    network.mean.copy_(torch.from_numpy(known.mean(axis=0)))
    network.scale.copy_(torch.from_numpy(known.std(axis=0) + 1e-3))
    measures, iou = padded(asked)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.03)
    steps = epochs * -(-len(asked) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_RATE, total_steps=steps)
    for _ in tqdm(range(epochs), desc="epochs", mininterval=10):
        for rows in torch.split(torch.randperm(len(asked)), BATCH):
            chance = _scores(network, measures[rows], iou[rows]).softmax(dim=1)
            loss = -(chance * iou[rows].clamp_min(0)).sum(dim=1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


def padded(asked: Sequence[Asked]) -> tuple[Tensor, Tensor]:
    """(Q, C, M) measures and (Q, C) IoU; -1 where a question has fewer masks."""
    most = max(len(each.iou) for each in asked)
    measures = np.zeros((len(asked), most, NUM_MEASURES), np.float32)
    iou = np.full((len(asked), most), -1.0, np.float32)
    for row, each in enumerate(asked):
        measures[row, : len(each.iou)] = each.measures
        iou[row, : len(each.iou)] = each.iou
    return torch.from_numpy(measures), torch.from_numpy(iou)


def _scores(network: ChoiceNetwork, measures: Tensor, iou: Tensor) -> Tensor:
    scores: Tensor = network(measures)
    return scores.masked_fill(iou < 0, NOT_THERE)


@torch.no_grad()
def compare(network: ChoiceNetwork, asked: Sequence[Asked]) -> list[tuple[str, tuple[float, ...]]]:
    """Each kind of clicks: mean IoU of the plain mask, of the chosen one, of the best."""
    measures, iou = padded(asked)
    best = _scores(network, measures, iou).argmax(dim=1)
    rows = torch.stack([iou[:, 0], iou[torch.arange(len(iou)), best], iou.amax(dim=1)]).T.numpy()
    kinds = np.array([f"{'corrected' if a.is_corrected else 'drawn'} {a.count:2}" for a in asked])
    found = [(str(kind), rows[kinds == kind].mean(axis=0)) for kind in np.unique(kinds)]
    return [(kind, tuple(float(value) for value in row)) for kind, row in found]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    pair = partial(parser.add_argument, type=Path, nargs=2, action="append")
    pair("--ask", metavar=("WEIGHTS", "FOLDER"), required=True)
    pair("--check", metavar=("WEIGHTS", "FOLDER"), default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asked = ask_all(args.ask, "train", args.seed, args.workers)
    log.info("questions=%d masks=%d", len(asked), sum(len(each.iou) for each in asked))
    network = fit(asked, args.epochs, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), args.out)
    if args.check:
        held = ask_all(args.check, "validation", args.seed, args.workers)
        for kind, (plain, chosen, best) in compare(network, held):
            log.info("clicks=%s plain=%.3f chosen=%.3f best=%.3f", kind, plain, chosen, best)


if __name__ == "__main__":
    main()
