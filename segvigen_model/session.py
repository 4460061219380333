"""One asset opened with one model: propose parts, answer clicks, refine, follow a painted view.

Every result is an exclusive, exhaustive partition of the original faces with dense ids, and its
provenance records how it was made. A session holds mesh, encoding and geometry (up to 1.5 GB), each
computed once; drop the session to free them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from segvigen_model.config import ALGORITHM_VERSION
from segvigen_model.interactive.affinity import Patches
from segvigen_model.interactive.click_decoding import same_part_affinity
from segvigen_model.interactive.patch_network import PatchNetwork
from segvigen_model.mesh.strays import FramedFaces
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.inference import draw_colorings
from segvigen_model.partition.asset_geometry import AssetGeometry, measure_asset
from segvigen_model.partition.click_probabilities import (
    ClickedPart,
    collect_clicked_parts,
    predict_part_probabilities,
)
from segvigen_model.partition.consensus import Partition, find_consensus
from segvigen_model.partition.edits import EditedPartition, Edits, Splitter, apply_edits
from segvigen_model.partition.hierarchy import build_first_levels
from segvigen_model.partition.refinement import (
    ClickConstraint,
    ClickRegions,
    advance_state,
    build_refined_partition,
    collect_fixed_constraints,
    follow_part_ids,
    refine_labels,
    renumber_clicks,
    resolve_clicks,
)
from segvigen_model.partition.view_guided import (
    count_seen_labels,
    find_map_colors,
    partition_by_view,
    rasterize_camera_faces,
    rasterize_front_faces,
    resize_map,
)
from segvigen_model.slat_flow.palette import decode_colors, find_nearest_colors
from segvigen_model.types import (
    AssetMesh,
    ByteArray,
    Click,
    Encoding,
    FloatArray,
    IntArray,
    Proposal,
    RefinementState,
)

logger = logging.getLogger(__name__)

STRAYS_NOTE = "stray_faces_follow_the_nearest"


class Session:
    """One asset, opened by `Segmenter.open`. Not for several threads at once.

    Args:
        model: the model.
        weights: sha256 by name of every weights file that labels depend on.
        network: reads patches.
        mesh: the asset.
        encoding: of the asset, by this model.

    Attributes:
        mesh, encoding: what the session works on.
    """

    def __init__(
        self,
        model: SegviGenModel,
        weights: Mapping[str, str],
        network: PatchNetwork,
        mesh: AssetMesh,
        encoding: Encoding,
    ) -> None:
        self.mesh, self.encoding = mesh, encoding
        self._framed = FramedFaces(mesh)  # everything below works on these faces
        self._model, self._weights, self._network = model, weights, network
        self._config = model.config.segmenter

    @cached_property
    def geometry(self) -> AssetGeometry:
        """Surface, patches and voxel relation, measured on first use."""
        return measure_asset(self._framed.mesh, self.encoding, self._config, self._network)

    def prepare(self) -> None:
        """Measure the geometry now, so that the first call does not wait for it."""
        _ = self.geometry

    def view_faces(self, pixels: int) -> IntArray:
        """(pixels, pixels) int32 face under each pixel of the model's camera, -1 where none is.

        A painted view for `guided` has one colour per part on these pixels.
        """
        return self._framed.to_whole(self._view_framed_faces(pixels))

    def _view_framed_faces(self, pixels: int) -> IntArray:
        shown = (
            rasterize_camera_faces
            if self._model.config.flow.view is None
            else rasterize_front_faces
        )
        return shown(self._framed.mesh, self.encoding.frame, pixels)

    def propose(
        self,
        *,
        num_draws: int = 4,
        num_steps: int = 8,
        granularity: str = "medium",
        seed: int = 0,
    ) -> Proposal:
        """Partition the asset without help.

        Args:
            num_draws: independent draws that vote, >= 1.
            num_steps: sampler steps per draw.
            granularity: "fine", "medium" or "coarse".
            seed: of the draws; the same seed gives the same result.
        """
        geometry = self.geometry
        colorings = draw_colorings(
            self._model, self.encoding, num_draws=num_draws, num_steps=num_steps, seed=seed
        )
        config = self._config
        voxel_labels = (
            decode_colors(colors, self.encoding.coords, config.palette) for colors in colorings
        )
        draws = np.stack([geometry.relation.labels_to_faces(each) for each in voxel_labels])
        auto_prompts = geometry.auto_prompts
        is_alone = config.fusion.are_draws_decisive
        patches = auto_prompts.coarse() if is_alone else auto_prompts.dense()
        areas = geometry.surface.areas
        partition = find_consensus(draws, patches, areas, granularity, config)
        logger.info("propose parts=%d agreement=%.3f", partition.count, partition.confidence)
        proposal = self._with_levels(
            partition,
            patches,
            labels_source="draw_consensus",
            seed=seed,
            num_draws=num_draws,
            num_steps=num_steps,
            granularity=granularity,
            superfaces=patches[0].source,
        )
        return replace(proposal, num_draws=num_draws)

    def click(self, clicks: Sequence[Click], seed: int = 0) -> FloatArray:
        """Find the part that clicks point at.

        Args:
            clicks: points inside the part, and (is_positive=False) points outside; at least one
                positive. Their kind and part id do not matter.
            seed: of the noise; small checkpoints answer in one step without any.

        Returns:
            (F,) float32 probability that each face belongs to the part; cut at 0.5.
        """
        is_positive = np.array([click.is_positive for click in clicks], bool)
        if not is_positive.any():
            raise ValueError(
                f"none of {len(clicks)} clicks is positive; give at least one point in the part"
            )
        faces = self._framed.to_framed(np.array([click.face for click in clicks], np.int64))
        points = np.array([click.xyz for click in clicks], np.float64)
        part = ClickedPart(faces, points, is_positive)
        (probability,) = self._probabilities([part], seed)
        return self._framed.spread(probability.astype(np.float32))

    def refine(
        self,
        shown: Proposal | IntArray,
        clicks: Sequence[Click],
        seed: int = 0,
        *,
        edits: Edits | None = None,
        state: RefinementState | None = None,
    ) -> Proposal:
        """Change a partition by clicks and by edits of whole parts.

        Args:
            shown: the proposal that the reviewer saw, or its (F,) int dense part ids.
            clicks: what the reviewer clicked; the later of two on one face counts.
            seed: as in `click`.
            edits: merges and splits of shown parts; done first.
            state: what earlier rounds settled; that of `shown` when None.

        Returns:
            The new partition. Every click holds; a part without clicks keeps its faces except
            those that clicks move. Ids stay, but a vacated one goes to the newest part; its
            `refinement` says how ids moved. Names, categories and colours are not carried over.
        """
        labels, state = _what_was_shown(shown, state)
        labels, state, clicks = self._enter_frame(labels, state, clicks)
        edited = self._edit(labels, edits or Edits())
        clicks, background_part = renumber_clicks(edited, clicks, state.background_part)
        first_new = int(edited.labels.max(initial=-1)) + 1
        constraints, background_part = resolve_clicks(
            clicks, len(edited.merged_into), background_part, first_new
        )
        fixed = collect_fixed_constraints(edited.labels, state.anchor_faces, constraints)
        probabilities = self._constraint_probabilities(constraints, fixed, clicks, seed)
        geometry, config = self.geometry, self._config.edits
        refined = refine_labels(
            edited.labels,
            constraints,
            lambda constraint: probabilities[constraint.key],
            ClickRegions(geometry.surface, geometry.tree, geometry.superfaces, config),
            fixed,
        )
        id_map, touched = follow_part_ids(edited, refined, constraints)
        proposal = self._proposal(
            build_refined_partition(labels, edited, refined, touched, geometry.surface.areas),
            labels_source="click_refinement",
            num_clicks=len(clicks),
            seed=seed,
        )
        if background_part is not None:
            background_part = refined.id_map.get(background_part)
        return replace(
            proposal,
            refinement=self._leave_frame(
                advance_state(state, edited, constraints, background_part, id_map)
            ),
            num_draws=shown.num_draws if isinstance(shown, Proposal) else 0,
        )

    def guided(self, part_map: ByteArray, *, num_steps: int = 8, seed: int = 0) -> Proposal:
        """Partition the asset after a painted view.

        Args:
            part_map: (S, S, 3) uint8, one flat colour per part, black background: what the
                model's camera sees (`view_faces`), at any size.
            num_steps: sampler steps.
            seed: of the draw.
        """
        geometry, view = self.geometry, self._model.config.flow.view
        config = self._config.guided
        palette = find_map_colors(part_map, config)
        visible_faces = self._view_framed_faces(
            len(part_map) if view is None else config.front_pixels
        )
        num_faces = self._framed.mesh.num_faces
        seen = count_seen_labels(
            visible_faces, part_map, palette, num_faces, config.color_tolerance
        )
        if not seen.any():
            raise ValueError(
                "the painted view shows nothing of the asset; paint what the model's camera sees"
            )
        # The model's own view encoder reads one size; a checkpoint without one reads any.
        size = len(part_map) if view is None else view.image_size
        colors = draw_colorings(
            self._model,
            self.encoding,
            num_draws=1,
            num_steps=num_steps,
            seed=seed,
            view=resize_map(part_map, size).astype(np.float32) / 255.0,
        )[0]
        flow_labels = find_nearest_colors(np.clip(colors, 0, 1), palette)
        partition = partition_by_view(
            seen,
            geometry.relation.labels_to_faces(flow_labels),
            geometry.crops.whole,
            geometry.surface,
            self._config,
        )
        return self._with_levels(
            partition,
            geometry.auto_prompts.coarse(),
            labels_source="view_palette",
            seed=seed,
            num_steps=num_steps,
            num_map_colors=len(palette),
        )

    def _probabilities(self, parts: Sequence[ClickedPart], seed: int) -> list[FloatArray]:
        return predict_part_probabilities(self._model, self.encoding, self.geometry, parts, seed)

    def _edit(self, labels: IntArray, edits: Edits) -> EditedPartition:
        """Merges and splits of whole parts."""
        affinity = same_part_affinity(self.geometry.affinity)
        areas = self.geometry.surface.areas
        splitter = Splitter(self.geometry.superfaces, affinity, areas, self._config.edits)
        return apply_edits(labels, edits, splitter)

    def _constraint_probabilities(
        self,
        constraints: Sequence[ClickConstraint],
        fixed: Sequence[ClickConstraint],
        clicks: Sequence[Click],
        seed: int,
    ) -> dict[tuple[int, int], FloatArray]:
        """(F,) probability of the part at each constraint's point, by `ClickConstraint.key`."""
        centers = self.geometry.surface.centers
        points = {constraint.face: centers[constraint.face] for constraint in fixed}
        points |= {click.face: click.xyz for click in clicks}
        parts = collect_clicked_parts(constraints, fixed, points)
        found = self._probabilities(list(parts.values()), seed)
        return dict(zip(parts, found, strict=True))

    def _with_levels(self, partition: Partition, patches: Patches, **provenance: Any) -> Proposal:
        """A proposal with the levels below and above its parts, grown from some patches."""
        superfaces, affinity_matrix = patches
        affinity, areas = same_part_affinity(affinity_matrix), self.geometry.surface.areas
        merging = self._config.merging
        finer, groups = build_first_levels(partition.labels, superfaces, affinity, areas, merging)
        finer = self._framed.spread(finer)
        return replace(self._proposal(partition, **provenance), finer=finer, groups=groups)

    def _enter_frame(
        self, labels: IntArray, state: RefinementState, clicks: Sequence[Click]
    ) -> tuple[IntArray, RefinementState, Sequence[Click]]:
        """What was shown and clicked, on the framed faces."""
        framed = self._framed
        if not framed.num_strays:
            return labels, state, clicks
        anchors = framed.to_framed(np.array(state.anchor_faces, np.int64))
        faces = framed.to_framed(np.array([click.face for click in clicks], np.int64))
        return (
            framed.select(labels),
            replace(state, anchor_faces=tuple(sorted(set(anchors.tolist())))),
            [replace(c, face=face) for c, face in zip(clicks, faces.tolist(), strict=True)],
        )

    def _leave_frame(self, state: RefinementState) -> RefinementState:
        anchors = self._framed.to_whole(np.array(state.anchor_faces, np.int64))
        return replace(state, anchor_faces=tuple(anchors.tolist()))

    def _proposal(self, partition: Partition, **provenance: Any) -> Proposal:
        notes = partition.notes + ((STRAYS_NOTE,) if self._framed.num_strays else ())
        return Proposal(
            face_labels=self._framed.spread(partition.labels),
            voxel_labels=self.geometry.relation.labels_to_voxels(partition.labels),
            part_confidence=partition.part_confidence,
            confidence=partition.confidence,
            checkpoint=self._weights["checkpoint"],
            fallbacks=notes,
            provenance={
                **provenance,
                **self._weights,
                "algorithm": ALGORITHM_VERSION,
                "config": self._config.summary,
                "fallbacks": list(notes),
            },
        )


def _what_was_shown(
    shown: Proposal | IntArray, state: RefinementState | None
) -> tuple[IntArray, RefinementState]:
    """(F,) part ids of what was shown, and what earlier rounds settled."""
    if not isinstance(shown, Proposal):
        return shown, state or RefinementState()
    return shown.face_labels, state or shown.refinement
