"""How likely two touching pieces belong to different parts: features of a border, and a small
network on them, learned on labelled meshes (training/evidence.py).

The network judges geometry; what the model's draws say is added to its odds. Borders of larger
regions cost the mean of their pieces (partition.py merges them).
"""

from __future__ import annotations

import numpy as np

from segvigen_model.atoms import Atoms
from segvigen_model.evidence import Pieces
from segvigen_model.geometry import TINY, sum_by
from segvigen_model.perceptron import WEIGHTS_FOLDER, load_network, sigmoid
from segvigen_model.types import FloatArray

WEIGHTS_FILE = WEIGHTS_FOLDER / "borders.safetensors"
DRAW_WEIGHT = 0.5
DRAW_BIAS = 0.0
DRAW_RANGE = (0.05, 0.95)


def border_features(pieces: Pieces, atoms: Atoms) -> FloatArray:
    """Describe every border between touching atoms.

    Args:
        pieces: facts of the atoms.
        atoms: the atoms and their borders.

    Returns:
        (B, D) float32; the order of the two sides does not matter.
    """
    left, right = atoms.pairs.T
    columns: list[FloatArray] = [atoms.folds, np.log(atoms.lengths + 1e-6)]
    perimeter = sum_by(left, atoms.lengths, atoms.count) + sum_by(right, atoms.lengths, atoms.count)
    for share in (atoms.lengths / np.maximum(perimeter[side], TINY) for side in (left, right)):
        columns.append(share)
    columns[2:4] = _both(columns[2], columns[3])
    columns += _both(*(np.log(atoms.areas[side] + 1e-6) for side in (left, right)))
    for level in range(len(pieces.levels)):
        columns.append((pieces.levels[level, left] == pieces.levels[level, right]).astype(float))
    for level in (3, 5, -2, -1):
        areas = np.log(pieces.level_areas[level] + 1e-6)
        columns += _both(areas[left], areas[right])
    columns.append((pieces.materials[left] == pieces.materials[right]).astype(float))
    columns.append(np.einsum("bd,bd->b", pieces.normals[left], pieces.normals[right]))
    step = pieces.centers[right] - pieces.centers[left]
    gap = np.linalg.norm(step, axis=1)
    columns.append(gap)
    bend = np.einsum("bd,bd->b", pieces.normals[right] - pieces.normals[left], step)
    columns.append(bend / np.maximum(gap, TINY))
    columns += [np.full(len(left), value) for value in pieces.summary]
    return np.stack(columns, axis=1).astype(np.float32)


def border_costs(pieces: Pieces, atoms: Atoms, histograms: FloatArray | None) -> FloatArray:
    """Probability that the two sides of each border are different parts.

    Args:
        pieces: facts of the atoms.
        atoms: the atoms and their borders.
        histograms: (A, C) share of each draw's labels per atom, rows sum to 1; None without draws.

    Returns:
        (B,) float64, 0..1.
    """
    if not len(atoms.pairs):
        return np.zeros(0)
    odds = load_network(WEIGHTS_FILE).forward(border_features(pieces, atoms))
    if histograms is not None:
        left, right = atoms.pairs.T
        together = np.minimum(histograms[left], histograms[right]).sum(axis=1)
        together = np.clip(together, *DRAW_RANGE)
        odds = odds + DRAW_WEIGHT * np.log((1.0 - together) / together) + DRAW_BIAS
    return sigmoid(odds)


def _both(left: FloatArray, right: FloatArray) -> list[FloatArray]:
    """Two values of a border's sides, the smaller first."""
    return [np.minimum(left, right), np.maximum(left, right)]
