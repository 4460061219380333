"""The patch network: a small transformer over patches of a surface.

The encoder sees the geometry once per object. The decoder sees where the clicks are and gives each
patch's logit of belonging to the clicked part. A second head gives, for every two patches, the
logit that they are of one part. Attention is biased by features of each pair. The network is
trained on labelled meshes (training/train_patch_network.py), independently of the flow model; a
checkpoint may bring its own (training/finetune.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.surface.feature_schema import (
    check_columns,
    metadata_of,
    order_columns,
    settings_of,
)
from segvigen_model.surface.patch_features import FAR, SCALAR_COLUMNS, PatchFeatures
from segvigen_model.surface.region_merging import LEVEL_NAMES
from segvigen_model.types import FloatArray

PATCHES_FILE = "patches.safetensors"  # a checkpoint's own, beside its model.safetensors
WEIGHTS_FILE = Path(__file__).parents[1] / "weights" / PATCHES_FILE  # for those that bring none
FORMAT = "segvigen-patches/2"  # /1 stored sizes without columns; it is still read
NUM_FREQUENCIES = 4
EARLIER_LAYERS = {"read_answer.": "read_prediction.", "pair_odds.": "pair_logits."}  # 0.1.0
_DISTANCE_SCALES = (0.08, 0.25)  # lengths at which proximity is encoded, in longest sides
_AXES = ("x", "y", "z")
MAX_SIZE, MAX_DEPTH = 8192, 64  # of networks that are read; the shipped one has 160 and 3
# What a damaged weights file may raise, besides what is checked.
UNREADABLE_WEIGHTS = (
    *(SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError),
    *(RuntimeError, ArithmeticError, IndexError),
)
_SIZES = ("width", "heads", "encoder", "decoder", "pair_width")
TOKEN_COLUMNS = (
    *(f"position_{axis}" for axis in _AXES),
    *(f"sin_{axis}_{k}" for axis in _AXES for k in range(NUM_FREQUENCIES)),
    *(f"cos_{axis}_{k}" for axis in _AXES for k in range(NUM_FREQUENCIES)),
    *(f"normal_{axis}" for axis in _AXES),
    *SCALAR_COLUMNS,
)
PAIR_COLUMNS = (
    *("geodesic_distance", *(f"geodesic_nearness_{scale}" for scale in _DISTANCE_SCALES)),
    *("distance", *(f"nearness_{scale}" for scale in _DISTANCE_SCALES)),
    *("normal_agreement", "slope_to", "slope_from", "same_material"),
    *("log_area_difference", "thickness_difference"),
    *(f"same_segment_{name}" for name in LEVEL_NAMES),
)


@dataclass(frozen=True, slots=True)
class PatchTensors:
    """Features of one object's patches as tensors on one device.

    Attributes:
        tokens: (A, T) float32 features of each patch, one per `TOKEN_COLUMNS`.
        pairs: (A, A, C) float32 features of every two patches, one per `PAIR_COLUMNS`.
    """

    tokens: Tensor
    pairs: Tensor


@dataclass(frozen=True, slots=True)
class EncodedPatches:
    """What the encoder made of one object.

    Attributes:
        tokens: (A, D).
        pairs: (A, A, E) hidden features of pairs.
        biases: (L, H, A, A) attention biases of the decoder's layers.
    """

    tokens: Tensor
    pairs: Tensor
    biases: Tensor


def build_patch_tensors(
    features: PatchFeatures, device: str | torch.device = "cpu"
) -> PatchTensors:
    """Convert patch features to tensors.

    Args:
        features: of one object; `geodesic_distances` as floats.
        device: torch device.
    """
    at = torch.as_tensor(features.centers, dtype=torch.float32, device=device)
    up = torch.as_tensor(np.asarray(features.normals, np.float32), device=device)
    tokens = _token_columns(at, up, features.scalars)
    pairs = _pair_columns(features, at, up, tokens["thickness_mean"])
    return PatchTensors(
        torch.stack(order_columns(tokens, TOKEN_COLUMNS), dim=1),
        torch.stack(order_columns(pairs, PAIR_COLUMNS), dim=2),
    )


def _pair_columns(
    features: PatchFeatures, at: Tensor, up: Tensor, thick: Tensor
) -> dict[str, Tensor]:
    """(A, A) columns of every two patches, from features, (A, 3) centres and normals, thickness."""
    device = at.device
    areas = torch.as_tensor(features.areas, dtype=torch.float32, device=device)
    geodesic = torch.as_tensor(np.asarray(features.geodesic_distances, np.float32), device=device)
    levels = torch.as_tensor(np.asarray(features.levels, np.int64), device=device)
    materials = torch.as_tensor(np.asarray(features.materials, np.int64), device=device)
    step = at[None] - at[:, None]
    gaps = step.norm(dim=2)
    toward = step / (gaps[..., None] + 1e-4)
    slope = torch.einsum("id,ijd->ij", up, toward)
    size = areas.clamp_min(1e-7).log()
    return {
        "geodesic_distance": geodesic / FAR,
        **{f"geodesic_nearness_{scale}": (-geodesic / scale).exp() for scale in _DISTANCE_SCALES},
        "distance": gaps,
        **{f"nearness_{scale}": (-gaps / scale).exp() for scale in _DISTANCE_SCALES},
        "normal_agreement": up @ up.T,
        "slope_to": slope,
        "slope_from": slope.T,
        "same_material": (materials[:, None] == materials[None]).float(),
        "log_area_difference": (size[:, None] - size[None]) / 4,
        "thickness_difference": (thick[:, None] - thick[None]).abs() * 4,
        **{
            f"same_segment_{name}": (row[:, None] == row[None]).float()
            for name, row in zip(LEVEL_NAMES, levels, strict=True)
        },
    }


def _token_columns(at: Tensor, up: Tensor, scalars: FloatArray) -> dict[str, Tensor]:
    """(A,) columns of patches: (A, 3) centres as they are and as waves, normals, scalars."""
    known = torch.as_tensor(np.asarray(scalars, np.float32), device=at.device)
    waves = at[:, :, None] * (2.0 ** torch.arange(NUM_FREQUENCIES, device=at.device) * math.pi)
    sines, cosines = waves.sin(), waves.cos()
    columns = dict(zip(SCALAR_COLUMNS, known.unbind(dim=1), strict=True))
    for number, axis in enumerate(_AXES):
        columns[f"position_{axis}"], columns[f"normal_{axis}"] = at[:, number], up[:, number]
        for k in range(NUM_FREQUENCIES):
            columns[f"sin_{axis}_{k}"] = sines[:, number, k]
            columns[f"cos_{axis}_{k}"] = cosines[:, number, k]
    return columns


class Block(nn.Module):
    """Self-attention with a bias per pair, then a feed-forward layer.

    Args:
        width: channels.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(Q, A, D) tokens and (H, A, A) biases -> (Q, A, D)."""
        shape = (*x.shape[:2], 3, self.heads, x.shape[2] // self.heads)
        query, key, value = self.to_qkv(self.norm_attention(x)).view(shape).permute(2, 0, 3, 1, 4)
        # Never holds the (Q, H, A, A) weights at once.
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias[None].expand(len(x), -1, -1, -1)
        )
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = x + self.to_out(mixed)
        out: Tensor = x + self.feed(self.norm_feed(x))
        return out


class PatchNetwork(nn.Module):
    """Encoder, click decoder and affinity head.

    Args:
        width: channels.
        heads: attention heads.
        depth: layers of the encoder and of the decoder.
        pair_width: channels of a pair.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        width: int = 128,
        heads: int = 4,
        depth: tuple[int, int] = (4, 2),
        pair_width: int = 32,
    ) -> None:
        super().__init__()
        self.sizes = {"width": width, "heads": heads, "pair_width": pair_width}
        self.depth = depth
        num_features = len(TOKEN_COLUMNS)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.read_token = nn.Sequential(
            nn.Linear(num_features, width), nn.GELU(), nn.Linear(width, width)
        )
        self.read_pair = nn.Sequential(
            nn.Linear(len(PAIR_COLUMNS), pair_width), nn.GELU(), nn.Linear(pair_width, pair_width)
        )
        self.to_bias = nn.Linear(pair_width, heads * sum(depth))
        self.encoder = nn.ModuleList(Block(width, heads) for _ in range(depth[0]))
        self.decoder = nn.ModuleList(Block(width, heads) for _ in range(depth[1]))
        # Positive and negative clicks: nearest in every hidden fact, and their mean.
        self.read_clicks = nn.ModuleList(nn.Linear(2 * pair_width, width) for _ in range(2))
        self.read_prediction = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.to_key = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64))
        self.pair_logits = nn.Linear(pair_width, 1)

    def encode(self, features: PatchTensors) -> EncodedPatches:
        """Read geometry."""
        pairs = torch.nn.functional.gelu(self.read_pair(features.pairs))
        heads, layers = self.sizes["heads"], sum(self.depth)
        biases = self.to_bias(pairs).permute(2, 0, 1).unflatten(0, (layers, heads))
        x = self.read_token((features.tokens - self.mean) / self.scale)[None]
        for block, bias in zip(self.encoder, biases, strict=False):
            x = block(x, bias)
        return EncodedPatches(x[0], pairs, biases[self.depth[0] :])

    def predict_clicks(
        self, encoded: EncodedPatches, clicks: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Answer questions about one object.

        Args:
            encoded: the object.
            clicks: per question the clicked patches, (K,) and (N,) int64 positive and negative.

        Returns:
            (Q, A) logits that a patch belongs to the clicked part.
        """
        x = torch.stack([self._add_click_features(encoded, *each) for each in clicks])
        for block, bias in zip(self.decoder, encoded.biases, strict=True):
            x = block(x, bias)
        logits: Tensor = self.read_prediction(x)[..., 0]
        return logits

    def predict_affinity(self, encoded: EncodedPatches) -> Tensor:
        """(A, A) logits that two patches are of one part."""
        key = self.to_key(encoded.tokens)
        pair = self.pair_logits(encoded.pairs)[..., 0]
        logits: Tensor = key @ key.T / 8.0 + 0.5 * (pair + pair.T)
        return logits

    def _add_click_features(
        self, encoded: EncodedPatches, positive: Tensor, negative: Tensor
    ) -> Tensor:
        """(A, D) tokens that know where clicks are."""
        x = encoded.tokens
        for layer, chosen in zip(self.read_clicks, (positive, negative), strict=True):
            if len(chosen):
                seen = encoded.pairs[:, chosen]
                x = x + layer(torch.cat([seen.amax(dim=1), seen.mean(dim=1)], dim=1))
        return x


def with_depth(network: PatchNetwork, depth: tuple[int, int]) -> PatchNetwork:
    """A deeper network with the same output: every new layer is zero-initialised.

    Args:
        network: to start from.
        depth: wanted layers of encoder and decoder, neither fewer than now.

    Raises:
        ValueError: `depth` is smaller.
    """
    if depth[0] < network.depth[0] or depth[1] < network.depth[1]:
        raise ValueError(f"depth {depth} is less than the network's {network.depth}")
    sizes = network.sizes
    deeper = PatchNetwork(sizes["width"], sizes["heads"], depth, sizes["pair_width"])
    state = network.state_dict()
    weight, bias = state.pop("to_bias.weight"), state.pop("to_bias.bias")
    missing, _ = deeper.load_state_dict(state, strict=False)
    heads, old = sizes["heads"], network.depth[0] * sizes["heads"]
    rows = torch.arange(len(bias))
    rows = torch.where(rows < old, rows, rows + heads * (depth[0] - network.depth[0]))
    with torch.no_grad():
        for name, value in deeper.named_parameters():
            is_last = "to_out" in name or "feed.2" in name
            if name in missing and (is_last or name.startswith("to_bias")):
                value.zero_()
        deeper.to_bias.weight[rows] = weight
        deeper.to_bias.bias[rows] = bias
    return deeper


def rename_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of stored weights by the present names of layers.

    The shipped file has the earlier names: other bytes would change the keys of all proposals.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for earlier, present in EARLIER_LAYERS.items():
            name = name.replace(earlier, present)
        renamed[name] = value
    return renamed


def read_patch_network(path: Path) -> PatchNetwork:
    """Read weights, in single precision.

    Raises:
        CheckpointMismatch: absent, damaged, of another kind of network, or trained with other
            columns.
    """
    try:
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata()
        settings = settings_of(metadata)
        sizes = {name: int((settings or metadata or {})[name]) for name in _SIZES}
        check_columns(path, settings["columns"] if settings else None, _columns())
        state = rename_layers(load_file(path))
        network = _build_network(sizes, sum(value.numel() for value in state.values()))
        check_finite(state)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except UNREADABLE_WEIGHTS as err:
        first = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise CheckpointMismatch(
            f"{path} holds no patch network: {first}; take the file that "
            "`segvigen_model.training.train_patch_network` or `segvigen finetune` wrote"
        ) from err
    return network


def _build_network(sizes: Mapping[str, int], num_held: int) -> PatchNetwork:
    """Make a network of some sizes, if it needs no more weights than its file holds.

    Raises:
        ValueError: the file cannot be the network's.
    """
    depth = (sizes["encoder"], sizes["decoder"])
    if not all(1 <= size <= MAX_SIZE for size in sizes.values()) or max(depth) > MAX_DEPTH:
        raise ValueError(f"sizes {dict(sizes)} are none of a patch network")

    def build() -> PatchNetwork:
        return PatchNetwork(sizes["width"], sizes["heads"], depth, sizes["pair_width"])

    with torch.device("meta"):  # shapes without memory
        num_wanted = sum(each.numel() for each in build().state_dict().values())
    if num_wanted > num_held:
        raise ValueError(f"its sizes need {num_wanted} weights, it holds {num_held}")
    return build()


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights that are NaN or infinite."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} has NaN or infinite weights")


def save_patch_network(network: PatchNetwork, path: Path) -> None:
    """Write weights in half precision, with the sizes and columns that rebuild the network."""
    depth = {"encoder": network.depth[0], "decoder": network.depth[1]}
    settings = {"format": FORMAT, **network.sizes, **depth}
    state = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    save_file(state, path, metadata=metadata_of(settings, _columns()))


def _columns() -> dict[str, tuple[str, ...]]:
    return {"patch_tokens": TOKEN_COLUMNS, "patch_pairs": PAIR_COLUMNS}


@lru_cache(maxsize=2)
def load_patch_network(path: Path = WEIGHTS_FILE) -> PatchNetwork:
    """Read weights once, for use."""
    return read_patch_network(path).eval().requires_grad_(False)
