"""Train the network that chooses a mask (mask_selector.py).

    python -m segvigen_model.training.train_mask_selector --out mask_selector.safetensors
        --source OLD UNSEEN 400 --source NEW made 90 --check NEW PACK 50

Each `--source` names weights of a patch network, a labelled folder that it was NOT trained on
("made": shapes made in code) and how many objects to ask about: a network is too sure of what it
has seen. `--check` prints IoU before and after on the validation split of a folder. The same seed
asks the same questions; they are kept in a file beside the weights, for other fits (`--samples`).
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
from torch import Tensor
from tqdm import tqdm

from segvigen_model.config import SegmenterConfig
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks, find_error_click
from segvigen_model.interactive.click_decoding import predict_clicks
from segvigen_model.interactive.crops import Crop, MultiScaleCrops
from segvigen_model.interactive.mask_features import (
    COLUMNS,
    EXPECTED_IOU,
    NUM_MASK_FEATURES,
    compute_mask_features,
)
from segvigen_model.interactive.mask_proposals import propose_masks
from segvigen_model.interactive.mask_selector import (
    MaskSelector,
    has_mask_choice,
    save_choice_network,
)
from segvigen_model.interactive.patch_network import load_patch_network
from segvigen_model.surface.feature_schema import check_columns, stored_columns
from segvigen_model.surface.geometry import Surface, measure_surface
from segvigen_model.surface.region_merging import build_segment_tree
from segvigen_model.training.patch_data import load_labelled_object
from segvigen_model.types import AssetMesh, BoolArray, Click, FloatArray, IntArray

CLICK_COUNTS = (1, 2, 3, 5, 10)
NUM_DRAWN_COUNTS = 3  # of these counts, one of them 1, are drawn for a part
NUM_CORRECTED_COUNTS = 2  # of these counts are set on errors
MAX_PARTS = 2  # requested for one object
MIN_PART_SHARE = 0.001  # of the surface
NEGATIVE_REACHES = (0.05, 0.2, 3.0)  # longest sides: how near the part wrong points lie
PROCEDURAL = "made"  # in code
BATCH = 64
MAX_RATE = 4e-3
PADDING_SCORE = -1e4  # score of what pads a question's masks
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SampleSource:
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
class MaskSample:
    """One question with its masks.

    Attributes:
        count: clicks; without the negative ones where they were drawn.
        is_corrected: whether the clicks were set on errors, not drawn on the part.
        features: (C, M) float32, of all crops, the whole first.
        iou: (C,) float32 with the true part; the plain mask of the whole first.
    """

    count: int
    is_corrected: bool
    features: FloatArray
    iou: FloatArray


def sample_object(source: SampleSource, index: int, seed: int) -> list[MaskSample]:
    """Questions about some parts of object `index`; none where it cannot be used."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, index])
    try:
        pack_share = 0.0 if source.folder is None else 1.0
        made = load_labelled_object(index, seed, source.folder, source.split, pack_share)
        return [] if made is None else sample_mesh(source.network, *made, rng, source.config)
    except SegvigenError as err:
        log.warning("object=%d refused=%s", index, err)
        return []


def sample_mesh(
    network: Path,
    mesh: AssetMesh,
    labels: IntArray,
    rng: np.random.Generator,
    config: SegmenterConfig,
) -> list[MaskSample]:
    """Questions about some parts of a mesh, more and more clicks, drawn or set on errors.

    Only those where the product would choose.
    """
    surface = measure_surface(mesh)
    tree = build_segment_tree(surface, config.regions)
    crops = MultiScaleCrops.build(surface, tree, config, load_patch_network(network))
    sampler = _ClickSampler(surface, crops, config)
    areas = np.bincount(labels, surface.areas)
    parts = np.flatnonzero(areas > MIN_PART_SHARE * areas.sum())
    found = []
    for part in rng.permutation(parts)[:MAX_PARTS]:
        mask = labels == part
        found += sampler.sample_drawn_clicks(mask, rng)
        found += sampler.sample_corrective_clicks(mask, rng)
    return found


