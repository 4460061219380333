"""Labelled meshes to learn from: folders, shapes made in code, importers, augmentation."""
