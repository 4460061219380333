"""The front door: load a model, then open one session per asset.

A segmenter holds weights and nothing of any asset. Whoever opens sessions decides how many are kept
(session.py); an encoding may be stored and given back when the asset is opened again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from segvigen_model.checkpoints.loading import load_model
from segvigen_model.checkpoints.weights import hash_file
from segvigen_model.config import ALGORITHM_VERSION, SegmenterConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.mask_selector import WEIGHTS_FILE as SELECTOR_WEIGHTS
from segvigen_model.interactive.patch_network import load_patch_network
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.image_condition import encode_condition
from segvigen_model.model.inference import encode_voxels
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.session import Session
from segvigen_model.types import AssetMesh, Encoding


class Segmenter:
    """Segments assets with one model.

    Args:
        model: the model.

    Attributes:
        model: the model.
        weights: sha256 by name of every weights file that labels depend on; encodings depend on
            "checkpoint" alone.
    """

    def __init__(self, model: SegviGenModel) -> None:
        self.model = model
        self.weights = {
            "checkpoint": model.sha256,
            "patch_network": hash_file(model.patch_weights),
            # The key is part of what keys of stored proposals are hashed from: it stays.
            "mask_choice": hash_file(SELECTOR_WEIGHTS),
        }
        self._network = load_patch_network(model.patch_weights)

    @classmethod
    def from_checkpoint(
        cls,
        path_or_name: str | Path = "default",
        device: str = "cpu",
        config: SegmenterConfig | None = None,
    ) -> Segmenter:
        """Load a checkpoint and wrap it.

        Args:
            path_or_name: a folder, or the name of a shipped checkpoint.
            device: torch device.
            config: tunables instead of those that the checkpoint stores.
        """
        model = load_model(path_or_name, device)
        if config is not None:
            model = replace(model, config=replace(model.config, segmenter=config))
        return cls(model)

    @property
    def config(self) -> SegmenterConfig:
        """The tunables in use."""
        return self.model.config.segmenter

    @property
    def identity(self) -> Mapping[str, str | int]:
        """What labels depend on besides the asset: weights, algorithm version, configuration."""
        return {**self.weights, "algorithm": ALGORITHM_VERSION, "config": self.config.digest}

    @property
    def checkpoint(self) -> str:
        """The sha256 of the weights in use."""
        return self.model.sha256

    def encode(self, mesh: AssetMesh) -> Encoding:
        """Convert a mesh to voxels and latents: once per asset."""
        voxels = mesh_to_ovoxel(mesh, self.model.config.grid, self.model.device)
        encoding = encode_voxels(self.model, voxels)
        return replace(encoding, condition=encode_condition(self.model, mesh))

    def open(self, mesh: AssetMesh, encoding: Encoding | None = None) -> Session:
        """Open an asset: everything derived from it is computed once per session.

        Args:
            mesh: the asset.
            encoding: its encoding by this checkpoint; made now when None.

        Raises:
            CheckpointMismatch: the encoding is another checkpoint's.
        """
        if encoding is None:
            encoding = self.encode(mesh)
        elif encoding.checkpoint != self.model.sha256:
            raise CheckpointMismatch(
                f"encoding is by checkpoint {encoding.checkpoint[:12]}, this model is "
                f"{self.model.sha256[:12]}; encode again"
            )
        return Session(self.model, self.weights, self._network, mesh, encoding)
