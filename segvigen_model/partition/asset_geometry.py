"""Everything that is derived from one asset's mesh and voxels, computed once per session."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.config import SegmenterConfig
from segvigen_model.interactive.affinity import AffinityMatrix
from segvigen_model.interactive.crops import MultiScaleCrops
from segvigen_model.interactive.patch_network import PatchNetwork
from segvigen_model.partition.auto_prompts import AutoPrompts
from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.geometry import Surface, measure_surface
from segvigen_model.surface.region_merging import SegmentTree, build_segment_tree
from segvigen_model.surface.voxel_transfer import FaceVoxels, relate_faces_to_voxels
from segvigen_model.types import AssetMesh, Encoding


@dataclass(frozen=True, slots=True)
class AssetGeometry:
    """What is derived from a mesh and its voxels; up to 1.5 GB.

    Attributes:
        surface: areas, normals and adjacency of the faces.
        tree: nested segments of the surface.
        crops: encoded patches of the whole, and crops around clicks.
        auto_prompts: finer patches for automatic prompts, encoded on first use.
        relation: faces to voxels and back.
    """

    surface: Surface
    tree: SegmentTree
    crops: MultiScaleCrops
    auto_prompts: AutoPrompts
    relation: FaceVoxels

    @property
    def superfaces(self) -> Superfaces:
        """Pieces of the whole that edits and clicks move."""
        return self.auto_prompts.coarse()[0]

    @property
    def affinity(self) -> AffinityMatrix:
        """Affinity of these pieces, before any click."""
        return self.auto_prompts.coarse()[1]


def measure_asset(
    mesh: AssetMesh,
    encoding: Encoding,
    config: SegmenterConfig,
    network: PatchNetwork | None = None,
) -> AssetGeometry:
    """Measure a mesh, cut it into patches, read them, and relate its faces to its voxels.

    Args:
        mesh: the asset.
        encoding: of it.
        config: of the segmenter.
        network: reads patches; the shipped one when None.
    """
    surface = measure_surface(mesh)
    tree = build_segment_tree(surface, config.regions)
    crops = MultiScaleCrops.build(surface, tree, config, network)
    relation = relate_faces_to_voxels(mesh, surface, encoding, config.transfer)
    auto_prompts = AutoPrompts(surface, tree, crops.whole, config)
    return AssetGeometry(surface, tree, crops, auto_prompts, relation)
