"""The demo: procedural meshes, the whole loop on the local stack, a table of results."""
