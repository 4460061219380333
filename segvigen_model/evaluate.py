"""Measure a checkpoint, and the geometric baselines beside it, on a labelled folder.

The folder is as `../shared/data/parts`: `manifest.jsonl`, `objects/*.glb`, `*.parts.npz`. Scores
are area-weighted on faces, means over parts (clicks) or objects (full). Two regimes: the meshes
as they are, and fused to one outer skin each.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from segvigen_model import baselines
from segvigen_model.clicks import error_click, surface_clicks
from segvigen_model.errors import SegvigenError
from segvigen_model.geometry import Surface, surface_of
from segvigen_model.metrics import boundary_f1, mask_iou, miou_best, miou_matched
from segvigen_model.segmenter import Segmenter
from segvigen_model.training.colorings import well_separated
from segvigen_model.training.data import load_labelled, pack_rows
from segvigen_model.training.fuse import fused_skin
from segvigen_model.training.tasks import front_view
from segvigen_model.types import AssetMesh, BoolArray, Click, Encoding, IntArray

MODES = ("interactive", "full", "guided", "error_clicks")
MAX_ERROR_CLICKS = 10
TARGETS = (0.8, 0.9)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Scores:
    """Numbers as they come in, by dotted name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Append one number."""
        self.values.setdefault(name, []).append(value)

    def mean(self, name: str) -> float:
        """Mean of a name's numbers."""
        return float(np.mean(self.values[name]))

    def tree(self) -> dict[str, Any]:
        """Means, nested: "a|b" becomes {"a": {"b": mean}}."""
        out: dict[str, Any] = {}
        for name in self.values:
            *path, last = name.split("|")
            node = out
            for step in path:
                node = node.setdefault(step, {})
            node[last] = self.mean(name)
        return out


@dataclass(frozen=True, slots=True)
class Case:
    """One object under test."""

    name: str
    mesh: AssetMesh
    labels: IntArray
    surface: Surface
    encoding: Encoding
    baselines: baselines.Baselines


def evaluate(
    data_dir: str | Path,
    *,
    labels: str = "face_inst",
    surface: str = "as-is",
    modes: Sequence[str] = ("interactive", "full"),
    clicks: Sequence[int] = (1, 3, 5, 10),
    limit: int | None = None,
    checkpoint: str | Path = "default",
    seed: int = 0,
    split: str | None = None,
    segmenter: Segmenter | None = None,
) -> dict[str, Any]:
    """Run the protocol.

    Args:
        data_dir: labelled folder.
        labels: "face_inst" or "face_part".
        surface: "as-is" or "fused".
        modes: of MODES.
        clicks: click counts of the interactive mode.
        limit: evenly spread objects of the manifest; None = all.
        checkpoint: name or folder, when no segmenter is given.
        seed: of clicks and draws.
        split: "train", "validation" or "heldout" by training/holdout.json; None = all rows.
        segmenter: a loaded one.

    Returns:
        Nested means: interactive["iou@1"].., full.miou_best, full.miou_matched,
        baselines[name].., guided, objects, parts, seconds.
    """
    unknown = set(modes) - set(MODES)
    if unknown or surface not in ("as-is", "fused"):
        raise ValueError(f"unknown mode or surface: {sorted(unknown)} {surface!r}")
    segmenter = segmenter or Segmenter.from_checkpoint(checkpoint)
    scores, started = Scores(), time.monotonic()
    num_parts = num_objects = 0
    rows = chosen_rows(Path(data_dir), split, limit)
    for case in cases(Path(data_dir), rows, labels, surface, segmenter, scores):
        num_objects += 1
        num_parts += len(parts_of(case))
        if "interactive" in modes:
            score_clicks(case, segmenter, clicks, seed, scores)
        if "full" in modes:
            score_full(case, segmenter, seed, scores)
        if "guided" in modes:
            score_guided(case, segmenter, seed, scores)
        if "error_clicks" in modes:
            score_error_clicks(case, segmenter, seed, scores)
    tree = scores.tree()
    tree.setdefault("seconds", {})["total"] = time.monotonic() - started
    settings = {"surface": surface, "labels": labels, "seed": seed, "split": split}
    sha = segmenter.bundle.sha256
    return {**tree, **settings, "checkpoint": sha, "objects": num_objects, "parts": num_parts}


def chosen_rows(folder: Path, split: str | None, limit: int | None) -> list[dict[str, Any]]:
    """Manifest rows under test, evenly spread when limited."""
    if split is not None:
        rows = pack_rows(folder, split=split)
    else:
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def cases(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    labels: str,
    surface: str,
    segmenter: Segmenter,
    scores: Scores,
) -> Iterator[Case]:
    """Load, fuse when asked, and encode each object; those that cannot be used are logged."""
    for row in tqdm(rows, desc=f"evaluate {surface}", mininterval=5):
        try:
            mesh, face_labels = load_labelled(folder, row, labels)
            if surface == "fused":
                mesh, face_labels = fused_skin(mesh, face_labels)
            start = time.perf_counter()
            encoding = segmenter.encode(mesh)
        except SegvigenError as err:
            log.warning("object=%s refused=%s", row["id"], err)
            scores.add("refused", 1.0)
            continue
        scores.add("seconds|encode", time.perf_counter() - start)
        geometry = surface_of(mesh)
        yield Case(row["id"], mesh, face_labels, geometry, encoding, baselines.prepare(geometry))