@dataclass(frozen=True, slots=True)
class _ClickSampler:
    surface: Surface
    crops: MultiScaleCrops
    config: SegmenterConfig

    def sample_drawn_clicks(self, part: BoolArray, rng: np.random.Generator) -> list[MaskSample]:
        """Clicks on the part, once with some beside it."""
        points = draw_surface_clicks(self.surface, part, max(CLICK_COUNTS), rng)
        counts = sorted(
            {1, *map(int, rng.choice(CLICK_COUNTS[1:], NUM_DRAWN_COUNTS - 1, replace=False))}
        )
        sets = [points[:count] for count in counts]
        count = int(rng.choice(CLICK_COUNTS[:4]))
        negatives = self._draw_negative_clicks(part, points[:count], rng)
        sets += [[*points[:count], *negatives]] if negatives else []
        rows = [self.sample_masks(part, clicks) for clicks in sets]
        return [row for row in rows if row is not None]

    def sample_corrective_clicks(
        self, part: BoolArray, rng: np.random.Generator
    ) -> list[MaskSample]:
        """One click after the other on what a mask has wrong: the plain one, or the likeliest."""
        by_chance = rng.random() < 0.5
        recorded = rng.choice(CLICK_COUNTS, NUM_CORRECTED_COUNTS, replace=False)
        clicks: list[Click] = []
        mask: BoolArray = np.zeros(len(part), bool)
        found = []
        for count in range(1, int(recorded.max()) + 1):
            click = find_error_click(self.surface, mask, part)
            if click is None:
                break
            clicks.append(click)
            sample = self.sample_masks(part, clicks) if count in recorded else None
            if sample is not None:
                found.append(replace(sample, count=count, is_corrected=True))
            mask = self._predict_whole_mask(clicks, by_chance)
        return found

    def sample_masks(self, part: BoolArray, clicks: Sequence[Click]) -> MaskSample | None:
        """A question with its masks; None where there is no choice."""
        faces, is_positive = _split_signs(clicks)
        whole = self.crops.whole
        patches = whole.superfaces.of_face[faces[is_positive]]
        if not has_mask_choice(whole.embedding.region_graph, patches, self.config.selection):
            return None
        crops = self.crops.select(faces[is_positive])
        responses = predict_clicks(crops, faces, is_positive, self.config)
        features, ious = [], []
        for crop, prediction in zip(crops, responses, strict=True):
            found = propose_masks(prediction)
            features.append(compute_mask_features(prediction, found))
            ious.append(compute_iou_on_faces(crop, found.masks, part, self.surface.areas))
        iou = np.concatenate(ious).astype(np.float32)
        return MaskSample(int(is_positive.sum()), False, np.concatenate(features), iou)

    def _predict_whole_mask(self, clicks: Sequence[Click], by_chance: bool) -> BoolArray:
        """(F,) what the whole answers alone: the plain mask, or the likeliest."""
        whole = self.crops.whole
        (prediction,) = predict_clicks([whole], *_split_signs(clicks), self.config)
        found = propose_masks(prediction)
        expected = compute_mask_features(prediction, found)[:, COLUMNS.index(EXPECTED_IOU)]
        number = int(expected.argmax()) if by_chance else 0
        mask: BoolArray = found.masks[number][whole.superfaces.of_face]
        return mask

    def _draw_negative_clicks(
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


def _split_signs(clicks: Sequence[Click]) -> tuple[IntArray, BoolArray]:
    faces = np.array([click.face for click in clicks], np.int64)
    return faces, np.array([click.is_positive for click in clicks], bool)


def compute_iou_on_faces(
    crop: Crop, masks: BoolArray, part: BoolArray, areas: FloatArray
) -> FloatArray:
    """(C,) IoU of masks (C, A) of a crop's patches with a part (F,) of the whole surface."""
    of_face, count = crop.superfaces.of_face, crop.superfaces.count
    size = masks @ np.bincount(of_face, crop.areas, count)
    shared = masks @ np.bincount(of_face, crop.areas * part[crop.faces], count)
    iou: FloatArray = shared / np.maximum(size + float(areas @ part) - shared, 1e-30)
    return iou


def sample_all(sources: Sequence[SampleSource], seed: int, workers: int) -> list[MaskSample]:
    """Questions about all objects, in a fixed order."""
    jobs = [(source, index, seed) for source in sources for index in range(source.count)]
    found: list[MaskSample] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = pool.map(sample_object, *zip(*jobs, strict=True))
        for rows in tqdm(results, total=len(jobs), desc="objects", mininterval=10):
            found += rows
    return found


def fit_selector(samples: Sequence[MaskSample], epochs: int, seed: int) -> MaskSelector:
    """Learn scores whose softmax over a question's masks has the greatest mean IoU."""
    torch.manual_seed(seed)
    network = MaskSelector()
    all_features = np.concatenate([each.features for each in samples])
    network.mean.copy_(torch.from_numpy(all_features.mean(axis=0)))
    network.scale.copy_(torch.from_numpy(all_features.std(axis=0) + 1e-3))
    features, iou = pad_samples(samples)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.03)
    steps = epochs * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_RATE, total_steps=steps)
    for _ in tqdm(range(epochs), desc="epochs", mininterval=10):
        for rows in torch.split(torch.randperm(len(samples)), BATCH):
            chance = _score_masks(network, features[rows], iou[rows]).softmax(dim=1)
            loss = -(chance * iou[rows].clamp_min(0)).sum(dim=1).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


