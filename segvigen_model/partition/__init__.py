"""Partitions of the faces: consensus, automatic prompts, hierarchy, edits, refinement."""
