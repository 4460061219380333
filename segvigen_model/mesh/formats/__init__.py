"""Readers of single mesh formats; callers use `segvigen_model.mesh.io`."""
