"""Sparse-compression autoencoders of shape and texture, with the official parameter names.

`encoder` and `decoder` are shared by both; `shape` and `texture` say what the channels mean.
"""
