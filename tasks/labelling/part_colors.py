"""Part colours: one fixed sequence, distinct also for colour-blind reviewers.

The sequence is grown greedily: each next colour is the one farthest (CIELAB) from all before it,
as seen by normal, protanope and deuteranope eyes, whichever is worst. The two special labels'
colours are reserved first. Which colour a part has (its slot) is chosen once, far from those of
its neighbours, and goes with the part through every view and round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from segvigen_model.surface.arrays import take_farthest
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.sampling import find_contacts, sample_faces
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray

NEW_PART_COLOR = (46, 0, 255)  # farthest from the first colours for all kinds of eyes
NOT_OBJECT_COLOR = (70, 70, 70)
BACKGROUND_COLOR = (246, 247, 249)
NUM_COLORS = 256
NEIGHBOUR_CELL = 1 / 48  # of the longest side: parts this close are neighbours
CLEAR_DISTANCE = 40.0  # CIE76; farther apart is not clearer
NUM_SPARE_SLOTS = 4  # later parts may choose among so many more
LEVELS = 11  # candidate values per channel
# The first seven are Okabe and Ito's well-tried set; the rest keeps away from these.
FIRST_COLORS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
MIN_LIGHTNESS, MAX_LIGHTNESS = 46.0, 90.0  # dark outlines and white background stay visible
MIN_CHROMA = 22.0  # grey is kept for shading and for "not an object"

# Full-severity simulation matrices on linear RGB (Machado, Oliveira, Fernandes 2009).
_PROTAN = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
_DEUTAN = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def assign_part_colors(num_parts: int, slots: Sequence[int] | None = None) -> ByteArray:
    """Colours of parts.

    Args:
        num_parts: how many, >= 0.
        slots: place of each part's colour in the fixed sequence; part k has place k when None.
            Places beyond NUM_COLORS start over.

    Returns:
        (num_parts, 3) uint8 sRGB.
    """
    sequence = _build_sequence()
    places = np.arange(num_parts) if slots is None else np.asarray(slots[:num_parts], np.int64)
    return np.asarray(sequence[places % len(sequence)])


def spread_slots(mesh: AssetMesh, face_labels: IntArray, slots: Sequence[int]) -> list[int]:
    """Give parts without a colour one that none has, far from those of their neighbours.

    Args:
        mesh: the asset.
        face_labels: (F,) int dense part ids.
        slots: P places in the colour sequence; -1 = to be chosen.

    Returns:
        P places; those that were chosen before stay.
    """
    chosen = list(slots)
    unknown = [part for part, slot in enumerate(chosen) if slot < 0]
    if len(chosen) <= len(FIRST_COLORS) and len(unknown) == len(chosen):
        return list(range(len(chosen)))  # these few are all far apart
    used = {slot for slot in chosen if slot >= 0}
    limit = len(chosen) + (NUM_SPARE_SLOTS if used else 0)
    gaps = compute_color_distances(_build_sequence())
    near = find_part_neighbours(mesh, face_labels)
    for part in sorted(unknown, key=lambda each: (-len(near[each]), each)):
        free = np.array([slot for slot in range(limit) if slot not in used])
        around = [chosen[other] % NUM_COLORS for other in near[part] if chosen[other] >= 0]
        clear = gaps[free % NUM_COLORS][:, around].min(axis=1, initial=CLEAR_DISTANCE)
        chosen[part] = int(free[clear.argmax()])
        used.add(chosen[part])
    return chosen


def find_part_neighbours(mesh: AssetMesh, face_labels: IntArray) -> list[set[int]]:
    """Parts that touch or nearly touch each part, of P."""
    surface = measure_surface(mesh)
    cell = NEIGHBOUR_CELL * surface.extent
    points = sample_faces(surface.triangles, surface.areas, 0.6 * cell)
    near: list[set[int]] = [set() for _ in range(int(face_labels.max(initial=-1)) + 1)]
    for left, right in find_contacts(points, face_labels.astype(np.int64), cell)[0].tolist():
        near[left].add(right)
        near[right].add(left)
    return near


def format_hex_color(rgb: ByteArray | tuple[int, int, int]) -> str:
    """`#rrggbb` for HTML and Label Studio."""
    red, green, blue = (int(value) for value in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


def compute_color_distances(colors: ByteArray) -> FloatArray:
    """Worst-case perceived distance between colours over three kinds of eyes.

    Args:
        colors: (N, 3) uint8 sRGB.

    Returns:
        (N, N) float64 CIE76 distances, the smallest of the three.
    """
    seen = _simulate_perception(colors)
    gaps = np.linalg.norm(seen[:, :, None] - seen[:, None, :], axis=-1)
    return np.asarray(gaps.min(axis=0))


@lru_cache(maxsize=1)
def _build_sequence() -> ByteArray:
    """(256, 3) uint8; grown once per process, the same everywhere."""
    axis = np.linspace(0, 255, LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _simulate_perception(grid)[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    fits = (lab[:, 0] > MIN_LIGHTNESS) & (lab[:, 0] < MAX_LIGHTNESS) & (chroma > MIN_CHROMA)
    grid = grid[fits]
    first = np.array(FIRST_COLORS, dtype=np.uint8)
    special = np.array([NEW_PART_COLOR, NOT_OBJECT_COLOR, BACKGROUND_COLOR], dtype=np.uint8)
    reserved = np.concatenate([special, first])
    seen = _simulate_perception(np.concatenate([reserved, grid]))
    used, candidates = seen[:, : len(reserved)], seen[:, len(reserved) :]
    nearest = np.linalg.norm(candidates[:, :, None] - used[:, None, :], axis=-1).min(axis=(0, 2))

    def distances(row: int) -> FloatArray:
        gaps = np.linalg.norm(candidates - candidates[:, row : row + 1], axis=-1)
        return np.asarray(gaps.min(axis=0))

    order = take_farthest(nearest, min(NUM_COLORS - len(first), len(grid)), distances)
    return np.concatenate([first, grid[order]])


def _simulate_perception(colors: ByteArray) -> FloatArray:
    """(3, N, 3) CIELAB for normal, protanope and deuteranope eyes."""
    srgb = colors.astype(np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    eyes = (np.eye(3), np.array(_PROTAN), np.array(_DEUTAN))
    return np.stack([_convert_to_lab(np.clip(linear @ eye.T, 0, 1)) for eye in eyes])


def _convert_to_lab(linear: FloatArray) -> FloatArray:
    xyz = linear @ np.array(_RGB_TO_XYZ).T / np.array(_WHITE)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [
            116 * root[:, 1] - 16,
            500 * (root[:, 0] - root[:, 1]),
            200 * (root[:, 1] - root[:, 2]),
        ],
        axis=-1,
    )
