"""The segmenter and its sessions, as far as the pipeline needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from segvigen_model.partition.edits import Edits
from segvigen_model.types import AssetMesh, Click, Encoding, Proposal


class Weights(Protocol):
    """A loaded checkpoint, as far as stages care."""

    @property
    def sha256(self) -> str:
        """Hash that names the weights."""


class Segmenter(Protocol):
    """What the stages need of `segvigen_model.segmenter.Segmenter`."""

    @property
    def model(self) -> Weights:
        """The weights in use."""

    @property
    def identity(self) -> Mapping[str, str | int]:
        """What labels depend on besides the asset: weights, algorithm version, configuration."""

    def encode(self, mesh: AssetMesh) -> Encoding:
        """Voxels and latents of a mesh."""

    def open(self, mesh: AssetMesh, encoding: Encoding | None = None) -> Session:
        """A session on one asset; encodes it when no encoding is given."""


class Session(Protocol):
    """What the stages and the live service need of `segvigen_model.session.Session`."""

    def prepare(self) -> None:
        """Compute what every call needs."""

    def propose(
        self,
        *,
        num_draws: int = 4,
        num_steps: int = 8,
        granularity: str = "medium",
        seed: int = 0,
    ) -> Proposal:
        """A partition without any help."""

    def refine(
        self,
        shown: Proposal,
        clicks: Sequence[Click],
        seed: int = 0,
        *,
        edits: Edits | None = None,
    ) -> Proposal:
        """The partition after merges, splits and clicks."""
