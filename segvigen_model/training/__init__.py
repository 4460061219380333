"""Training of the default checkpoint: data, codec, diffusion transformer, one command each.

`train_vae`, `train_flow`, `train_patch_network`, `train_mask_selector`, each a program of its own
(`python -m segvigen_model.training.train_flow`). Every run is deterministic by seed, resumes from
its folder and keeps the best weights by validation.
"""
