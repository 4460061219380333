"""O-Voxel: mesh <-> flexible dual grid with surface attributes, and the .vxz file."""

from __future__ import annotations

from segvigen_model.ovoxel.convert import mesh_to_ovoxel

__all__ = ["mesh_to_ovoxel"]
