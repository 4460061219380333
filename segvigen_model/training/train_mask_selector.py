"""Train the network that chooses a mask (mask_choice.py).

    python -m segvigen_model.training.train_mask_selector --out choice.safetensors
        --ask OLD UNSEEN 400 --ask NEW made 90 --check NEW PACK 50

Each `--ask` names weights of a patch network, a labelled folder that it was NOT trained on
("made": shapes made in code) and how many objects to ask about: a network is too sure of what it
has seen. `--check` prints IoU before and after on the validation split of a folder. The same seed
asks the same questions; they are kept in a file beside the weights, for other fits (`--asked`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from segvigen_model.config import SegmenterConfig
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.simulated_clicks import error_click, surface_clicks
from segvigen_model.interactive.click_decoding import ask_looks
from segvigen_model.interactive.crops import Look, Looks
from segvigen_model.interactive.mask_features import EXPECTED, NUM_MEASURES, measure_masks
from segvigen_model.interactive.mask_proposals import propose_masks
from segvigen_model.interactive.mask_selector import ChoiceNetwork, is_choice
from segvigen_model.interactive.patch_network import load_patch_network
from segvigen_model.surface.geometry import Surface, surface_of
from segvigen_model.surface.region_merging import segment_tree
from segvigen_model.training.patch_data import labelled_object
from segvigen_model.types import AssetMesh, BoolArray, Click, FloatArray, IntArray

CLICK_COUNTS = (1, 2, 3, 5, 10)
NUM_DRAWN = 3  # of these counts, one of them 1, are drawn for a part
NUM_CORRECTED = 2  # of these counts are set on errors
MAX_PARTS = 2  # asked for of one object
MIN_PART_SHARE = 0.001  # of the surface
NEGATIVE_REACHES = (0.05, 0.2, 3.0)  # longest sides: how near the part wrong points lie
MADE = "made"  # in code
BATCH = 64
MAX_RATE = 4e-3
NOT_THERE = -1e4  # score of what pads a question's masks
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom to ask about what.

    Attributes:
        network: weights of a patch network.
        folder: labelled objects; None = made in code.
        count: how many objects, at most.
        split: "train" or "validation".
        config: of the segmenter whose masks are chosen among.
    """

    network: Path
    folder: Path | None
    count: int
    split: str = "train"
    config: SegmenterConfig = field(default_factory=SegmenterConfig)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its masks.

    Attributes:
        count: clicks; without the negative ones where they were drawn.
        is_corrected: whether the clicks were set on errors, not drawn on the part.
        measures: (C, M) float32, of all looks, the whole first.
        iou: (C,) float32 with the true part; the plain mask of the whole first.
    """

    count: int
    is_corrected: bool
    measures: FloatArray
    iou: FloatArray


def ask_object(ask: Ask, index: int, seed: int) -> list[Asked]:
    """Questions about some parts of object `index`; none where it cannot be used."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, index])
    try:
        pack_share = 0.0 if ask.folder is None else 1.0
        made = labelled_object(index, seed, ask.folder, ask.split, pack_share)
        return [] if made is None else ask_mesh(ask.network, *made, rng, ask.config)
    except SegvigenError as err:
        log.warning("object=%d refused=%s", index, err)
        return []


def ask_mesh(
    network: Path,
    mesh: AssetMesh,
    labels: IntArray,
    rng: np.random.Generator,
    config: SegmenterConfig,
) -> list[Asked]:
    """Questions about some parts of a mesh, more and more clicks, drawn or set on errors.

    Only those where the product would choose.
    """
    surface = surface_of(mesh)
    tree = segment_tree(surface, config.regions)
    looks = Looks.of(surface, tree, config, load_patch_network(network))
    known = _Object(surface, looks, config)
    areas = np.bincount(labels, surface.areas)
    parts = np.flatnonzero(areas > MIN_PART_SHARE * areas.sum())
    found = []
    for part in rng.permutation(parts)[:MAX_PARTS]:
        mask = labels == part
        found += known.drawn(mask, rng)
        found += known.corrected(mask, rng)
    return found


