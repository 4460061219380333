"""Source of the 3D viewer's script, and its build."""
