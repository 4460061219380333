"""O-Voxel conversion in torch, for any device with float64: the compiled kernels' twin.

Same steps, same order of additions, same roundings, on flat lists instead of loops, so that voxels
and flags are equal to the kernels' and everything else is too, up to what a device rounds
differently. Work runs in slices of `ragged.BUDGET` rows, which bounds memory.
"""