def pad_samples(samples: Sequence[MaskSample]) -> tuple[Tensor, Tensor]:
    """(Q, C, M) measures and (Q, C) IoU; -1 where a question has fewer masks."""
    most = max(len(each.iou) for each in samples)
    features = np.zeros((len(samples), most, NUM_MASK_FEATURES), np.float32)
    iou = np.full((len(samples), most), -1.0, np.float32)
    for row, each in enumerate(samples):
        features[row, : len(each.iou)] = each.features
        iou[row, : len(each.iou)] = each.iou
    return torch.from_numpy(features), torch.from_numpy(iou)


def _score_masks(network: MaskSelector, features: Tensor, iou: Tensor) -> Tensor:
    scores: Tensor = network(features)
    return scores.masked_fill(iou < 0, PADDING_SCORE)


@torch.no_grad()
def compare_choices(
    network: MaskSelector, samples: Sequence[MaskSample]
) -> list[tuple[str, tuple[float, ...]]]:
    """Each kind of clicks: mean IoU of the plain mask, of the chosen one, of the best."""
    features, iou = pad_samples(samples)
    best = _score_masks(network, features, iou).argmax(dim=1)
    rows = torch.stack([iou[:, 0], iou[torch.arange(len(iou)), best], iou.amax(dim=1)]).T.numpy()
    kinds = np.array([f"{'corrected' if a.is_corrected else 'drawn'} {a.count:2}" for a in samples])
    found = [(str(kind), rows[kinds == kind].mean(axis=0)) for kind in np.unique(kinds)]
    return [(kind, tuple(float(value) for value in row)) for kind, row in found]


def save_samples(path: Path, samples: Sequence[MaskSample]) -> None:
    """Keep questions in one file, for other fits."""
    np.savez(
        path,
        columns=np.array(COLUMNS),
        counts=np.array([each.count for each in samples]),
        is_corrected=np.array([each.is_corrected for each in samples]),
        sizes=np.array([len(each.iou) for each in samples]),
        features=np.concatenate([each.features for each in samples]),
        iou=np.concatenate([each.iou for each in samples]),
    )


def load_samples(path: Path) -> list[MaskSample]:
    """Questions that were kept.

    Raises:
        CheckpointMismatch: they were measured with other columns.
    """
    with np.load(path, allow_pickle=False) as stored:
        check_columns(path, stored_columns(stored, "mask_features"), {"mask_features": COLUMNS})
        ends = np.cumsum(stored["sizes"])[:-1]
        key = "features" if "features" in stored.files else "measures"  # the name in 0.1.0
        features, iou = (np.split(stored[name], ends) for name in (key, "iou"))
        rows = zip(stored["counts"], stored["is_corrected"], features, iou, strict=True)
        return [
            MaskSample(int(count), bool(late), rows_of_features, each)
            for count, late, rows_of_features, each in rows
        ]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    triple = partial(parser.add_argument, nargs=3, action="append", default=[])
    triple("--source", "--ask", metavar=("WEIGHTS", "FOLDER", "COUNT"))
    triple("--check", metavar=("WEIGHTS", "FOLDER", "COUNT"))
    parser.add_argument(
        "--samples", "--asked", type=Path, nargs="*", default=(), help="kept questions"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    samples = [each for path in args.samples for each in load_samples(path)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.source:
        fresh = sample_all([_parse_source(*each) for each in args.source], args.seed, args.workers)
        save_samples(args.out.with_suffix(".samples.npz"), fresh)
        samples += fresh
    if not samples:
        parser.error("no questions; give --source or --samples")
    log.info("questions=%d masks=%d", len(samples), sum(len(each.iou) for each in samples))
    network = fit_selector(samples, args.epochs, args.seed)
    save_choice_network(network, args.out)
    if args.check:
        sources = [replace(_parse_source(*each), split="validation") for each in args.check]
        for kind, (plain, chosen, best) in compare_choices(
            network, sample_all(sources, args.seed, args.workers)
        ):
            log.info("clicks=%s plain=%.3f chosen=%.3f best=%.3f", kind, plain, chosen, best)


def _parse_source(network: str, folder: str, count: str) -> SampleSource:
    return SampleSource(Path(network), None if folder == PROCEDURAL else Path(folder), int(count))


if __name__ == "__main__":
    main()
