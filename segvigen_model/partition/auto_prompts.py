"""Automatic prompting over tiled crops: affinity of patches without any click.

Overlapping crops tile the object. The affinity of the whole and of every crop is averaged on finer
patches and combined with the masks of automatic clicks (mask_voting.py). This runs on a single
shell only (one connected component with nearly all of the surface), and on first use.

Departs from paper: SegviGen colours at one resolution and draws from noise, without prompts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csc_matrix

from segvigen_model.config import AutoPromptConfig, SegmenterConfig
from segvigen_model.interactive.affinity import AffinityMatrix, Patches
from segvigen_model.interactive.crops import (
    Crop,
    build_crop,
    compute_geodesic_distances,
    select_nearest_faces,
)
from segvigen_model.partition.mask_voting import combine_mask_consensus, predict_click_masks
from segvigen_model.surface.adjacency import Superfaces, build_superfaces, describe_superfaces
from segvigen_model.surface.arrays import TINY, select_farthest, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.surface.patch_features import find_largest_faces
from segvigen_model.surface.patches import separate_pooled_regions
from segvigen_model.surface.region_merging import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray


class AutoPrompts:
    """Patches of an object with their affinity; the dense form is computed on first use.

    Args:
        surface: geometry.
        tree: its segments.
        whole: the crop of everything.
        config: of the segmenter.
    """

    def __init__(
        self, surface: Surface, tree: SegmentTree, whole: Crop, config: SegmenterConfig
    ) -> None:
        self._surface, self._tree, self._whole = surface, tree, whole
        self._config = config
        self._found: Patches | None = None
        self._coarse: Patches | None = None

    def dense(self) -> Patches:
        """Patches and affinity from crops and automatic clicks; `coarse` unless a single shell.

        Patches are finer where the mesh has enough faces.
        """
        if self._found is None:
            surface = self._surface
            shell_area = float(surface.areas[_find_largest_component(surface)].sum())
            least = self._config.components.single_shell_share
            is_single_shell = shell_area >= least * max(float(surface.areas.sum()), TINY)
            self._found = self._prompt_tiles() if is_single_shell else self.coarse()
        return self._found

    def coarse(self) -> Patches:
        """Patches and affinity of the whole, without crops and clicks.

        Where the network had to read many regions as one patch, each is a piece of its own here.
        """
        if self._coarse is None:
            self._coarse = self._separate_regions()
        return self._coarse

    def _separate_regions(self) -> Patches:
        surface, superfaces = self._surface, self._whole.superfaces
        affinity, config = self._whole.embedding.affinity_matrix, self._config
        pieces = separate_pooled_regions(surface, superfaces.of_face, config.patches)
        if int(pieces.max()) + 1 == superfaces.count:
            return superfaces, affinity
        first = np.unique(pieces, return_index=True)[1]
        patches = superfaces.of_face[first]
        logits = affinity.logits[np.ix_(patches, patches)]
        # The network does not know: the reserve against other components decides.
        is_pooled = patches[:, None] == patches
        np.fill_diagonal(is_pooled, False)
        logits[is_pooled] = 0.0
        return (
            describe_superfaces(surface, self._tree, pieces, config.components),
            AffinityMatrix(logits, surface.components[first]),
        )

    def _prompt_tiles(self) -> Patches:
        surface, whole, config = self._surface, self._whole, self._config
        prompts, batch_size = config.auto_prompts, config.limits.max_batch_questions
        is_finer = _is_finer(surface, whole, config)
        superfaces = self._build_fine_superfaces() if is_finer else whole.superfaces
        patch_map = _PatchMap(surface, superfaces)
        clicked = patch_map.select_spread_faces(
            _find_largest_component(surface), prompts.num_clicks
        )
        memberships: list[FloatArray] = []
        if is_finer:
            total, count = (
                patch_map.project_affinity(whole),
                np.ones((superfaces.count, superfaces.count)),
            )
            for faces, tile_clicks in assign_clicks_to_tiles(surface, clicked, prompts):
                crop = build_crop(
                    surface, faces, prompts.num_crop_patches, whole.embedding.network, config
                )
                rows = patch_map.find_covered_patches(faces)
                total[np.ix_(rows, rows)] += patch_map.project_affinity(crop, rows)
                count[np.ix_(rows, rows)] += 1
                memberships += [
                    patch_map.compute_shares(mask)
                    for mask in predict_click_masks((whole, crop), tile_clicks, batch_size)
                ]
            affinity_logits: FloatArray = total / count
        else:
            memberships += [
                patch_map.compute_shares(mask)
                for mask in predict_click_masks((whole,), clicked, batch_size)
            ]
            affinity_logits = whole.embedding.affinity_logits
        logits = combine_mask_consensus(
            affinity_logits, np.reshape(memberships, (-1, superfaces.count)), config.voting
        )
        return superfaces, AffinityMatrix(logits, surface.components[patch_map.largest])

    def _build_fine_superfaces(self) -> Superfaces:
        config = self._config
        count = config.auto_prompts.num_patches
        return build_superfaces(self._surface, self._tree, count, config.patches, config.components)


class _PatchMap:
    """Transfer values of faces or of other patches to the patches that parts are grown from.

    Args:
        surface: geometry.
        superfaces: (A) the patches.

    Attributes:
        largest: (A,) int64 largest face of each patch.
    """

    def __init__(self, surface: Surface, superfaces: Superfaces) -> None:
        weight = np.maximum(surface.areas, TINY)
        self._size = sum_by(superfaces.of_face, weight, superfaces.count)
        self._held = csc_matrix(
            (weight, (superfaces.of_face, np.arange(len(weight)))), (superfaces.count, len(weight))
        )
        self.largest = find_largest_faces(superfaces.of_face, weight)
        self._centers = (self._held @ surface.centers) / self._size[:, None]

    def select_spread_faces(self, is_open: BoolArray, count: int) -> IntArray:
        """(K,) faces far from each other, one per patch, among the open ones (F,)."""
        is_open = is_open[self.largest]
        faces: IntArray = self.largest[is_open][select_farthest(self._centers[is_open], count)]
        return faces

    def find_covered_patches(self, faces: IntArray) -> BoolArray:
        """(A,) patches that lie mostly in some faces."""
        held = np.asarray(self._held[:, faces].sum(axis=1)).reshape(-1)
        rows: BoolArray = held > 0.5 * self._size
        return rows

    def compute_shares(self, mask: BoolArray) -> FloatArray:
        """(A,) how much of each patch a face mask holds."""
        share: FloatArray = (self._held @ mask.astype(np.float64)) / self._size
        return share

    def project_affinity(self, crop: Crop, rows: BoolArray | slice = slice(None)) -> FloatArray:
        """(R, R) affinity logits of a crop for some patches: the mean over their faces."""
        held = self._held[:, crop.faces]
        size = np.asarray(held.sum(axis=1))
        within = ((held @ crop.embedding.blend).toarray() / np.maximum(size, TINY))[rows]
        affinity: FloatArray = within @ crop.embedding.affinity_logits @ within.T
        return affinity


def assign_clicks_to_tiles(
    surface: Surface, clicked: IntArray, config: AutoPromptConfig
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield tiles with the clicked faces that are nearest to their centre; others get no tile.

    Args:
        surface: geometry.
        clicked: (K,) int faces.
        config: size and number of tiles.
    """
    all_tiles = []
    nearest, owner = np.full(len(clicked), np.inf), np.full(len(clicked), -1)
    for number, (faces, geodesic_distances) in enumerate(cover_with_tiles(surface, config)):
        all_tiles.append(faces)
        is_nearer = (geodesic_distances[clicked] < nearest) & np.isin(clicked, faces)
        nearest[is_nearer], owner[is_nearer] = geodesic_distances[clicked][is_nearer], number
    for number, faces in enumerate(all_tiles):
        yield faces, clicked[owner == number]


