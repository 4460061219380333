"""All that is derived from one asset's mesh and voxels, computed once and kept for all calls."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.atoms import Atoms, patch_atoms
from segvigen_model.geometry import Surface, surface_of
from segvigen_model.looks import Looks
from segvigen_model.reading import Reading, read_patches
from segvigen_model.segments import SegmentTree, segment_tree
from segvigen_model.survey import Survey
from segvigen_model.transfer import FaceVoxels, face_voxels
from segvigen_model.types import AssetMesh, Encoding


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is derived from a mesh and its voxels, once."""

    mesh: AssetMesh
    encoding: Encoding
    surface: Surface
    tree: SegmentTree
    atoms: Atoms
    reading: Reading
    looks: Looks
    survey: Survey
    relation: FaceVoxels


def geometry_of(mesh: AssetMesh, encoding: Encoding) -> Geometry:
    """Measure a mesh, cut it into patches, read them, and relate its faces to its voxels."""
    surface = surface_of(mesh)
    tree = segment_tree(surface)
    atoms = patch_atoms(surface, tree)
    reading = read_patches(surface, tree, atoms)
    relation = face_voxels(mesh, surface, encoding.coords, encoding.grid, encoding.frame)
    looks = Looks(surface, atoms, reading)
    survey = Survey(surface, tree, looks.whole)
    return Geometry(mesh, encoding, surface, tree, atoms, reading, looks, survey, relation)
