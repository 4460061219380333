"""Measure a checkpoint, and the geometric baselines beside it, on a labelled folder.

Scores are area-weighted on faces, means over parts (clicks) or objects (full), with 95 % intervals
over objects. Two regimes: the meshes as they are, and fused to a single shell each. An
object that cannot be used is counted and reported, and the run continues.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segvigen_model.datasets.labelled_folder import (
    SURFACES,
    UNLABELLED,
    LabelledObject,
    Row,
    choose_rows,
    get_row_name,
    load_object,
)
from segvigen_model.errors import AssetRejected, SegvigenError
from segvigen_model.evaluation import baselines
from segvigen_model.evaluation.bootstrap import ObjectMeans, nest_values
from segvigen_model.evaluation.metrics import (
    compute_boundary_f1,
    compute_mask_iou,
    compute_miou_best,
    compute_miou_matched,
)
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks, find_error_click
from segvigen_model.segmenter import Segmenter
from segvigen_model.session import Session
from segvigen_model.slat_flow.palette import draw_separated_colors
from segvigen_model.surface.arrays import densify_ids
from segvigen_model.types import BoolArray, ByteArray, Click, IntArray

MODES = ("interactive", "full", "guided", "error_clicks")
VIEW_PIXELS = 256  # of the painted view
MAX_ERROR_CLICKS = 10
TARGETS = (0.8, 0.9)
FULL_MARGINS = ("miou_matched", "miou_best")
ORACLE = (
    "voronoi, one click a part"  # it knows where the parts are: shown, never the baseline to beat
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is measured; see `evaluate`."""

    labels: str = "face_inst"
    surface: str = "as-is"
    modes: tuple[str, ...] = ("interactive", "full")
    clicks: tuple[int, ...] = (1, 3, 5, 10)
    seed: int = 0
    seeds: int = 1

    def list_seeds(self) -> range:
        """Seeds of clicks and draws."""
        return range(self.seed, self.seed + self.seeds)


@dataclass(slots=True)
class ObjectScores:
    """Everything that was measured on one object.

    Attributes:
        name: its id.
        identity: weights, algorithm and configuration that answered (`Segmenter.identity`).
        num_parts: parts that were requested; 0 when the object was refused.
        values: dotted name -> numbers.
        refusals: why something could not be measured.
    """

    name: str
    identity: Mapping[str, str | int]
    num_parts: int = 0
    values: dict[str, list[float]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        """Append one number."""
        self.values.setdefault(name, []).append(float(value))


@dataclass(frozen=True, slots=True)
class Case:
    """One object, opened with the model that is measured."""

    item: LabelledObject
    session: Session
    baselines: baselines.Baselines


# The options of a protocol, by name, each with a default.
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
    seeds: int = 1,
    split: str | None = None,
    workers: int = 1,
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
        seed: first seed of clicks and draws.
        seeds: so many seeds in a row; error clicks have no chance in them and take the first.
        split: "train", "validation" or "heldout" by datasets/holdout.json; None = all rows.
        workers: processes; more than one needs a checkpoint, not a segmenter.
        segmenter: a loaded one.

    Returns:
        Nested means: interactive["iou@1"].., full.miou_best, full.miou_matched,
        baselines[name].., guided, error_clicks, objects, parts, seconds; the same tree of
        `intervals`; `compute_margins` over the best baseline; `refused` and `refusals`;
        `by_object`, the same tree with all numbers of one object after the other, to compare two
        runs.
    """
    unknown = set(modes) - set(MODES)
    if unknown or surface not in SURFACES:
        raise ValueError(f"unknown mode or surface: {sorted(unknown)} {surface!r}")
    if workers > 1 and segmenter is not None:
        raise ValueError(f"workers={workers} needs the name of a checkpoint, not a segmenter")
    protocol = Protocol(labels, surface, tuple(modes), tuple(clicks), seed, seeds)
    rows, started = choose_rows(Path(data_dir), split, limit), time.monotonic()
    if workers > 1:
        results = evaluate_in_processes(Path(data_dir), rows, protocol, str(checkpoint), workers)
    else:
        loaded = segmenter or Segmenter.from_checkpoint(checkpoint)
        results = (measure_row(Path(data_dir), row, protocol, loaded) for row in rows)
    bar = tqdm(results, total=len(rows), desc=f"evaluate {surface}", mininterval=5)
    report = summarize_results(list(bar), protocol)
    report.setdefault("seconds", {})["total"] = time.monotonic() - started
    settings = {"surface": surface, "labels": labels, "seed": seed, "seeds": seeds, "split": split}
    return {**report, **settings, "workers": workers}


def evaluate_in_processes(
    folder: Path, rows: Sequence[Row], protocol: Protocol, checkpoint: str, workers: int
) -> Iterator[ObjectScores]:
    """Measure objects in several processes, in the order of the rows."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_load_in_worker, initargs=(checkpoint, threads)
    )
    with pool:
        yield from pool.map(_measure_in_worker, [(folder, row, protocol) for row in rows])


