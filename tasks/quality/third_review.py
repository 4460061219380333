"""What a third reviewer sees: the first one's labels, with the faces that the second one disputes.

The marks are drawn on the finished sheet, stripes over disputed faces and a line round them, so
that part colours and numbers stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from segvigen_model.surface.geometry import surface_of
from segvigen_model.types import AssetMesh, BoolArray, IntArray, Proposal
from tasks.catalogue import Catalogue
from tasks.quality.adjudication import THIRD_LOOK, disputed_faces
from tasks.storage.store import Store

MARK = (255, 0, 255)  # in no palette of parts
STRIPE_PERIOD, STRIPE_WIDTH, LINE_WIDTH = 14, 3, 2  # pixels
TITLE = "third look: two reviewers disagree where it is striped"
TITLE_REJECTED = "third look: one reviewer accepted this, one rejected it"


def third_look_title(provenance: Mapping[str, Any]) -> str:
    """What the task's title says besides; "" for an ordinary round."""
    about = provenance.get(THIRD_LOOK)
    if not isinstance(about, Mapping):
        return ""
    return TITLE if about.get("other_labels") else TITLE_REJECTED


def is_last_round(catalogue: Catalogue, asset_id: str, round_: int, max_rounds: int) -> bool:
    """Is there no round after this one? A third look does not count and begins the count anew.

    Args:
        catalogue: knows which rounds are third looks.
        asset_id: the asset.
        round_: one of its rounds.
        max_rounds: looks of a reviewer, at least 1.
    """
    rows = catalogue.proposals(asset_id)
    thirds = [row.round for row in rows if row.round <= round_ and THIRD_LOOK in row.provenance]
    return round_ - max(thirds, default=-1) >= max_rounds


def mark_disputed(
    png: bytes, face: IntArray, proposal: Proposal, mesh: AssetMesh, store: Store
) -> bytes:
    """Mark disputed faces on a sheet.

    Args:
        png: the sheet.
        face: (H, W) face shown at each pixel, -1 for background.
        proposal: of the round; without a third look the sheet stays as it is.
        mesh: the asset.
        store: where the other labels are.
    """
    about = proposal.provenance.get(THIRD_LOOK)
    key = about.get("other_labels") if isinstance(about, Mapping) else None
    if key is None:
        return png
    with np.load(io.BytesIO(store.get(key)), allow_pickle=False) as stored:
        other = stored["face_labels"]
    areas = surface_of(mesh).areas
    disputed = disputed_faces(proposal.face_labels, other, areas)
    return striped(png, (face >= 0) & disputed[face])


def striped(png: bytes, region: BoolArray) -> bytes:
    """Stripes over a region of a picture and a line round it; (H, W) bool as the picture."""
    image = np.array(Image.open(io.BytesIO(png)).convert("RGB"))
    row, column = np.indices(region.shape)
    stripes = region & ((row + column) % STRIPE_PERIOD < STRIPE_WIDTH)
    grown = ndimage.binary_dilation(region, iterations=LINE_WIDTH)
    image[stripes | (grown & ~region)] = MARK
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()
