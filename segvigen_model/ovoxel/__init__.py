"""O-Voxel: mesh <-> flexible dual grid with surface attributes, and the .vxz file."""

from __future__ import annotations

from segvigen_model.ovoxel.convert import mesh_to_ovoxel
from segvigen_model.ovoxel.mesh import Split, ovoxel_to_mesh

__all__ = ["Split", "mesh_to_ovoxel", "ovoxel_to_mesh"]