_worker: list[Segmenter] = []  # of a worker process, set once when it starts


def _load_in_worker(checkpoint: str, threads: int) -> None:
    torch.set_num_threads(threads)
    _worker[:] = [Segmenter.from_checkpoint(checkpoint)]


def _measure_in_worker(job: tuple[Path, Row, Protocol]) -> ObjectScores:
    return measure_row(*job, _worker[0])


def measure_row(folder: Path, row: Row, protocol: Protocol, segmenter: Segmenter) -> ObjectScores:
    """Measure one object in every mode; what cannot be done is noted."""
    scores = ObjectScores(get_row_name(row), segmenter.identity)
    try:
        case = open_case(folder, row, protocol, segmenter, scores)
    except SegvigenError as err:
        return note_refusal(scores, "object", err)
    scores.num_parts = len(case.item.list_part_masks())
    for mode in protocol.modes:
        try:
            SCORERS[mode](case, protocol, scores)
        except SegvigenError as err:
            note_refusal(scores, mode, err)
    return scores


def note_refusal(scores: ObjectScores, what: str, err: Exception) -> ObjectScores:
    """Note a refusal."""
    log.warning("object=%s refused=%s: %s", scores.name, what, err)
    scores.refusals.append(f"{what}: {err}")
    return scores


def open_case(
    folder: Path, row: Row, protocol: Protocol, segmenter: Segmenter, scores: ObjectScores
) -> Case:
    """Load, fuse when asked, and encode an object."""
    item = load_object(folder, row, protocol.labels, protocol.surface)
    start = time.perf_counter()
    session = segmenter.open(item.mesh)
    scores.add("seconds|encode", time.perf_counter() - start)
    return Case(item, session, baselines.prepare_baselines(item.surface))


def summarize_results(results: Sequence[ObjectScores], protocol: Protocol) -> dict[str, Any]:
    """Means, intervals and margins of all objects, JSON-able."""
    measured = [scores for scores in results if scores.num_parts]
    refusals = {scores.name: scores.refusals for scores in results if scores.refusals}
    table = ObjectMeans([scores.values for scores in measured], protocol.seed)
    report = nest_values({name: table.compute_mean(name) for name in table.names})
    judged = [name for name in table.names if not name.startswith("seconds")]
    has_intervals = len(measured) > 1  # one object does not stop the others
    return {
        **report,
        "intervals": nest_values({n: table.compute_interval(n) for n in judged if has_intervals}),
        "margins": nest_values(dict(compute_margins(table)) if has_intervals else {}),
        **(results[0].identity if results else {"checkpoint": None}),
        "objects": len(measured),
        "parts": sum(scores.num_parts for scores in measured),
        "by_object": [{"object": each.name, **nest_values(each.values)} for each in measured],
        "refused": sum(not scores.num_parts for scores in results),
        "refusals": refusals,
    }


def compute_margins(table: ObjectMeans) -> Iterator[tuple[str, dict[str, Any]]]:
    """How far the segmenter lies above the baseline that is best on these very objects.

    Choosing the bar on the data that is measured favours the baselines, never the segmenter.
    """
    full = [f"full|{name}" for name in FULL_MARGINS]
    for name in (n for n in table.names if n.startswith("interactive|") or n in full):
        ending = name.split("|")[1]
        others = [n for n in table.names if n.startswith("baselines|") and n.endswith(f"|{ending}")]
        others = [n for n in others if n.split("|")[1] != ORACLE]
        if others:
            best = max(others, key=table.compute_mean)
            gap, interval = table.compute_difference(name, best)
            bar = {"baseline": best.split("|")[1], "difference": gap, "interval": interval}
            yield name, bar


def score_clicks(case: Case, protocol: Protocol, scores: ObjectScores) -> None:
    """Positive clicks on every part, model and baselines on the same points."""
    item, areas = case.item, case.item.areas
    for seed in protocol.list_seeds():
        rng = np.random.default_rng(seed)
        for mask in item.list_part_masks():
            points = draw_surface_clicks(item.surface, mask, max(protocol.clicks), rng)
            for count in protocol.clicks:
                start = time.perf_counter()
                probability = case.session.click(points[:count], seed)
                scores.add("seconds|click", time.perf_counter() - start)
                scores.add(
                    f"interactive|iou@{count}", compute_mask_iou(probability > 0.5, mask, areas)
                )
                for name, other in baselines.predict_click_masks(
                    case.baselines, points[:count]
                ).items():
                    scores.add(
                        f"baselines|{name}|iou@{count}", compute_mask_iou(other, mask, areas)
                    )


