"""Rasterise meshes in numpy: visible faces, shaded condition views."""