def cover_with_tiles(
    surface: Surface, config: AutoPromptConfig
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Overlapping crops that cover the largest connected component: (N,) int64 faces, ascending,
    and (F,) the way of every face to the crop's middle.

    The next look is round the face that is furthest from the middles of those before.
    """
    is_open = _find_largest_component(surface)
    nearest_distance = np.full(surface.num_faces, np.inf)
    middle = np.average(surface.centers, axis=0, weights=np.maximum(surface.areas, TINY))
    remote = np.linalg.norm(surface.centers - middle, axis=1)
    for _ in range(config.max_crops):
        if not is_open.any():
            return
        far = np.where(np.isfinite(nearest_distance), nearest_distance, 1e9 + remote)
        geodesic_distances = compute_geodesic_distances(
            surface, np.array([np.where(is_open, far, -1.0).argmax()])
        )
        is_open[
            select_nearest_faces(surface, geodesic_distances, config.core_share * config.crop_share)
        ] = False
        nearest_distance = np.minimum(nearest_distance, geodesic_distances)
        yield (
            select_nearest_faces(surface, geodesic_distances, config.crop_share),
            geodesic_distances,
        )


def _find_largest_component(surface: Surface) -> BoolArray:
    """(F,) which faces lie in the connected component that holds most of the surface."""
    sizes = np.bincount(surface.components, surface.areas)
    inside: BoolArray = surface.components == sizes.argmax()
    return inside


def _is_finer(surface: Surface, whole: Crop, config: SegmenterConfig) -> bool:
    """Whether a mesh has faces for finer patches, and not too many for tiled crops."""
    prompts, least = config.auto_prompts, config.crops.min_gain * whole.superfaces.count
    is_fine = min(surface.num_faces, prompts.num_patches) >= least
    return bool(is_fine and surface.num_faces <= prompts.max_faces)
