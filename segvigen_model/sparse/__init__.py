"""Sparse voxel tensors and the few layers that work on them.

`structure` says which voxels exist and derives everything from that once; `tensor` carries
features; `conv`, `attention` and `rope` compute. Plain torch everywhere; spconv only on CUDA.
"""
