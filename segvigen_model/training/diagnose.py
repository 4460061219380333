"""Diagnose the patch network: what limits it on training, validation and unseen objects.

    python -m segvigen_model.training.diagnose --set train=PACK:train \
        --set validation=PACK:validation --set unseen=FOLDER --objects 20 [--weights FILE]

One table stands side by side for every set: IoU after 1, 3, 5 and 10 clicks on a part; IoU at the
best threshold of each answer (the answer is there, at another granularity); IoU of a perfect
labelling of the patches (the ceiling); the same by part size. Training scores near unseen scores
and far from the ceiling mean underfitting; a gap between them means too few sources; a low ceiling
means too few patches. Only the network on whole objects is measured, without crops and mask
selector.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segvigen_model.config import SegmenterConfig
from segvigen_model.datasets.labelled_folder import SURFACES, choose_rows, load_object
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.bootstrap import ObjectMeans
from segvigen_model.interactive.patch_network import (
    WEIGHTS_FILE,
    PatchNetwork,
    build_patch_tensors,
    load_patch_network,
)
from segvigen_model.training.click_sampling import draw_patches, rotate_example
from segvigen_model.training.patch_data import PatchExample, make_example, read_file
from segvigen_model.types import FloatArray

COUNTS = (1, 3, 5, 10)
MIN_PART = 0.005  # of the surface; smaller parts are not measured
MAX_PARTS = 12  # of an object, drawn at random where there are more
SIZES = {"< 2 %": (0.0, 0.02), "2-10 %": (0.02, 0.1), "> 10 %": (0.1, 1.1)}
ALL = "all"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DiagnosisSet:
    """Objects of one kind.

    Attributes:
        name: "train", "validation", "unseen" or any other.
        folder: labelled folder, or folder of patch shards.
        split: of its rows or shards; None = all rows.
    """

    name: str
    folder: Path
    split: str | None


def parse_set(text: str) -> DiagnosisSet:
    """Read NAME=FOLDER or NAME=FOLDER:SPLIT.

    Raises:
        SegvigenError: the text has another form.
    """
    name, equals, rest = text.partition("=")
    folder, _, split = rest.partition(":")
    if not (name and equals and folder):
        raise SegvigenError(f"set {text!r} is not of the form NAME=FOLDER or NAME=FOLDER:SPLIT")
    return DiagnosisSet(name, Path(folder), split or None)


def load_examples(
    chosen: DiagnosisSet, objects: int, *, surface: str = "fused", patches: int | None = None
) -> Iterator[PatchExample]:
    """Evenly spread objects of a set as patches.

    Args:
        chosen: the set. A folder without a manifest is one of patch shards, taken as they are.
        objects: at most.
        surface: of labelled objects, "as-is" or "fused".
        patches: of labelled objects; None = as the segmenter has it.

    Raises:
        SegvigenError: the folder holds neither objects nor shards.
    """
    if not (chosen.folder / "manifest.jsonl").exists():
        yield from _load_stored_examples(chosen, objects)
        return
    config = SegmenterConfig()
    for row in choose_rows(chosen.folder, chosen.split, objects):
        try:
            item = load_object(chosen.folder, row, "face_inst", surface)
        except SegvigenError as err:
            log.warning("object=%s refused=%s", row.get("id"), err)
            continue
        dense = np.unique(item.labels, return_inverse=True)[1].reshape(-1)
        yield make_example(item.surface, dense, patches or config.patches.count, config)


def _load_stored_examples(chosen: DiagnosisSet, objects: int) -> Iterator[PatchExample]:
    paths = sorted(chosen.folder.glob(f"{chosen.split or '*'}-*[0-9].npz"))
    rows = [example for path in paths for example in read_file(path)]
    if not rows:
        raise SegvigenError(f"{chosen.folder} holds no manifest.jsonl and no shards of patches")
    for index in np.linspace(0, len(rows) - 1, min(objects, len(rows))).astype(int):
        yield rotate_example(rows[index], np.random.default_rng([0, int(index)]))


@torch.no_grad()
def score_object(
    network: PatchNetwork, example: PatchExample, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Numbers of one object by "size|measure": one a part.

    Args:
        network: what answers.
        example: the object; shares as floats.
        rng: of the parts and clicks.
    """
    areas = example.features.areas.astype(np.float64)
    totals = areas @ example.shares
    parts = np.flatnonzero(totals >= MIN_PART)
    if len(parts) > MAX_PARTS:
        parts = np.sort(rng.choice(parts, MAX_PARTS, replace=False))
    encoded = network.encode(build_patch_tensors(example.features))
    nothing = torch.zeros(0, dtype=torch.int64)
    values: dict[str, list[float]] = {}
    for part in parts:
        target = example.shares[:, part].astype(np.float64)
        points = torch.from_numpy(draw_patches(areas * target, max(COUNTS), rng))
        logits = network.predict_clicks(encoded, [(points[:count], nothing) for count in COUNTS])
        measured = {"ceiling": compute_best_cut_iou(target, target, areas)}
        for count, row in zip(COUNTS, logits.double().numpy(), strict=True):
            measured[f"iou@{count}"] = compute_mask_iou(row > 0, target, areas)
            measured[f"best cut@{count}"] = compute_best_cut_iou(row, target, areas)
        for size in (ALL, classify_size(totals[part])):
            for name, value in measured.items():
                values.setdefault(f"{size}|{name}", []).append(value)
    return values