def score_full(case: Case, protocol: Protocol, scores: ObjectScores) -> None:
    """Full segmentation, model and baselines."""
    for seed in protocol.list_seeds():
        start = time.perf_counter()
        proposal = case.session.propose(seed=seed)
        scores.add("seconds|full", time.perf_counter() - start)
        scores.add("full|confidence", proposal.confidence)
        add_partition(scores, "full", proposal.face_labels, case.item)
        add_partition(
            scores, f"baselines|{ORACLE}", partition_by_random_clicks(case.item, seed), case.item
        )
    for name, labels in baselines.predict_full_labels(case.baselines).items():
        add_partition(scores, f"baselines|{name}", labels, case.item)


def partition_by_random_clicks(item: LabelledObject, seed: int) -> IntArray:
    """(F,) the geodesic cell of one random click on every true part."""
    rng = np.random.default_rng(seed)
    faces = [
        draw_surface_clicks(item.surface, mask, 1, rng)[0].face for mask in item.list_part_masks()
    ]
    return baselines.compute_geodesic_voronoi(item.surface, faces)


def add_partition(
    scores: ObjectScores, prefix: str, predicted: IntArray, item: LabelledObject
) -> None:
    """Best-match, one-to-one and border scores of one partition."""
    scores.add(f"{prefix}|miou_best", compute_miou_best(predicted, item.labels, item.areas))
    scores.add(f"{prefix}|miou_matched", compute_miou_matched(predicted, item.labels, item.areas))
    f1 = compute_boundary_f1(predicted, item.labels, item.judged_surface)
    scores.add(f"{prefix}|boundary_f1", f1)


def score_guided(case: Case, protocol: Protocol, scores: ObjectScores) -> None:
    """A front view painted with the true parts (an oracle map), as in the paper's last row."""
    for seed in protocol.list_seeds():
        part_map = paint_view(case, seed)
        start = time.perf_counter()
        try:
            proposal = case.session.guided(part_map, seed=seed)
        except ValueError as err:  # too many colours to tell apart, or none in sight
            raise AssetRejected("no_part_map", str(err)) from err
        scores.add("seconds|guided", time.perf_counter() - start)
        add_partition(scores, "guided", proposal.face_labels, case.item)


def paint_view(case: Case, seed: int) -> ByteArray:
    """(S, S, 3) uint8 view of the checkpoint's camera in one colour per true part.

    What has no label and where nothing is are black.
    """
    item, faces = case.item, case.session.view_faces(VIEW_PIXELS)
    ids = densify_ids(item.labels) + int(item.labels.min() >= 0)  # 0 = unlabelled
    colors = np.concatenate([np.zeros((1, 3)), draw_painted_colors(int(ids.max()), seed)])
    picture = np.where((faces >= 0)[..., None], colors[ids[np.maximum(faces, 0)]], 0.0)
    view: ByteArray = (picture * 255).round().astype(np.uint8)
    return view


def draw_painted_colors(count: int, seed: int) -> np.ndarray[Any, Any]:
    """(count, 3) float colours, none of them the black of the background."""
    colors = draw_separated_colors(count + 1, np.random.default_rng(seed))
    return np.delete(colors, colors.sum(1).argmin(), axis=0)


def score_error_clicks(case: Case, protocol: Protocol, scores: ObjectScores) -> None:
    """Clicks on the largest error, both signs, until the targets are reached."""
    for mask in case.item.list_part_masks():
        ious = measure_error_clicks(case, mask, protocol.seed)
        for target in TARGETS:
            reached = [count for count, iou in enumerate(ious, 1) if iou >= target]
            needed = reached[0] if reached else MAX_ERROR_CLICKS + 1
            scores.add(f"error_clicks|clicks_to_{target}", needed)
            scores.add(f"error_clicks|share_to_{target}", bool(reached))
        for count in protocol.clicks:
            scores.add(f"error_clicks|iou@{count}", ious[min(count, len(ious)) - 1])


def measure_error_clicks(case: Case, mask: BoolArray, seed: int) -> list[float]:
    """IoU after each click; ends when the highest target is reached or the clicks are used up."""
    clicks: list[Click] = []
    ious: list[float] = []
    probability: BoolArray = np.zeros(len(mask), bool)
    while len(clicks) < MAX_ERROR_CLICKS and (not ious or ious[-1] < max(TARGETS)):
        click = find_error_click(case.item.surface, probability, mask)
        if click is None:
            break
        clicks.append(click)
        probability = case.session.click(clicks, seed) > 0.5
        probability &= case.item.labels != UNLABELLED  # nobody can say that it is wrong there
        ious.append(compute_mask_iou(probability, mask, case.item.areas))
    return ious


SCORERS: dict[str, Callable[[Case, Protocol, ObjectScores], None]] = {
    "interactive": score_clicks,
    "full": score_full,
    "guided": score_guided,
    "error_clicks": score_error_clicks,
}
