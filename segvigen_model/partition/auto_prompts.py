"""A survey: overlapping closer looks and tried clicks all over an object, for parts that nobody
clicked.

What the whole's reading and every look say of two patches is averaged, on patches of half the
whole's size, and joined with what clicks would take (votes.py). All this is done on a skin only,
a loose piece that is nearly everything, and only once somebody asks.

Departs from paper: SegviGen colours at one resolution, and draws from noise where this clicks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csc_matrix

from segvigen_model.config import AutoPromptConfig, SegmenterConfig
from segvigen_model.interactive.affinity import Bonds
from segvigen_model.interactive.crops import Look, look_at, nearest_faces, ways_over
from segvigen_model.partition.mask_voting import taken, with_votes
from segvigen_model.surface.adjacency import Atoms, patch_atoms
from segvigen_model.surface.arrays import TINY, farthest, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.patch_features import largest_faces
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

Patches = tuple[Atoms, Bonds]  # to grow parts from


class Survey:
    """Patches of an object and how they belong together; read closely when first asked for.

    Args:
        surface: geometry.
        tree: its segments.
        whole: look at everything.
        config: of the segmenter.
    """

    def __init__(
        self, surface: Surface, tree: SegmentTree, whole: Look, config: SegmenterConfig
    ) -> None:
        self._surface, self._tree, self._whole = surface, tree, whole
        self._config = config
        self._found: Patches | None = None

    def closely(self) -> Patches:
        """What looks and tried clicks tell of a skin, else the whole's reading.

        Patches are finer where looks can tell more.
        """
        if self._found is None:
            surface = self._surface
            skin = float(surface.areas[_in_largest_piece(surface)].sum())
            least = self._config.components.single_shell_share
            is_skin = skin >= least * max(float(surface.areas.sum()), TINY)
            self._found = self._look() if is_skin else self.at_once()
        return self._found

    def at_once(self) -> Patches:
        """Patches of the whole, as it was read."""
        return self._whole.atoms, self._whole.reading.bonds

    def _look(self) -> Patches:
        surface, whole, config = self._surface, self._whole, self._config
        prompts, at_once = config.auto_prompts, config.limits.max_batch_questions
        is_finer = _is_finer(surface, whole, config)
        atoms = self._fine_atoms() if is_finer else whole.atoms
        onto = _PatchMap(surface, atoms)
        clicked = onto.spread(_in_largest_piece(surface), prompts.num_clicks)
        votes: list[FloatArray] = []
        if is_finer:
            total, count = onto.moved(whole), np.ones((atoms.count, atoms.count))
            for faces, own in clicked_tiles(surface, clicked, prompts):
                look = look_at(
                    surface, faces, prompts.num_crop_patches, whole.reading.network, config
                )
                rows = onto.shown(faces)
                total[np.ix_(rows, rows)] += onto.moved(look, rows)
                count[np.ix_(rows, rows)] += 1
                votes += [onto.share_of(mask) for mask in taken((whole, look), own, at_once)]
            read: FloatArray = total / count
        else:
            votes += [onto.share_of(mask) for mask in taken((whole,), clicked, at_once)]
            read = whole.reading.together
        odds = with_votes(read, np.reshape(votes, (-1, atoms.count)), config.voting)
        return atoms, Bonds(odds, surface.components[onto.largest])

    def _fine_atoms(self) -> Atoms:
        config = self._config
        count = config.auto_prompts.num_patches
        return patch_atoms(self._surface, self._tree, count, config.patches, config.components)


class _PatchMap:
    """What is said of faces or of other patches, moved onto the patches that parts are grown from.

    Args:
        surface: geometry.
        atoms: (A) the patches.

    Attributes:
        largest: (A,) int64 largest face of each patch.
    """

    def __init__(self, surface: Surface, atoms: Atoms) -> None:
        weight = np.maximum(surface.areas, TINY)
        self._size = sum_by(atoms.of_face, weight, atoms.count)
        self._held = csc_matrix(
            (weight, (atoms.of_face, np.arange(len(weight)))), (atoms.count, len(weight))
        )
        self.largest = largest_faces(atoms.of_face, weight)
        self._centers = (self._held @ surface.centers) / self._size[:, None]

    def spread(self, is_open: BoolArray, count: int) -> IntArray:
        """(K,) faces far from each other, one a patch, among those that are open (F,)."""
        is_open = is_open[self.largest]
        faces: IntArray = self.largest[is_open][farthest(self._centers[is_open], count)]
        return faces

    def shown(self, faces: IntArray) -> BoolArray:
        """(A,) which patches some faces mostly hold."""
        held = np.asarray(self._held[:, faces].sum(axis=1)).reshape(-1)
        rows: BoolArray = held > 0.5 * self._size
        return rows

    def share_of(self, mask: BoolArray) -> FloatArray:
        """(A,) how much of each patch a face mask holds."""
        share: FloatArray = (self._held @ mask.astype(np.float64)) / self._size
        return share

    def moved(self, look: Look, rows: BoolArray | slice = slice(None)) -> FloatArray:
        """(R, R) what a look says of every two of some patches: the mean over their faces."""
        held = self._held[:, look.faces]
        size = np.asarray(held.sum(axis=1))
        within = ((held @ look.reading.blend).toarray() / np.maximum(size, TINY))[rows]
        together: FloatArray = within @ look.reading.together @ within.T
        return together


def clicked_tiles(
    surface: Surface, clicked: IntArray, config: AutoPromptConfig
) -> Iterator[tuple[IntArray, IntArray]]:
    """Tiles, each with the clicked faces that lie nearest to its middle; others get no tile.

    Args:
        surface: geometry.
        clicked: (K,) int faces.
        config: size and number of tiles.
    """
    found = []
    nearest, owner = np.full(len(clicked), np.inf), np.full(len(clicked), -1)
    for number, (faces, ways) in enumerate(tiles(surface, config)):
        found.append(faces)
        is_nearer = (ways[clicked] < nearest) & np.isin(clicked, faces)
        nearest[is_nearer], owner[is_nearer] = ways[clicked][is_nearer], number
    for number, faces in enumerate(found):
        yield faces, clicked[owner == number]


def tiles(surface: Surface, config: AutoPromptConfig) -> Iterator[tuple[IntArray, FloatArray]]:
    """Overlapping looks that cover the largest loose piece: (N,) int64 faces, ascending, and (F,)
    the way of every face to the look's middle.

    The next look is round the face that is furthest from the middles of those before.
    """
    is_open = _in_largest_piece(surface)
    gaps = np.full(surface.num_faces, np.inf)
    middle = np.average(surface.centers, axis=0, weights=np.maximum(surface.areas, TINY))
    remote = np.linalg.norm(surface.centers - middle, axis=1)
    for _ in range(config.max_crops):
        if not is_open.any():
            return
        far = np.where(np.isfinite(gaps), gaps, 1e9 + remote)
        ways = ways_over(surface, np.array([np.where(is_open, far, -1.0).argmax()]))
        is_open[nearest_faces(surface, ways, config.core_share * config.crop_share)] = False
        gaps = np.minimum(gaps, ways)
        yield nearest_faces(surface, ways, config.crop_share), ways


def _in_largest_piece(surface: Surface) -> BoolArray:
    """(F,) which faces lie in the loose piece that holds most of the surface."""
    sizes = np.bincount(surface.components, surface.areas)
    inside: BoolArray = surface.components == sizes.argmax()
    return inside


def _is_finer(surface: Surface, whole: Look, config: SegmenterConfig) -> bool:
    """Whether a mesh has faces for finer patches, and not too many to look everywhere."""
    prompts, least = config.auto_prompts, config.crops.min_gain * whole.atoms.count
    is_fine = min(surface.num_faces, prompts.num_patches) >= least
    return bool(is_fine and surface.num_faces <= prompts.max_faces)
