"""What a third reviewer sees: the first one's labels, with the faces that the second one disputes.

The marks are drawn on the finished sheet, stripes over disputed faces and a line round them, so
that part colours and numbers stay as they are.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, BoolArray, IntArray
from tasks.catalogue import Catalogue, ProposalRow
from tasks.labelling.lineage import lineage_of
from tasks.labelling.loading import load_face_labels
from tasks.quality.adjudication import find_disputed_faces
from tasks.storage.store import Store

MARK_COLOR = (255, 0, 255)  # in no palette of parts
STRIPE_PERIOD, STRIPE_WIDTH, LINE_WIDTH = 14, 3, 2  # pixels
TITLE = "third review: two reviewers disagree where it is striped"
TITLE_REJECTED = "third review: one reviewer accepted this, one rejected it"


def make_third_review_title(row: ProposalRow) -> str:
    """What the task's title says besides; "" for an ordinary round."""
    about = lineage_of(row).third_review
    if about is None:
        return ""
    return TITLE if about.other_labels else TITLE_REJECTED


def is_last_round(catalogue: Catalogue, asset_id: str, round_: int, max_rounds: int) -> bool:
    """Is there no round after this one? A third review does not count and begins the count anew.

    Args:
        catalogue: knows which rounds are third reviews.
        asset_id: the asset.
        round_: one of its rounds.
        max_rounds: looks of a reviewer, at least 1.
    """
    rows = catalogue.list_proposals(asset_id)
    thirds = [row.round for row in rows if row.round <= round_ and lineage_of(row).third_review]
    return round_ - max(thirds, default=-1) >= max_rounds


def find_disputed(
    row: ProposalRow, face_labels: IntArray, mesh: AssetMesh, store: Store
) -> BoolArray | None:
    """(F,) faces that the other reviewer labelled differently; None for an ordinary round.

    Args:
        row: of the round.
        face_labels: (F,) int parts that the round shows.
        mesh: the asset.
        store: where the other labels are.
    """
    about = lineage_of(row).third_review
    if about is None or about.other_labels is None:
        return None
    other = load_face_labels(store, about.other_labels)
    return find_disputed_faces(face_labels, other, measure_surface(mesh).areas)


def mark_disputed(png: bytes, face: IntArray, disputed: BoolArray) -> bytes:
    """Mark disputed faces on a sheet.

    Args:
        png: the sheet.
        face: (H, W) face shown at each pixel, -1 for background.
        disputed: (F,) faces to mark.
    """
    return draw_stripes(png, (face >= 0) & disputed[face])


def draw_stripes(png: bytes, region: BoolArray) -> bytes:
    """Stripes over a region of a picture and a line round it; (H, W) bool as the picture."""
    image = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    row, column = np.indices(region.shape)
    stripes = region & ((row + column) % STRIPE_PERIOD < STRIPE_WIDTH)
    dilated = ndimage.binary_dilation(region, iterations=LINE_WIDTH)
    image[stripes | (dilated & ~region)] = MARK_COLOR
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