def parts_of(case: Case) -> list[BoolArray]:
    """(F,) masks of the true parts that have area."""
    masks = [case.labels == part for part in np.unique(case.labels)]
    return [mask for mask in masks if case.surface.areas[mask].sum() > 0]


def score_clicks(
    case: Case, segmenter: Segmenter, counts: Sequence[int], seed: int, scores: Scores
) -> None:
    """Positive clicks on every part, model and baselines on the same points."""
    rng = np.random.default_rng(seed)
    areas = case.surface.areas
    for mask in parts_of(case):
        points = surface_clicks(case.surface, mask, max(counts), rng)
        for count in counts:
            start = time.perf_counter()
            answer = segmenter.part_mask(case.mesh, case.encoding, points[:count], seed)
            scores.add("seconds|click", time.perf_counter() - start)
            scores.add(f"interactive|iou@{count}", mask_iou(answer > 0.5, mask, areas))
            for name, other in baselines.click_masks(case.baselines, points[:count]).items():
                scores.add(f"baselines|{name}|iou@{count}", mask_iou(other, mask, areas))


def score_full(case: Case, segmenter: Segmenter, seed: int, scores: Scores) -> None:
    """Full segmentation, model and baselines."""
    start = time.perf_counter()
    proposal = segmenter.propose(case.mesh, case.encoding, seed=seed)
    scores.add("seconds|full", time.perf_counter() - start)
    scores.add("full|confidence", proposal.confidence)
    add_partition(scores, "full", proposal.face_labels, case)
    for name, labels in baselines.full_labels(case.baselines).items():
        add_partition(scores, f"baselines|{name}", labels, case)


def add_partition(scores: Scores, prefix: str, predicted: IntArray, case: Case) -> None:
    """Best-match, one-to-one and border scores of one partition."""
    areas = case.surface.areas
    scores.add(f"{prefix}|miou_best", miou_best(predicted, case.labels, areas))
    scores.add(f"{prefix}|miou_matched", miou_matched(predicted, case.labels, areas))
    scores.add(f"{prefix}|boundary_f1", boundary_f1(predicted, case.labels, case.surface))


def score_guided(case: Case, segmenter: Segmenter, seed: int, scores: Scores) -> None:
    """A front view painted with the true parts (an oracle map), as in the paper's last row."""
    colors = painted_colors(int(case.labels.max()) + 1, seed)
    relation = segmenter.geometry(case.mesh, case.encoding).relation
    voxel_labels = relation.labels_to_voxels(case.labels)
    encoding = case.encoding
    picture = front_view(encoding.coords, colors[voxel_labels], encoding.grid)
    part_map = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    start = time.perf_counter()
    proposal = segmenter.guided(case.mesh, encoding, part_map, seed=seed)
    scores.add("seconds|guided", time.perf_counter() - start)
    add_partition(scores, "guided", proposal.face_labels, case)


def painted_colors(count: int, seed: int) -> np.ndarray[Any, Any]:
    """(count, 3) float colours, none of them the black of the background."""
    colors = well_separated(count + 1, np.random.default_rng(seed))
    return np.delete(colors, colors.sum(1).argmin(), axis=0)


def score_error_clicks(case: Case, segmenter: Segmenter, seed: int, scores: Scores) -> None:
    """Clicks on the largest error, both signs, until the targets are reached."""
    for mask in parts_of(case):
        reached = clicks_to_targets(case, segmenter, mask, seed)
        for target, count in reached.items():
            scores.add(f"error_clicks|clicks_to_{target}", count)


def clicks_to_targets(
    case: Case, segmenter: Segmenter, mask: BoolArray, seed: int
) -> dict[float, int]:
    """Clicks needed per target IoU; MAX_ERROR_CLICKS + 1 when never reached."""
    needed = dict.fromkeys(TARGETS, MAX_ERROR_CLICKS + 1)
    clicks: list[Click] = []
    answer: BoolArray = np.zeros(len(mask), bool)
    for count in range(1, MAX_ERROR_CLICKS + 1):
        click = error_click(case.surface, answer, mask)
        if click is None:
            break
        clicks.append(click)
        answer = segmenter.part_mask(case.mesh, case.encoding, clicks, seed) > 0.5
        iou = mask_iou(answer, mask, case.surface.areas)
        needed = {t: min(n, count) if iou >= t else n for t, n in needed.items()}
        if iou >= max(TARGETS):
            break
    return needed