@dataclass(frozen=True, slots=True)
class _Object:
    surface: Surface
    looks: Looks
    config: SegmenterConfig

    def drawn(self, part: BoolArray, rng: np.random.Generator) -> list[Asked]:
        """Clicks on the part, once with some beside it."""
        points = surface_clicks(self.surface, part, max(CLICK_COUNTS), rng)
        counts = sorted({1, *map(int, rng.choice(CLICK_COUNTS[1:], NUM_DRAWN - 1, replace=False))})
        sets = [points[:count] for count in counts]
        count = int(rng.choice(CLICK_COUNTS[:4]))
        beside = self._beside(part, points[:count], rng)
        sets += [[*points[:count], *beside]] if beside else []
        rows = [self.ask(part, clicks) for clicks in sets]
        return [row for row in rows if row is not None]

    def corrected(self, part: BoolArray, rng: np.random.Generator) -> list[Asked]:
        """One click after the other on what a mask has wrong: the plain one, or the likeliest."""
        by_chance = rng.random() < 0.5
        recorded = rng.choice(CLICK_COUNTS, NUM_CORRECTED, replace=False)
        clicks: list[Click] = []
        mask: BoolArray = np.zeros(len(part), bool)
        found = []
        for count in range(1, int(recorded.max()) + 1):
            click = error_click(self.surface, mask, part)
            if click is None:
                break
            clicks.append(click)
            asked = self.ask(part, clicks) if count in recorded else None
            if asked is not None:
                found.append(replace(asked, count=count, is_corrected=True))
            mask = self._whole_mask(clicks, by_chance)
        return found

    def ask(self, part: BoolArray, clicks: Sequence[Click]) -> Asked | None:
        """A question with its masks; None where there is no choice."""
        faces, is_positive = _signed_faces(clicks)
        whole = self.looks.whole
        patches = whole.atoms.of_face[faces[is_positive]]
        if not is_choice(whole.reading.terrain, patches, self.config.selection):
            return None
        looks = self.looks.at(faces[is_positive])
        answers = ask_looks(looks, faces, is_positive, self.config)
        told, ious = [], []
        for look, answer in zip(looks, answers, strict=True):
            found = propose_masks(answer)
            told.append(measure_masks(answer, found))
            ious.append(iou_on_faces(look, found.masks, part, self.surface.areas))
        iou = np.concatenate(ious).astype(np.float32)
        return Asked(int(is_positive.sum()), False, np.concatenate(told), iou)

    def _whole_mask(self, clicks: Sequence[Click], by_chance: bool) -> BoolArray:
        """(F,) what the whole answers alone: the plain mask, or the likeliest."""
        whole = self.looks.whole
        (answer,) = ask_looks([whole], *_signed_faces(clicks), self.config)
        found = propose_masks(answer)
        number = int(measure_masks(answer, found)[:, EXPECTED].argmax()) if by_chance else 0
        mask: BoolArray = found.masks[number][whole.atoms.of_face]
        return mask

    def _beside(
        self, part: BoolArray, points: Sequence[Click], rng: np.random.Generator
    ) -> list[Click]:
        """One to five negative clicks outside a part, near its clicks or anywhere."""
        middle = np.mean([click.xyz for click in points], axis=0)
        gaps = np.linalg.norm(self.surface.centers - middle, axis=1) / self.surface.extent
        chance = self.surface.areas * ~part * (np.exp(-gaps / rng.choice(NEGATIVE_REACHES)) + 1e-9)
        if not chance.sum() > 0:
            return []
        faces = rng.choice(len(part), int(rng.integers(1, 6)), p=chance / chance.sum())
        at = self.surface.centers
        return [Click(int(face), at[face], is_positive=False) for face in faces]


def _signed_faces(clicks: Sequence[Click]) -> tuple[IntArray, BoolArray]:
    faces = np.array([click.face for click in clicks], np.int64)
    return faces, np.array([click.is_positive for click in clicks], bool)


def iou_on_faces(look: Look, masks: BoolArray, part: BoolArray, areas: FloatArray) -> FloatArray:
    """(C,) IoU of masks (C, A) of a look's patches with a part (F,) of the whole surface."""
    of_face, count = look.atoms.of_face, look.atoms.count
    size = masks @ np.bincount(of_face, look.areas, count)
    shared = masks @ np.bincount(of_face, look.areas * part[look.faces], count)
    iou: FloatArray = shared / np.maximum(size + float(areas @ part) - shared, 1e-30)
    return iou


def ask_all(asks: Sequence[Ask], seed: int, workers: int) -> list[Asked]:
    """Questions about all objects, in a fixed order."""
    jobs = [(ask, index, seed) for ask in asks for index in range(ask.count)]
    found: list[Asked] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        answers = pool.map(ask_object, *zip(*jobs, strict=True))
        for rows in tqdm(answers, total=len(jobs), desc="objects", mininterval=10):
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


def save_asked(path: Path, asked: Sequence[Asked]) -> None:
    """Keep questions in one file, for other fits."""
    np.savez(
        path,
        counts=np.array([each.count for each in asked]),
        is_corrected=np.array([each.is_corrected for each in asked]),
        sizes=np.array([len(each.iou) for each in asked]),
        measures=np.concatenate([each.measures for each in asked]),
        iou=np.concatenate([each.iou for each in asked]),
    )


def load_asked(path: Path) -> list[Asked]:
    """Questions that were kept."""
    with np.load(path, allow_pickle=False) as stored:
        ends = np.cumsum(stored["sizes"])[:-1]
        measures, iou = (np.split(stored[name], ends) for name in ("measures", "iou"))
        rows = zip(stored["counts"], stored["is_corrected"], measures, iou, strict=True)
        return [Asked(int(count), bool(late), told, each) for count, late, told, each in rows]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    triple = partial(parser.add_argument, nargs=3, action="append", default=[])
    triple("--ask", metavar=("WEIGHTS", "FOLDER", "COUNT"))
    triple("--check", metavar=("WEIGHTS", "FOLDER", "COUNT"))
    parser.add_argument("--asked", type=Path, nargs="*", default=(), help="kept questions")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asked = [each for path in args.asked for each in load_asked(path)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.ask:
        fresh = ask_all([_ask(*each) for each in args.ask], args.seed, args.workers)
        save_asked(args.out.with_suffix(".asked.npz"), fresh)
        asked += fresh
    if not asked:
        parser.error("no questions; give --ask or --asked")
    log.info("questions=%d masks=%d", len(asked), sum(len(each.iou) for each in asked))
    network = fit(asked, args.epochs, args.seed)
    save_file(network.state_dict(), args.out)
    if args.check:
        asks = [replace(_ask(*each), split="validation") for each in args.check]
        for kind, (plain, chosen, best) in compare(network, ask_all(asks, args.seed, args.workers)):
            log.info("clicks=%s plain=%.3f chosen=%.3f best=%.3f", kind, plain, chosen, best)


def _ask(network: str, folder: str, count: str) -> Ask:
    return Ask(Path(network), None if folder == MADE else Path(folder), int(count))


if __name__ == "__main__":
    main()
