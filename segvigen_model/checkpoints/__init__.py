"""Checkpoints on disk: the native folder, the released weights, and an inventory of both."""
