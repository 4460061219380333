"""Partition by a painted view: the faces that it shows, and clicks derived from it.

Where the view shows a face, its colour decides. Hidden faces follow the patch network, with one
prediction per painted part, and the flow model's colours.
Departs from paper: there the colours alone decide, on the visible side too.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.config import GuidedConfig, SegmenterConfig
from segvigen_model.coords import mesh_to_unit
from segvigen_model.interactive.affinity import PatchEmbedding, sigmoid
from segvigen_model.interactive.click_decoding import predict_part_logits
from segvigen_model.interactive.crops import Crop
from segvigen_model.partition.consensus import (
    Partition,
    count_labels,
    densify_labels,
    grow_parts,
    resolve_overlaps,
)
from segvigen_model.rendering.condition_view import OFFICIAL_CAMERA
from segvigen_model.rendering.rasterizer import project_triangles, rasterize
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.arrays import TINY, select_farthest, sum_by
from segvigen_model.surface.geometry import Surface
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, Frame, IntArray

HIDDEN = -1


def find_map_colors(part_map: ByteArray, config: GuidedConfig) -> ByteArray:
    """Part colours of a painted view: frequent colours except the black background, (K, 3) uint8.

    Raises:
        ValueError: the view has no colour, or far too many to be flat.
    """
    colors, count = np.unique(part_map.reshape(-1, 3), axis=0, return_counts=True)
    least = max(1, part_map.size // 3 // config.pixels_per_color)
    is_part = (colors.sum(axis=1) > 0) & (count >= least)
    if not 1 <= is_part.sum() <= config.max_colors:
        raise ValueError(
            f"a painted view needs 1..{config.max_colors} flat colours on black, this has "
            f"{int(is_part.sum())}; paint without shading or smoothing"
        )
    chosen: ByteArray = colors[is_part]
    return chosen


def rasterize_front_faces(mesh: AssetMesh, frame: Frame, pixels: int) -> IntArray:
    """Faces under the pixels of the default model's view: orthographic, seen from +Z.

    Args:
        mesh: the asset.
        frame: mesh -> unit; the unit cube fills the picture, right is +X and up is +Y.
        pixels: side of the picture.

    Returns:
        (pixels, pixels) int32 face, -1 where nothing is.
    """
    corners = mesh_to_unit(mesh.triangles, frame)
    nearness = 1.0 / (2.0 - corners[..., 2])  # any rising function of z orders what is in front
    columns = [(corners[..., 0] + 0.5) * pixels, (0.5 - corners[..., 1]) * pixels, nearness]
    return rasterize(np.stack(columns, axis=-1), pixels).face


def rasterize_camera_faces(mesh: AssetMesh, frame: Frame, pixels: int) -> IntArray:
    """(pixels, pixels) int32 face under each pixel of the official camera, -1 where nothing is."""
    corners = mesh_to_unit(mesh.triangles, frame)
    return rasterize(project_triangles(corners, OFFICIAL_CAMERA, pixels), pixels).face


def resize_map(part_map: ByteArray, size: int) -> ByteArray:
    """A painted view at (size, size, 3): nearest pixels, so that no colour is mixed."""
    if len(part_map) == size:
        return part_map
    rows = ((np.arange(size) + 0.5) * len(part_map) / size).astype(np.int64)
    smaller: ByteArray = part_map[rows][:, rows]
    return smaller


def count_seen_labels(
    faces: IntArray, part_map: ByteArray, palette: ByteArray, num_faces: int, tolerance: float
) -> FloatArray:
    """Count the pixels of every painted part on every face.

    Args:
        faces: (P, P) int face under each pixel, -1 = none.
        part_map: (S, S, 3) uint8; sampled at the nearest pixel when S is not P.
        palette: (K, 3) uint8 part colours.
        num_faces: F.
        tolerance: RGB steps; anything further from all part colours is background.

    Returns:
        (F, K) float64 pixel counts.
    """
    size = len(faces)
    rows = np.minimum(((np.arange(size) + 0.5) * len(part_map) / size).astype(int), len(part_map))
    picture = part_map[rows][:, rows].astype(np.float64)
    gaps = np.linalg.norm(picture[..., None, :] - palette.astype(np.float64), axis=-1)
    label = np.where(gaps.min(axis=-1) <= tolerance, gaps.argmin(axis=-1), HIDDEN)
    shown = (faces >= 0) & (label != HIDDEN)
    keys = faces[shown].astype(np.int64) * len(palette) + label[shown]
    count = sum_by(keys, np.ones(len(keys)), num_faces * len(palette))
    return count.reshape(num_faces, len(palette))


def derive_clicks(
    counts: FloatArray, centers: FloatArray, config: GuidedConfig
) -> list[tuple[IntArray, IntArray]]:
    """Derive clicks from the painted view.

    Args:
        counts: (A, K) pixels of each part on each patch.
        centers: (A, 3) of the patches.
        config: how many clicks, and on what.

    Returns:
        Per part, positive and negative patches, at most `max_clicks` each; a part that no patch
        shows has no positive one.
    """
    total = counts.sum(axis=1)
    main = np.where(total > 0, counts.argmax(axis=1), HIDDEN)
    is_clear = counts.max(axis=1, initial=0.0) > config.min_seen_share * np.maximum(total, TINY)
    clicks = []
    for part in range(counts.shape[1]):
        mine = np.flatnonzero((main == part) & is_clear)
        others = np.flatnonzero((main != part) & (main != HIDDEN) & is_clear)
        positive = select_spread_patches(mine, centers, counts[mine, part], config.max_clicks)
        if len(positive) and len(others):
            gaps = np.linalg.norm(centers[others][:, None] - centers[positive], axis=2).min(axis=1)
            others = others[np.argsort(gaps, kind="stable")[: 4 * config.max_clicks]]
        negative = select_spread_patches(others, centers, total[others], config.max_clicks)
        clicks.append((positive, negative))
    return clicks


def select_spread_patches(
    patches: IntArray, centers: FloatArray, weight: FloatArray, count: int
) -> IntArray:
    """Up to `count` patches far from each other, the one that is seen most first."""
    if len(patches) == 0:
        return patches
    spread: IntArray = patches[select_farthest(centers[patches], count, int(weight.argmax()))]
    return spread


def find_unclaimed_parts(
    counts: FloatArray,
    logits: FloatArray,
    superfaces: Superfaces,
    embedding: PatchEmbedding,
    config: SegmenterConfig,
) -> IntArray:
    """Parts that the view does not show and no painted part claims.

    Args:
        counts: (A, K) pixels of each painted part on each patch.
        logits: (A, K) logits of each painted part.
        superfaces: patches.
        embedding: encoded patches.
        config: of the segmenter.

    Returns:
        (A,) dense id of an unclaimed part, or HIDDEN where a painted part has the patch.
    """
    group, number = grow_parts(superfaces, embedding.affinity_matrix, config.merging)
    shown = sum_by(group, counts.sum(axis=1), number) > 0
    claim = sum_by(group, superfaces.areas * sigmoid(logits.max(axis=1)), number)
    wanted = config.guided.claim_share * sum_by(group, superfaces.areas, number)
    is_own = ~shown & (claim < wanted)
    rank = np.where(is_own, np.cumsum(is_own) - 1, HIDDEN)
    found: IntArray = rank[group]
    return found


def partition_by_view(
    seen: FloatArray, flow_labels: IntArray, whole: Crop, surface: Surface, config: SegmenterConfig
) -> Partition:
    """Partition an asset by a painted view.

    Args:
        seen: (F, K) pixels of each painted part on each face.
        flow_labels: (F,) int, the part whose colour the flow model gave each face.
        whole: patches of the whole surface, encoded.
        surface: geometry.
        config: of the segmenter.

    Returns:
        The painted parts, and those hidden parts that no painted one claims; faces in sight have
        the part that most of their pixels show.
    """
    num_parts, superfaces = seen.shape[1], whole.superfaces
    counts = np.stack(
        [sum_by(superfaces.of_face, column, superfaces.count) for column in seen.T], axis=1
    )
    centers = np.stack(
        [superfaces.average_faces(axis, surface.areas) for axis in surface.centers.T], axis=1
    )
    clicks = derive_clicks(counts, centers / surface.extent, config.guided)
    batch_size = config.limits.max_batch_questions
    click_logits = predict_part_logits(whole.embedding, clicks, batch_size).T
    flow_shares = count_labels(flow_labels[None], superfaces, surface.areas)
    chances = _fuse_evidence(counts, click_logits, flow_shares, config)
    own = find_unclaimed_parts(counts, click_logits, superfaces, whole.embedding, config)
    own = own[superfaces.of_face]
    labels = resolve_overlaps(chances, superfaces, config.guided)
    labels = np.where(own != HIDDEN, num_parts + own, labels)
    labels = np.where(seen.any(axis=1), seen.argmax(axis=1), labels)
    dense, mapping = densify_labels(labels)
    face_confidence = chances[superfaces.of_face, np.minimum(labels, num_parts - 1)]
    total = np.maximum(sum_by(dense, surface.areas, len(mapping)), TINY)
    confidence = sum_by(dense, surface.areas * face_confidence, len(mapping)) / total
    confidence = confidence.astype(np.float32)
    return Partition(dense, confidence, float(np.average(confidence, weights=total)))


def _fuse_evidence(
    counts: FloatArray, click_logits: FloatArray, flow_shares: FloatArray, config: SegmenterConfig
) -> FloatArray:
    """(A, K) probability of each painted part on each patch: clicks, flow colours and pixels.

    Args:
        counts: (A, K) pixels of each painted part.
        click_logits: (A, K) by the patch network.
        flow_shares: (A, <= K) share of the patch in each part's colour.
        config: weights of the three.
    """
    colored = np.zeros(counts.shape)
    colored[:, : flow_shares.shape[1]] = flow_shares
    guided = config.guided
    color_logits = np.log(np.clip(colored, guided.min_color_share, 1.0))
    logits = click_logits + config.fusion.mask * color_logits
    pixels = np.maximum(counts.sum(axis=1, keepdims=True), TINY)
    logits = logits + guided.seen_weight * counts / pixels
    chances: FloatArray = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return chances
