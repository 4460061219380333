"""The demo: meshes made in code, the whole loop on the local stack, its table."""