def classify_size(share: float) -> str:
    """The name in SIZES of a part's share of the surface."""
    return next(name for name, (low, high) in SIZES.items() if low <= share < high)


def compute_mask_iou(mask: FloatArray, target: FloatArray, areas: FloatArray) -> float:
    """IoU of whole patches with a part, by surface.

    Args:
        mask: (A,) bool, patches that are taken.
        target: (A,) share of each patch in the part.
        areas: (A,) of the patches.
    """
    shared = float((areas * target)[mask].sum())
    return shared / float((areas * target).sum() + areas[mask].sum() - shared)


def compute_best_cut_iou(scores: FloatArray, target: FloatArray, areas: FloatArray) -> float:
    """The greatest IoU of any threshold of (A,) scores; each distinct score is tried."""
    order = np.argsort(-scores, kind="stable")
    shared = np.cumsum((areas * target)[order])
    union = (areas * target).sum() + np.cumsum(areas[order]) - shared
    is_cut = np.append(np.diff(scores[order]) < 0, True)
    return float((shared / union)[is_cut].max())


def diagnose(
    network: PatchNetwork,
    sets: Mapping[str, Iterable[PatchExample]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a network on several sets.

    Returns:
        By set: `objects`, and by size `parts` and each measure as [mean, low, high] (95 %
        bootstrap over objects).
    """
    network = network.eval()
    result: dict[str, Any] = {}
    for name, examples in sets.items():
        objects = [
            score_object(network, example, np.random.default_rng([seed, number]))
            for number, example in enumerate(examples)
        ]
        means = ObjectMeans([values for values in objects if values])
        table: dict[str, Any] = {"objects": means.num_objects}
        for key in means.names:
            size, _, measure = key.partition("|")
            row = table.setdefault(size, {"parts": sum(len(o.get(key, ())) for o in objects)})
            row[measure] = [means.compute_mean(key), *means.compute_interval(key)]
        result[name] = table
    return result


def format_tables(result: Mapping[str, Any]) -> str:
    """The tables: all parts with intervals, then by size."""
    lines = [
        "| measure | " + " | ".join(_format_heads(result, ALL)) + " |",
        _format_rule(len(result)),
    ]
    for measure in _list_metrics():
        cells = [_format_cell(table, ALL, measure, with_interval=True) for table in result.values()]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    lines += ["", "| size, measure | " + " | ".join(result) + " |", _format_rule(len(result))]
    for size in SIZES:
        counts = [f"{table.get(size, {}).get('parts', 0)} parts" for table in result.values()]
        lines.append(f"| {size} | " + " | ".join(counts) + " |")
        for measure in ("iou@1", "best cut@1", "iou@10", "ceiling"):
            cells = [_format_cell(table, size, measure) for table in result.values()]
            lines.append(f"| {size}, {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _list_metrics() -> list[str]:
    return [f"{kind}@{count}" for count in COUNTS for kind in ("iou", "best cut")] + ["ceiling"]


def _format_heads(result: Mapping[str, Any], size: str) -> list[str]:
    return [
        f"{name} ({table['objects']} objects, {table.get(size, {}).get('parts', 0)} parts)"
        for name, table in result.items()
    ]


def _format_rule(columns: int) -> str:
    return "| --- |" + " --- |" * columns


def _format_cell(
    table: Mapping[str, Any], size: str, measure: str, *, with_interval: bool = False
) -> str:
    row = table.get(size, {}).get(measure)
    if row is None:
        return "-"
    mean, low, high = row
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" if with_interval else f"{mean:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", required=True, help="NAME=FOLDER[:SPLIT]")
    parser.add_argument("--objects", type=int, default=20, help="of each set, evenly spread")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FILE)
    parser.add_argument("--surface", choices=SURFACES, default="fused", help="of labelled folders")
    parser.add_argument("--patches", type=int, help="of labelled folders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = [parse_set(text) for text in args.set]
    sets = {
        each.name: load_examples(each, args.objects, surface=args.surface, patches=args.patches)
        for each in chosen
    }
    result = diagnose(load_patch_network(args.weights), sets, seed=args.seed)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    log.info("%s", format_tables(result))


if __name__ == "__main__":
    main()
