"""Geometry without learning: patches, features, adjacency, region merging, graph cut."""
