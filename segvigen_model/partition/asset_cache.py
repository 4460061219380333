"""All that is derived from one asset's mesh and voxels, computed once and kept for all calls."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.interactive.affinity import Reading
from segvigen_model.interactive.crops import Looks
from segvigen_model.interactive.patch_network import PatchNetwork
from segvigen_model.partition.auto_prompts import Survey
from segvigen_model.surface.adjacency import Atoms
from segvigen_model.surface.geometry import Surface, surface_of
from segvigen_model.surface.region_merging import SegmentTree, segment_tree
from segvigen_model.surface.voxel_transfer import FaceVoxels, face_voxels
from segvigen_model.types import AssetMesh, Encoding


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is derived from a mesh and its voxels, once."""

    mesh: AssetMesh
    encoding: Encoding
    surface: Surface
    tree: SegmentTree
    looks: Looks
    survey: Survey
    relation: FaceVoxels

    @property
    def atoms(self) -> Atoms:
        """Patches of the whole."""
        return self.looks.whole.atoms

    @property
    def reading(self) -> Reading:
        """Of the whole."""
        return self.looks.whole.reading


def geometry_of(
    mesh: AssetMesh, encoding: Encoding, network: PatchNetwork | None = None
) -> Geometry:
    """Measure a mesh, cut it into patches, read them, and relate its faces to its voxels.

    Args:
        mesh: the asset.
        encoding: of it.
        network: reads patches; the shipped one when None.
    """
    surface = surface_of(mesh)
    tree = segment_tree(surface)
    looks = Looks.of(surface, tree, network)
    relation = face_voxels(mesh, surface, encoding.coords, encoding.grid, encoding.frame)
    survey = Survey(surface, tree, looks.whole)
    return Geometry(mesh, encoding, surface, tree, looks, survey, relation)


class Geometries:
    """Geometry of the assets used last, made when first asked for.

    Args:
        network: reads patches.
        num_kept: assets, >= 1; each may hold more than a gigabyte.
    """

    def __init__(self, network: PatchNetwork, num_kept: int) -> None:
        self._network, self._num_kept = network, num_kept
        self._kept: list[Geometry] = []

    def of(self, mesh: AssetMesh, encoding: Encoding) -> Geometry:
        """The geometry of these very objects."""
        for place, kept in enumerate(self._kept):
            if kept.mesh is mesh and kept.encoding is encoding:
                self._kept.insert(0, self._kept.pop(place))
                return kept
        del self._kept[self._num_kept - 1 :]  # first: the new one needs the memory
        made = geometry_of(mesh, encoding, self._network)
        self._kept.insert(0, made)
        return made
