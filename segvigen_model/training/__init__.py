"""Training of the default checkpoint: data, codec, diffusion transformer, one command each.

`python -m segvigen_model.training.data`, `.codec`, `.dit`; every run is deterministic by seed,
resumes from its folder and keeps the best weights by validation.
"""
