"""A survey: overlapping closer looks all over an object, for parts grown from fine patches.

What the whole's reading and every look say of two patches is averaged, on patches of half the
whole's size. Looks are made only of large loose pieces, and only once somebody asks.

Departs from paper: SegviGen colours at one resolution.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from segvigen_model.atoms import Atoms, patch_atoms
from segvigen_model.geometry import TINY, Surface, cut_out, sum_by
from segvigen_model.looks import MIN_GAIN, Look, nearest_faces, ways_over
from segvigen_model.reading import Bonds, patch_bonds
from segvigen_model.segments import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

NUM_FINE = 1024  # patches that parts are grown from
SHARE = 0.15  # of the surface, in one look
NUM_LOOK_PATCHES = 256
CORE = 0.7  # of a look: the rest overlaps with others
MAX_LOOKS = 40
MAX_FACES = 100_000  # of a mesh: above, looking everywhere takes longer than a proposal may
MIN_PIECE = 0.05  # of the surface; smaller loose pieces are left as the whole reads them
MIN_LARGEST = 0.5  # of the surface, in the largest piece; connected pieces answer elsewhere
# Log odds. Looks see more reasons to part than the whole does; with this the thresholds of the
# whole serve both.
BIAS = 0.4

Patches = tuple[Atoms, Bonds]  # to grow parts from


class Survey:
    """Patches of an object and how they belong together; read closely when first asked for.

    Args:
        surface: geometry.
        tree: its segments.
        whole: look at everything.
    """

    def __init__(self, surface: Surface, tree: SegmentTree, whole: Look) -> None:
        self._surface, self._tree, self._whole = surface, tree, whole
        self._found: Patches | None = None

    def closely(self) -> Patches:
        """Fine patches where looks can tell more, else those of the whole."""
        if self._found is None:
            is_worth = _is_worth(self._surface, self._whole)
            self._found = self._look() if is_worth else self.at_once()
        return self._found

    def at_once(self) -> Patches:
        """Patches of the whole."""
        return self._whole.atoms, self._whole.reading.bonds

    def _look(self) -> Patches:
        surface, reading = self._surface, self._whole.reading
        atoms = patch_atoms(surface, self._tree, NUM_FINE)
        everything = np.arange(surface.num_faces)
        within, _ = _projection(surface, atoms, everything, reading.blend)
        total = within @ reading.together @ within.T
        count = np.ones_like(total)
        for faces in tiles(surface):
            shown = cut_out(surface, faces)
            odds, blend = patch_bonds(shown, NUM_LOOK_PATCHES, reading.network)
            within, rows = _projection(surface, atoms, faces, blend)
            inner = np.ix_(rows, rows)
            total[inner] += within[rows] @ odds @ within[rows].T
            count[inner] += 1
        first = np.unique(atoms.of_face, return_index=True)[1]
        pieces = surface.components[first]
        return atoms, Bonds(total / count + BIAS, pieces)


def tiles(surface: Surface) -> Iterator[IntArray]:
    """Faces of overlapping looks that cover the large loose pieces: (N,) int64 ascending each.

    The next look is round the face that is furthest from the middles of those before.
    """
    shares = surface.areas / max(float(surface.areas.sum()), TINY)
    count = int(surface.components.max(initial=0)) + 1
    is_open = (sum_by(surface.components, shares, count) >= MIN_PIECE)[surface.components]
    gaps = np.full(surface.num_faces, np.inf)
    middle = (surface.centers * shares[:, None]).sum(axis=0)
    remote = np.linalg.norm(surface.centers - middle, axis=1)
    for _ in range(MAX_LOOKS):
        if not is_open.any():
            return
        far = np.where(np.isfinite(gaps), gaps, 1e9 + remote)
        ways = ways_over(surface, np.array([np.where(is_open, far, -1.0).argmax()]))
        is_open[nearest_faces(surface, ways, CORE * SHARE)] = False
        gaps = np.minimum(gaps, ways)
        yield nearest_faces(surface, ways, SHARE)


def _is_worth(surface: Surface, whole: Look) -> bool:
    """Whether a mesh has faces for finer patches, not too many, and one piece is most of it."""
    count = int(surface.components.max(initial=0)) + 1
    largest = sum_by(surface.components, surface.areas, count).max()
    is_fine = min(surface.num_faces, NUM_FINE) >= MIN_GAIN * whole.atoms.count
    is_large = surface.num_faces > MAX_FACES
    return bool(is_fine and not is_large and largest >= MIN_LARGEST * surface.areas.sum())


def _projection(
    surface: Surface, atoms: Atoms, faces: IntArray, blend: csr_matrix
) -> tuple[FloatArray, BoolArray]:
    """Each patch as a mean of a look's patches, and which of them the look mostly shows.

    Args:
        surface: geometry of the whole.
        atoms: (A) patches of the whole.
        faces: (N,) that the look shows.
        blend: (N, B) of the look.

    Returns:
        (A, B) float64, rows sum to 1 or 0, and (A,) bool.
    """
    weight = np.maximum(surface.areas, TINY)
    held = csr_matrix(
        (weight[faces], (atoms.of_face[faces], np.arange(len(faces)))), (atoms.count, len(faces))
    )
    size = np.asarray(held.sum(axis=1)).reshape(-1)
    within = (held @ blend).toarray() / np.maximum(size, TINY)[:, None]
    return within, size > 0.5 * sum_by(atoms.of_face, weight, atoms.count)
