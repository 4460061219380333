"""The front door: encode an asset once, then propose, refine by clicks, or follow a painted view.

Every answer is an exclusive, exhaustive partition of the original faces with dense ids, and says
in its provenance how it was made. Geometry of the last few assets is kept between calls.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segvigen_model.checkpoints.loading import load
from segvigen_model.checkpoints.weights import file_sha256
from segvigen_model.coords import grid_to_latent, mesh_to_unit
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.click_decoding import TRUSTED, part_probability, togetherness
from segvigen_model.interactive.mask_selector import WEIGHTS_FILE as CHOICE_WEIGHTS
from segvigen_model.interactive.patch_network import load_patch_network
from segvigen_model.model.bundle import Bundle
from segvigen_model.model.image_condition import condition_of
from segvigen_model.model.inference import ClickSet, draw_colorings, draw_masks, encode_voxels
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.partition.asset_cache import Geometries, Geometry
from segvigen_model.partition.auto_prompts import Patches
from segvigen_model.partition.consensus import Partition, consensus, refined_confidence
from segvigen_model.partition.edits import Edited, Edits, apply_edits
from segvigen_model.partition.hierarchy import first_levels
from segvigen_model.partition.refinement import (
    NO_TARGET,
    Wish,
    followed,
    refine_labels,
    resolve_clicks,
    settled_wishes,
)
from segvigen_model.partition.view_guided import (
    camera_faces,
    front_faces,
    guided_partition,
    map_colors,
    resized,
    seen_labels,
)
from segvigen_model.slat_flow.palette import decode_colors, nearest_colors
from segvigen_model.surface.voxel_transfer import nearest_voxels
from segvigen_model.types import (
    AssetMesh,
    BoolArray,
    ByteArray,
    Click,
    Encoding,
    FloatArray,
    IntArray,
    Proposal,
)

logger = logging.getLogger(__name__)
NUM_KEPT = 4  # assets whose geometry is kept, up to 1.5 GB each


class Segmenter:
    """Segments assets with one model.

    Args:
        bundle: the model.
        num_kept: geometries of the assets used last that are kept for the same mesh object, >= 1.

    Attributes:
        weights: sha256 by name of every weights file that labels depend on; encodings depend on
            "checkpoint" alone.
    """

    def __init__(self, bundle: Bundle, num_kept: int = NUM_KEPT) -> None:
        self.bundle, self.num_kept = bundle, num_kept
        self.weights = {
            "checkpoint": bundle.sha256,
            "patch_network": file_sha256(bundle.patch_weights),
            "mask_choice": file_sha256(CHOICE_WEIGHTS),
        }
        self._geometries = Geometries(load_patch_network(bundle.patch_weights), num_kept)

    @classmethod
    def from_checkpoint(
        cls, path_or_name: str | Path = "default", device: str = "cpu", num_kept: int = NUM_KEPT
    ) -> Segmenter:
        """Load a checkpoint and wrap it."""
        return cls(load(path_or_name, device), num_kept)

    @property
    def checkpoint(self) -> str:
        """The sha256 of the weights in use."""
        return self.bundle.sha256

    def encode(self, mesh: AssetMesh) -> Encoding:
        """Convert a mesh to voxels and latents: once per asset."""
        voxels = mesh_to_ovoxel(mesh, self.bundle.config.grid, self.bundle.device)
        encoding = encode_voxels(self.bundle, voxels)
        return replace(encoding, condition=condition_of(self.bundle, mesh))

    def propose(
        self,
        mesh: AssetMesh,
        encoding: Encoding,
        *,
        num_draws: int = 4,
        num_steps: int = 8,
        granularity: str = "medium",
        seed: int = 0,
    ) -> Proposal:
        """Partition an asset without help.

        Args:
            mesh: the asset.
            encoding: its encoding by this checkpoint.
            num_draws: independent draws that vote, >= 1.
            num_steps: sampler steps per draw.
            granularity: "fine", "medium" or "coarse".
            seed: of the draws; the same seed gives the same answer.
        """
        geometry = self.geometry(mesh, encoding)
        colorings = draw_colorings(
            self.bundle, encoding, num_draws=num_draws, num_steps=num_steps, seed=seed
        )
        draws = np.stack(
            [
                geometry.relation.labels_to_faces(decode_colors(colors, encoding.coords))
                for colors in colorings
            ]
        )
        trust = self.bundle.config.segmenter.fusion.draws
        areas = geometry.surface.areas
        survey = geometry.survey
        atoms, bonds = survey.closely() if trust < TRUSTED else survey.at_once()
        partition = consensus(draws, atoms, bonds, areas, granularity, trust=trust)
        logger.info("propose parts=%d agreement=%.3f", partition.count, partition.confidence)
        return self._with_levels(
            geometry,
            partition,
            (atoms, bonds),
            labels_source="draw_consensus",
            seed=seed,
            num_draws=num_draws,
            num_steps=num_steps,
            granularity=granularity,
            atoms=atoms.source,
        )

    def part_mask(
        self, mesh: AssetMesh, encoding: Encoding, clicks: Sequence[Click], seed: int = 0
    ) -> FloatArray:
        """Find the part that clicks point at.

        Args:
            mesh: the asset.
            encoding: its encoding by this checkpoint.
            clicks: points inside the part, and (is_positive=False) points outside; at least one
                positive. Their kind and part id do not matter.
            seed: of the noise; small checkpoints answer in one step without any.

        Returns:
            (F,) float32 probability that each face belongs to the part; cut at 0.5.
        """
        geometry = self.geometry(mesh, encoding)
        faces = np.array([click.face for click in clicks], np.int64)
        is_positive = np.array([click.is_positive for click in clicks], bool)
        if not is_positive.any():
            raise ValueError("part_mask needs at least one positive click")
        points = np.array([click.xyz for click in clicks], np.float64)
        click_set = self._click_set(encoding, points, is_positive)
        mask = draw_masks(self.bundle, encoding, [click_set], seed)
        probability = self._probability(geometry, faces, is_positive, mask[0])
        return probability.astype(np.float32)

    def refine(
        self,
        mesh: AssetMesh,
        encoding: Encoding,
        face_labels: IntArray,
        clicks: Sequence[Click],
        seed: int = 0,
        *,
        not_object_part: int | None = None,
        anchor_faces: Sequence[int] = (),
        edits: Edits | None = None,
    ) -> Proposal:
        """Change a partition as clicks and edits of whole parts say.

        Args:
            mesh: the asset.
            encoding: its encoding by this checkpoint.
            face_labels: (F,) int dense part ids that the reviewer saw.
            clicks: what the reviewer said; the later of two on one face counts.
            seed: as in `part_mask`.
            not_object_part: part already set aside as no object (provenance of the input).
            anchor_faces: faces settled by clicks of earlier rounds (provenance of the input);
                they keep their part unless clicked again.
            edits: merges and splits of shown parts; done first.

        Returns:
            The new partition. Every click holds; a part without clicks keeps its faces except
            those that clicks move. Ids stay, but a vacated one goes to the newest part ("id_map":
            shown id -> id now; "pieces": of parts that were split).
        """
        geometry = self.geometry(mesh, encoding)
        edited = self._edited(geometry, face_labels, edits or Edits())
        clicks = [replace(click, part=edited.home.get(click.part, click.part)) for click in clicks]
        if not_object_part is not None and edited.home[not_object_part] != not_object_part:
            not_object_part = None  # merged into a part of the object
        first_new = int(edited.labels.max(initial=-1)) + 1
        wishes, aside = resolve_clicks(clicks, len(edited.home), not_object_part, first_new)
        settled = settled_wishes(edited.labels, anchor_faces, wishes)
        probabilities = self._wish_probabilities(geometry, wishes, settled, clicks, seed)
        refined = refine_labels(
            edited.labels,
            wishes,
            lambda wish: probabilities[wish.key],
            (geometry.surface, geometry.tree, geometry.atoms),
            aside,
            settled,
        )
        id_map, touched = followed(edited, refined, wishes)
        confidence = refined_confidence(
            face_labels, refined.labels, touched, geometry.surface.areas
        )
        areas = np.bincount(refined.labels, geometry.surface.areas + 1e-30)
        partition = Partition(
            refined.labels,
            confidence,
            float(np.average(confidence, weights=areas)),
            (*edited.notes, *refined.notes),
        )
        return self._proposal(
            geometry,
            partition,
            labels_source="click_refinement",
            num_clicks=len(clicks),
            seed=seed,
            id_map={str(old): new for old, new in sorted(id_map.items())},
            pieces={
                str(old): [id_map[piece] for piece in pieces if piece in id_map]
                for old, pieces in edited.pieces.items()
            },
            not_object_part=refined.not_object_part,
            anchor_faces=sorted({*map(int, anchor_faces), *(wish.face for wish in wishes)}),
        )

    def guided(
        self,
        mesh: AssetMesh,
        encoding: Encoding,
        part_map: ByteArray,
        *,
        num_steps: int = 8,
        seed: int = 0,
    ) -> Proposal:
        """Partition an asset after a painted view.

        Args:
            mesh: the asset.
            encoding: its encoding by this checkpoint.
            part_map: (S, S, 3) uint8, one flat colour per part, black background: what the
                checkpoint's camera sees (guide.py), at any size.
            num_steps: sampler steps.
            seed: of the draw.
        """
        geometry = self.geometry(mesh, encoding)
        palette = map_colors(part_map)
        if self.bundle.config.flow.view is None:
            shown = camera_faces(mesh, encoding.frame, len(part_map))
        else:
            shown = front_faces(mesh, encoding.frame)
        seen = seen_labels(shown, part_map, palette, mesh.num_faces)
        if not seen.any():
            raise ValueError(
                "the painted view shows nothing of the asset; paint what the model's camera sees"
            )
        colors = draw_colorings(
            self.bundle,
            encoding,
            num_draws=1,
            num_steps=num_steps,
            seed=seed,
            view=resized(part_map, self._view_size(part_map)).astype(np.float32) / 255.0,
        )[0]
        drawn = nearest_colors(np.clip(colors, 0, 1), palette)
        partition = guided_partition(
            seen,
            geometry.relation.labels_to_faces(drawn),
            geometry.atoms,
            geometry.reading,
            geometry.surface,
            self.bundle.config.segmenter.fusion.mask,
        )
        return self._with_levels(
            geometry,
            partition,
            geometry.survey.at_once(),
            labels_source="view_palette",
            seed=seed,
            num_steps=num_steps,
            num_map_colors=len(palette),
        )

    def _view_size(self, part_map: ByteArray) -> int:
        """Pixels of a side that the model's own view encoder reads; any where it has none."""
        config = self.bundle.config.flow.view
        return len(part_map) if config is None else config.image_size

    def geometry(self, mesh: AssetMesh, encoding: Encoding) -> Geometry:
        """Surface, segments and voxel relation of an asset; kept for the assets used last."""
        if encoding.checkpoint != self.bundle.sha256:
            raise CheckpointMismatch(
                f"encoding is by checkpoint {encoding.checkpoint[:12]}, this model is "
                f"{self.bundle.sha256[:12]}; encode again"
            )
        return self._geometries.of(mesh, encoding)

    def _edited(self, geometry: Geometry, face_labels: IntArray, edits: Edits) -> Edited:
        """Merges and splits."""
        together = togetherness(geometry.reading.bonds, None)
        areas = geometry.surface.areas
        return apply_edits(face_labels, edits, geometry.atoms, together, areas)

    def _wish_probabilities(
        self,
        geometry: Geometry,
        wishes: Sequence[Wish],
        settled: Sequence[Wish],
        clicks: Sequence[Click],
        seed: int,
    ) -> dict[tuple[int, int], FloatArray]:
        """Probability of the part at each wish's point; one mask per clicked part, one batch.

        What earlier rounds settled is said again, before the new clicks: of more than ten the
        model hears the last.
        """
        points = {wish.face: geometry.surface.centers[wish.face] for wish in settled}
        points |= {click.face: click.xyz for click in clicks}
        keys = list(dict.fromkeys(wish.key for wish in wishes))
        sets, faces, signs = [], [], []
        for key in keys:
            said = [*settled, *wishes]
            mine = [wish for wish in said if wish.key == key]
            others = [w for w in said if w.key != key and w.target != NO_TARGET]
            rows = [*others, *mine]
            faces.append(np.array([wish.face for wish in rows], np.int64))
            signs.append(np.array([wish in mine for wish in rows], bool))
            xyz = np.array([points[wish.face] for wish in rows], np.float64)
            sets.append(self._click_set(geometry.encoding, xyz, signs[-1]))
        if not sets:
            return {}
        masks = draw_masks(self.bundle, geometry.encoding, sets, seed)
        return {
            key: self._probability(geometry, faces[i], signs[i], masks[i])
            for i, key in enumerate(keys)
        }

    def _probability(
        self, geometry: Geometry, faces: IntArray, is_positive: BoolArray, mask: FloatArray
    ) -> FloatArray:
        trust, on_faces = self.bundle.config.segmenter.fusion.mask, geometry.relation.to_faces(mask)
        is_looking = trust < TRUSTED
        looks = geometry.looks.at(faces[is_positive]) if is_looking else (geometry.looks.whole,)
        return part_probability(looks, faces, is_positive, on_faces, trust)

    def _click_set(
        self, encoding: Encoding, points: FloatArray, is_positive: BoolArray
    ) -> ClickSet:
        """Clicked points (K, 3), mesh frame, as latent cells of active voxels."""
        unit = mesh_to_unit(points, encoding.frame)
        rows = nearest_voxels(unit, encoding.coords, encoding.grid)
        return ClickSet(grid_to_latent(encoding.coords[rows], encoding.factor), is_positive)

    def _with_levels(
        self, geometry: Geometry, partition: Partition, patches: Patches, **provenance: Any
    ) -> Proposal:
        """A proposal with the levels below and above its parts, grown from some patches."""
        atoms, bonds = patches
        together, areas = togetherness(bonds, None), geometry.surface.areas
        finer, groups = first_levels(partition.labels, atoms, together, areas)
        proposal = self._proposal(geometry, partition, **provenance)
        return replace(proposal, finer=finer, groups=groups)

    def _proposal(self, geometry: Geometry, partition: Partition, **provenance: Any) -> Proposal:
        return Proposal(
            face_labels=partition.labels,
            voxel_labels=geometry.relation.labels_to_voxels(partition.labels),
            part_confidence=partition.part_confidence,
            confidence=partition.confidence,
            provenance={
                **provenance,
                **self.weights,
                "fallbacks": list(partition.notes),
            },
        )
