"""A reviewer made of code: sees what a person sees, says what a person could say.

Works through Label Studio's own interface and the stored sheet only: reads a task's data, fetches
the sheet's buffers, compares the parts shown on its pixels with the truth, then accepts, clicks at
most a few wrong spots, or rejects. Used by the demo and to measure what a person would pay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import ndimage

from segvigen_model.surface.overlap import Overlap, measure_overlap
from segvigen_model.types import BoolArray, FloatArray, IntArray
from tasks.rendering.labels import NEW_PART_LABELS, format_part_label
from tasks.rendering.pixel_buffers import Buffers, buffers_from_bytes
from tasks.review.client import LabelStudioTask
from tasks.review.label_config import CLICK, NOTE, SHEET, VERDICT
from tasks.review.project import ReviewProject
from tasks.storage import keys
from tasks.storage.store import Store

log = logging.getLogger(__name__)

GOOD_IOU = 0.9  # mean over true parts: accepted at once
GOOD_PART_IOU = 0.8  # or accepted when even the worst part is this good
TOLERABLE_IOU = 0.6  # accepted when clicks or rounds are used up
MIN_REGION_PIXELS = 60  # smaller mistakes are not worth a click
MIN_CLEARANCE_PIXELS = 2.0  # a person does not hit thinner regions safely
POINT_WIDTH = 0.9  # of the drawn dot; percent of the sheet
SECONDS_PER_TASK, SECONDS_PER_CLICK = 6.0, 3.0  # what a person would take; stored as lead time


@dataclass(frozen=True, slots=True)
class Spot:
    """Where to click and what to say there. Sheet pixels; `size` = pixels of the wrong region."""

    column: int
    row: int
    label: str
    size: int


@dataclass(frozen=True, slots=True)
class ReviewRules:
    """How the scripted reviewer behaves.

    Attributes:
        good_iou, good_part_iou, tolerable_iou: see the module's constants.
        max_clicks: per asset, over all rounds.
        clicks_per_round: at most.
        max_rounds: looks at one asset.
    """

    good_iou: float = GOOD_IOU
    good_part_iou: float = GOOD_PART_IOU
    tolerable_iou: float = TOLERABLE_IOU
    max_clicks: int = 10
    clicks_per_round: int = 4
    max_rounds: int = 4


@dataclass(slots=True)
class ScriptedReviewer:
    """Answers every open task of a review project whose asset's truth it knows.

    Attributes:
        project: the open review project.
        store: where the sheets' buffers are.
        truth: asset id -> (F,) int32 true part of each face.
        reject: assets to throw away, whatever they look like.
        rules: how it behaves.
    """

    project: ReviewProject
    store: Store
    truth: Mapping[str, IntArray]
    reject: frozenset[str] = frozenset()
    rules: ReviewRules = field(default_factory=ReviewRules)
    _clicks: dict[str, int] = field(default_factory=dict)

    def step(self) -> int:
        """Answer what is open now; returns the number of answers given."""
        num_submitted = 0
        for task in self.project.client.list_open_tasks(self.project.project_id):
            asset_id = str(task.data.get("asset_id"))
            if asset_id in self.truth or asset_id in self.reject:
                self.submit_annotation(task)
                num_submitted += 1
        return num_submitted

    def run(self, until: float, pause_s: float = 1.0) -> None:
        """Work until `time.monotonic()` passes `until`."""
        while time.monotonic() < until:
            self.step()
            time.sleep(pause_s)

    def submit_annotation(self, task: LabelStudioTask) -> dict[str, Any]:
        """Judge one task and submit; returns the annotation as Label Studio stored it."""
        asset_id, round_ = str(task.data["asset_id"]), int(task.data["round"])
        key = keys.make_review_buffers_key(asset_id, round_, str(task.data["proposal_sha256"]))
        buffers = buffers_from_bytes(self.store.get(key))
        verdict, spots, note = self._judge_sheet(asset_id, round_, buffers)
        self._clicks[asset_id] = self._clicks.get(asset_id, 0) + len(spots)
        log_fields = (asset_id[:12], round_, verdict, len(spots), note)
        log.info("reviewer=scripted asset=%s round=%d verdict=%s clicks=%d note=%s", *log_fields)
        annotation = make_annotation(verdict, spots, note, buffers.size)
        return self.project.client.create_annotation(task.task_id, annotation)

    def _judge_sheet(
        self, asset_id: str, round_: int, buffers: Buffers
    ) -> tuple[str, list[Spot], str]:
        if asset_id in self.reject:
            return "reject", [], "not wanted in this set"
        true = self.truth[asset_id]
        ious = compute_sheet_ious(buffers, true)
        quality = float(ious.mean())
        note = f"sheet IoU {quality:.3f}"
        rules = self.rules
        if quality >= rules.good_iou or float(ious.min()) >= rules.good_part_iou:
            return "accept", [], note
        left = min(rules.max_clicks - self._clicks.get(asset_id, 0), rules.clicks_per_round)
        if left > 0 and round_ + 1 < rules.max_rounds:
            spots = find_wrong_spots(buffers, true, left)
            if spots:
                return "refine", spots, note
        if quality >= rules.tolerable_iou:
            return "accept", [], note
        return "reject", [], f"{note} after {round_ + 1} rounds"


def compute_sheet_ious(buffers: Buffers, true_labels: IntArray) -> FloatArray:
    """IoU, over the sheet's pixels, of each visible true part with its one-to-one partner.

    Args:
        buffers: of the sheet.
        true_labels: (F,) int32.

    Returns:
        (T,) float64 in ascending order of true id; 0 for a part without partner.
    """
    return _measure_visible(buffers, true_labels).compute_matched_ious()


def find_wrong_spots(buffers: Buffers, true_labels: IntArray, max_spots: int) -> list[Spot]:
    """Where a person would click: the middle of the largest wrong regions on the sheet.

    A true part that no shown part stands for is asked for as a new part. Anything else is said to
    belong to the shown part that its true part is matched with. One spot for each pair of true
    and shown part, because a region that is seen in three tiles needs one click only.

    Args:
        buffers: of the sheet.
        true_labels: (F,) int32.
        max_spots: at most so many.

    Returns:
        Spots, largest region first.
    """
    true = np.where(buffers.face >= 0, true_labels[buffers.face], -1)
    spots: list[Spot] = []
    nameless: list[Spot] = []
    for true_part, partner in _measure_visible(buffers, true_labels).find_partners().items():
        is_true_part = true == true_part
        found = [
            _find_middle(
                is_true_part & (buffers.part == part),
                "" if partner is None else format_part_label(partner),
            )
            for part in np.unique(buffers.part[is_true_part])
            if part != partner
        ]
        good = sorted((spot for spot in found if spot is not None), key=lambda spot: -spot.size)
        if partner is None:
            nameless += good[:1]
        else:
            spots += good
    nameless.sort(key=lambda spot: -spot.size)
    named = zip(nameless, NEW_PART_LABELS, strict=False)  # the others wait for the next round
    spots += [replace(spot, label=label) for spot, label in named]
    return sorted(spots, key=lambda spot: -spot.size)[:max_spots]


def make_annotation(
    verdict: str, spots: Sequence[Spot], note: str, size: tuple[int, int]
) -> dict[str, Any]:
    """An annotation as the editor submits it.

    Args:
        verdict: "accept", "refine" or "reject".
        spots: clicks.
        note: free text, or "".
        size: width and height of the sheet in pixels.
    """
    results: list[dict[str, Any]] = []
    for number, spot in enumerate(spots):
        value = {
            "x": (spot.column + 0.5) / size[0] * 100,
            "y": (spot.row + 0.5) / size[1] * 100,
            "width": POINT_WIDTH,
            "keypointlabels": [spot.label],
        }
        place = {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
        results.append(
            {**place, **_make_result(f"click{number:05d}", CLICK, "keypointlabels", value)}
        )
    results.append(_make_result("verdict000", VERDICT, "choices", {"choices": [verdict]}))
    if note:
        results.append(_make_result("note000000", NOTE, "textarea", {"text": [note]}))
    seconds = SECONDS_PER_TASK + SECONDS_PER_CLICK * len(spots)
    return {"result": results, "lead_time": seconds, "was_cancelled": False}


def _make_result(result_id: str, name: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": result_id,
        "from_name": name,
        "to_name": SHEET,
        "type": kind,
        "origin": "manual",
        "value": dict(value),
    }


def _measure_visible(buffers: Buffers, true_labels: IntArray) -> Overlap:
    """Pixels that true parts and shown parts share on the sheet."""
    hit = buffers.face >= 0
    shown, true = buffers.part[hit], true_labels[buffers.face[hit]]
    return measure_overlap(true, shown, np.ones(len(shown)))


def _find_middle(region: BoolArray, label: str) -> Spot | None:
    """The safest pixel of a region's largest piece, or None when it is too small to hit."""
    found = ndimage.find_objects(region.astype(np.int8))
    if not found:
        return None
    top, left = found[0][0].start, found[0][1].start
    pieces, _ = ndimage.label(region[found[0]])
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    if sizes[largest] < MIN_REGION_PIXELS:
        return None
    room = ndimage.distance_transform_edt(np.pad(pieces == largest, 1))
    row, column = np.unravel_index(int(room.argmax()), room.shape)
    if room[row, column] < MIN_CLEARANCE_PIXELS:
        return None
    size = int(sizes[largest])
    return Spot(int(column) - 1 + left, int(row) - 1 + top, label, size)
