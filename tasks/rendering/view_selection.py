"""Which views a contact sheet shows, so that every part above 0.3 % of the surface is seen.

Greedy choice over 27 directions by what each adds (parts x facing sides). A part that stays too
small gets a close-up; a part that nothing shows (it lies inside) is drawn without what hides it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from segvigen_model.types import FloatArray, IntArray
from tasks.rendering.views import View, list_directions, make_view, render_hits

MIN_PART_SHARE = 0.003  # share of surface below which a part need not be seen
MIN_PIXELS = 90  # of a 512-pixel view: about a 10 x 10 patch, enough to click on
FLAT_VIEW_WEIGHT = 0.7  # looking along an axis hides the shape; an oblique view tells more
PROBE_SIZE = 112  # pixels of the trial renders
REFERENCE_SIZE = 512
CLOSE_UP_MARGIN = 1.8  # a close-up shows this much of the neighbourhood
MAX_EXTRA = 3  # close-ups and inside views; the rest of the sheet shows the whole object


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """The chosen views and what stays unseen in spite of them.

    Attributes:
        views: in sheet order.
        unseen_parts: ids above the share that no view shows well.
    """

    views: tuple[View, ...]
    unseen_parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is looked at: everything that the choice of views needs, computed once."""

    triangles: FloatArray
    face_labels: IntArray
    num_parts: int
    wanted: frozenset[int]

    def count_part_pixels(self, view: View) -> FloatArray:
        """(P,) pixels per part in a trial render, scaled to the reference size."""
        probe = render_hits(self.triangles, view, PROBE_SIZE).face
        return _count_pixels(probe, self.face_labels, self.num_parts)


def plan_views(
    triangles: FloatArray, face_labels: IntArray, areas: FloatArray, num_views: int
) -> ViewPlan:
    """Choose the views of one sheet.

    Args:
        triangles: (F, 3, 3) float64 corners, unit frame.
        face_labels: (F,) int32 part ids, 0-based.
        areas: (F,) float64 face areas.
        num_views: how many tiles the sheet has.

    Returns:
        The plan; always `num_views` views.
    """
    num_parts = int(face_labels.max()) + 1
    wanted = frozenset(_find_wanted_parts(face_labels, areas))
    subject = _Subject(triangles, face_labels, num_parts, wanted)
    points = triangles.reshape(-1, 3)
    candidates = [make_view(direction, points) for direction in list_directions()]
    probes = [render_hits(triangles, view, PROBE_SIZE).face for view in candidates]
    cells = _label_cells(triangles, face_labels)
    order = _choose_greedily(
        np.stack([_count_pixels(probe, cells, num_parts * 6) for probe in probes]), num_views
    )
    pixels = np.stack([_count_pixels(probe, face_labels, num_parts) for probe in probes])
    views: list[View] = []
    needy: set[int] = set()
    for num_extra in range(min(MAX_EXTRA, num_views - 1) + 1):
        kept = order[: num_views - num_extra]
        needy = {part for part in wanted if pixels[kept, part].max() < MIN_PIXELS}
        extras, needy = _plan_extra_views(subject, needy, num_extra)
        fill = order[len(kept) : num_views - len(extras)]
        views = [*(candidates[index] for index in [*kept, *fill]), *extras]
        if not needy:
            break
    return ViewPlan(tuple(views), tuple(sorted(needy)))


def _plan_extra_views(
    subject: _Subject, needy: set[int], num_extra: int
) -> tuple[list[View], set[int]]:
    """Close-ups of hidden parts, then looks inside if need be; and who stays unseen."""
    extras: list[View] = []
    left = set(needy)
    enclosed: set[int] = set()
    while left - enclosed and len(extras) < num_extra - 1:
        part = min(left - enclosed)
        view, pixels = _make_close_up(subject, part)
        if pixels[part] < MIN_PIXELS:
            enclosed.add(part)
            continue
        extras.append(view)
        left -= {other for other in left if pixels[other] >= MIN_PIXELS}
    while left and len(extras) < num_extra:
        view, pixels = _make_close_up(subject, min(left))
        if len(left) > 1 or pixels[min(left)] < MIN_PIXELS:
            view, pixels = _make_inside_view(subject, left)
        seen = {other for other in left if pixels[other] >= MIN_PIXELS}
        if not seen and len(left) > 1:  # they hide each other whole: one of them alone
            view, pixels = _make_inside_view(subject, {min(left)})
            seen = {min(left)} if pixels[min(left)] >= MIN_PIXELS else set()
        extras.append(view)
        if not seen:
            break
        left -= seen  # what hid the rest is left out of the next look
    return extras, left


def _make_close_up(subject: _Subject, part: int) -> tuple[View, FloatArray]:
    points = subject.triangles[subject.face_labels == part].reshape(-1, 3)
    tried = []
    for direction in list_directions():
        view = make_view(direction, points)
        view = replace(view, name=f"{part}: close, {view.name}", half=view.half * CLOSE_UP_MARGIN)
        tried.append((view, subject.count_part_pixels(view)))
    return max(tried, key=lambda pair: float(pair[1][part]))


def _make_inside_view(subject: _Subject, parts: set[int]) -> tuple[View, FloatArray]:
    """Hidden parts drawn without the rest, from where the least seen of them shows best."""
    chosen = sorted(parts)
    only = np.flatnonzero(np.isin(subject.face_labels, chosen)).astype(np.int32)
    points = subject.triangles[only].reshape(-1, 3)
    name = f"inside: {', '.join(str(part) for part in chosen[:4])}{', ...' * (len(chosen) > 4)}"
    tried = []
    for direction in list_directions():
        view = replace(make_view(direction, points, name), only_faces=only)
        tried.append((view, subject.count_part_pixels(view)))
    return max(tried, key=lambda pair: float(pair[1][chosen].min()))


def _label_cells(triangles: FloatArray, face_labels: IntArray) -> IntArray:
    """(F,) part x dominant normal direction, so that all sides of a part count."""
    edges = triangles[:, 1:] - triangles[:, :1]
    normals = np.cross(edges[:, 0], edges[:, 1])
    axis = np.abs(normals).argmax(axis=1)
    sign = np.take_along_axis(normals, axis[:, None], axis=1)[:, 0] < 0
    return np.asarray(face_labels * 6 + axis * 2 + sign)


def _count_pixels(probe: IntArray, values: IntArray, length: int) -> FloatArray:
    """Pixels of a trial render per value of `values` (F,), scaled to the reference size."""
    seen = probe[probe >= 0]
    scale = (REFERENCE_SIZE / PROBE_SIZE) ** 2
    return np.bincount(values[seen], minlength=length) * scale


def _choose_greedily(cell_pixels: FloatArray, num_views: int) -> list[int]:
    """Indices of the views that together show each cell best; the hero (0) is always first."""
    best = cell_pixels.max(axis=0)
    quality = cell_pixels / np.maximum(best, 1)
    weights = np.sqrt(best)
    flat = (np.abs(list_directions()) > 0).sum(axis=1) == 1
    chosen = [0]
    while len(chosen) < min(num_views, len(cell_pixels)):
        seen = quality[chosen].max(axis=0)
        gain = (np.maximum(quality - seen, 0) * weights).sum(axis=1)
        gain[flat] *= FLAT_VIEW_WEIGHT
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
    return chosen


def _find_wanted_parts(face_labels: IntArray, areas: FloatArray) -> set[int]:
    share = np.bincount(face_labels, weights=areas) / max(float(areas.sum()), 1e-30)
    return {int(part) for part in np.flatnonzero(share > MIN_PART_SHARE)}
