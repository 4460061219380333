"""Mesh files: one `AssetMesh` from any supported format, and GLB back out."""
