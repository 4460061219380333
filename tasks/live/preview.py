"""The form of a live response: one brush mask over the whole sheet, and the faces behind it.

Format for the 3D viewer. The suggestion is a region of `from_name` "preview" and carries
`meta.preview` = {"version": 1, "num_faces": F, "part": p, "label": "part 3", "is_positive": true,
"parts": {"<part id>": [gap, length, gap, length, ...]}, "confidence": 0..1, "notes": [...]}.
`parts` has every face whose part changes, under its NEW id: runs of face indices in ascending
order, each run given by the gap to the end of the run before (from 0) and its length. Ids are those
of the sheet; an id >= the number of parts shown is a new part. All other faces stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from label_studio_sdk.converter.brush import mask2rle

from segvigen_model.partition.edits import compute_merged_ids
from segvigen_model.types import BoolArray, IntArray, Proposal
from tasks.rendering.pixel_buffers import Buffers
from tasks.review.annotations import PointedClick
from tasks.review.label_config import CLICK, PREVIEW, PREVIEW_LABEL, SHEET

VERSION = 1
OPAQUE = 255
KEYPOINT_WIDTH = 0.9  # percent of the sheet, as the editor draws them


@dataclass(frozen=True, slots=True)
class Preview:
    """What the clicks of one request did to the partition that the reviewer sees.

    Attributes:
        shown: (F,) part ids that the reviewer sees.
        refined: the partition after the clicks.
        part: id in `refined` of the part that the clicks speak of, or -1 when it is gone.
        clicks: those of the request; they come back under new ids, because the editor deletes its
            own when the reviewer accepts a preview.
        merges: groups of shown ids that were made one before the clicks.
        request: names the request; the same one gives the same result ids.
    """

    shown: IntArray
    refined: Proposal
    part: int
    clicks: Sequence[PointedClick] = ()
    merges: Sequence[Sequence[int]] = ()
    request: str = ""


def encode_face_runs(faces: IntArray) -> list[int]:
    """Ascending face indices as [gap, length, gap, length, ...]."""
    if not len(faces):
        return []
    breaks = np.flatnonzero(np.diff(faces) != 1) + 1
    starts = faces[np.concatenate([[0], breaks])]
    ends = faces[np.concatenate([breaks - 1, [len(faces) - 1]])] + 1
    gaps = starts - np.concatenate([[0], ends[:-1]])
    return [int(value) for value in np.stack([gaps, ends - starts], axis=1).reshape(-1)]


def find_changed_parts(before: IntArray, after: IntArray) -> dict[str, list[int]]:
    """New part id -> runs of the faces that come to it."""
    moved = np.flatnonzero(before != after)
    return {
        str(part): encode_face_runs(moved[after[moved] == part])
        for part in np.unique(after[moved]).tolist()
    }


def make_sheet_mask(buffers: Buffers, faces: BoolArray) -> BoolArray:
    """(H, W) bool: pixels of all views that show one of the (F,) chosen faces."""
    seen = buffers.face >= 0
    mask: BoolArray = seen & faces[np.where(seen, buffers.face, 0)]
    return mask


def map_to_shown_ids(
    refined: Proposal, num_shown: int, merges: Sequence[Sequence[int]] = ()
) -> IntArray:
    """(P,) for each part of a refined partition the id on the sheet, or a higher one if new.

    The refinement gives a vacated id to a new part; here that would look like the old one. Merged
    parts go by the id of the first that was named.
    """
    id_map = refined.refinement.id_map
    merged_into = compute_merged_ids(num_shown, merges)
    shown = np.arange(refined.num_parts) + max(num_shown, 1 + max(id_map, default=0))
    for before, now in sorted(id_map.items(), reverse=True):
        shown[now] = merged_into.get(before, before)
    return shown


def make_preview_results(buffers: Buffers, preview: Preview) -> list[dict[str, Any]]:
    """Label Studio results of a live answer: the mask, unless nothing of it is in sight, then the
    clicks.

    Args:
        buffers: of the sheet.
        preview: what the clicks did.
    """
    part, refined = preview.part, preview.refined
    if part < 0:
        return []
    mask = make_sheet_mask(buffers, refined.face_labels == part)
    if not mask.any():
        return []
    width, height = buffers.size
    place = {"original_width": width, "original_height": height, "image_rotation": 0}
    brush = {
        **place,
        "id": _make_id(preview.request, "preview"),
        "from_name": PREVIEW,
        "to_name": SHEET,
        "type": "brushlabels",
        "origin": "prediction",
        "score": round(float(refined.part_confidence[part]), 4),
        "value": {"format": "rle", "rle": _encode_mask(mask), "brushlabels": [PREVIEW_LABEL]},
        "meta": {"preview": _describe_preview(preview)},
    }
    return [brush, *(_echo_click(click, place) for click in preview.clicks)]


def make_echo_id(result_id: str) -> str:
    """Id under which a click comes back; the same click always gets the same."""
    return _make_id(result_id, "click")


def _describe_preview(preview: Preview) -> Mapping[str, Any]:
    shown, refined, clicks = preview.shown, preview.refined, preview.clicks
    ids = map_to_shown_ids(refined, int(shown.max(initial=-1)) + 1, preview.merges)
    return {
        "version": VERSION,
        "num_faces": len(shown),
        "part": int(ids[preview.part]),
        "label": clicks[-1].label if clicks else "",
        "is_positive": clicks[-1].is_positive if clicks else True,
        "parts": find_changed_parts(shown, ids[refined.face_labels]),
        "confidence": round(refined.confidence, 4),
        "notes": list(refined.fallbacks),
    }


def _echo_click(click: PointedClick, place: Mapping[str, Any]) -> dict[str, Any]:
    """A click as a plain keypoint. The editor forgets `is_positive` of those: it goes into meta."""
    width, height = place["original_width"], place["original_height"]
    point = {
        "face": click.face,
        "xyz": [float(value) for value in click.xyz],
        "is_positive": click.is_positive,
    }
    return {
        **place,
        "id": make_echo_id(click.result_id),
        "from_name": CLICK,
        "to_name": SHEET,
        "type": "keypointlabels",
        "origin": "manual",
        "value": {
            "x": click.pixel_x / width * 100,
            "y": click.pixel_y / height * 100,
            "width": KEYPOINT_WIDTH,
            "keypointlabels": [click.label],
        },
        "is_positive": click.is_positive,
        "meta": {"text": [json.dumps(point)]},
    }


def _encode_mask(mask: BoolArray) -> list[int]:
    """Bytes of a mask in Label Studio's brush encoding."""
    rle: list[int] = mask2rle(mask.astype(np.uint8) * OPAQUE)  # type: ignore[no-untyped-call]
    return rle


def _make_id(text: str, purpose: str) -> str:
    return purpose[0] + hashlib.sha256(f"{purpose}:{text}".encode()).hexdigest()[:11]
