"""SegviGen's head on the texture flow: noise, input texture and clicks as one token sequence.

Per asset the tokens are [noise; input texture; clicks]; noise and texture share coordinates, the
shape latent is appended to both channel-wise, and only noise tokens are output. Several assets
with different numbers of clicks run in one batch and equal the same assets alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segvigen_model.slat_flow.blocks import Context, TokenLayout
from segvigen_model.slat_flow.conditioning import (
    ClickTokens,
    ViewConfig,
    ViewEncoder,
    make_null_condition,
)
from segvigen_model.slat_flow.transformer import FlowConfig, SLatFlowModel
from segvigen_model.sparse.structure import Structure

NUM_TASKS = 3


@dataclass(frozen=True, slots=True)
class SegmentationConfig:
    """The flow and what is added to it.

    Attributes:
        flow: sizes of the transformer.
        num_click_embeddings: 0 = no clicks (official full mode), 1 = positive (official
            interactive mode), 2 = positive and negative.
        has_task_embedding: add a learned vector per task to the time embedding, as in the paper;
            official checkpoints have one task each and none.
        view: sizes of the own image encoder; None = image tokens come from outside.
    """

    flow: FlowConfig
    num_click_embeddings: int = 2
    has_task_embedding: bool = True
    view: ViewConfig | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FlowInputs:
    """All that stays the same while a batch is sampled.

    Attributes:
        structure: (T,) latent voxels of the batch.
        static: (T2, in_channels) input rows of noise (texture part zero) and texture tokens,
            noise of all assets first.
        click_feats: (K, C) features of the click slots.
        order: (T2 + K,) int64, brings those rows into per-asset order.
        layout: the packed tokens.
        context: condition keys and values.
        null_context: the same of the empty condition, for guidance; None when not requested.
        task: (B,) int64 or None.
    """

    structure: Structure
    static: Tensor
    click_feats: Tensor
    order: Tensor
    layout: TokenLayout
    context: Context
    null_context: Context | None
    task: Tensor | None


class SegmentationFlow(nn.Module):
    """The segmentation model over latents (normalised)."""

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        width = config.flow.model_channels
        self.flow_model = SLatFlowModel(config.flow)
        if config.num_click_embeddings:
            self.seg_embeddings = nn.Embedding(config.num_click_embeddings, width)
        if config.has_task_embedding:
            self.task_embeddings = nn.Embedding(NUM_TASKS, width)
            nn.init.normal_(self.task_embeddings.weight, std=0.02)
        if config.view is not None:
            self.view_encoder = ViewEncoder(config.view, config.flow.cond_channels)

    # The inputs of the three tasks, by name; all but the latents are optional.
    def prepare(
        self,
        structure: Structure,
        shape_slat: Tensor,
        tex_slat: Tensor,
        *,
        cond: Tensor | Sequence[Tensor] | None = None,
        clicks: ClickTokens | None = None,
        task: Tensor | None = None,
        needs_null: bool = False,
    ) -> FlowInputs:
        """Do once what every step of a sample needs.

        Args:
            structure: T latent voxels of B assets.
            shape_slat: (T, C_shape) normalised.
            tex_slat: (T, C_tex) normalised latents of the input texture.
            cond: (B, L, D) or one (L_b, D) per asset; None = no view.
            clicks: click slots per asset; None = none.
            task: (B,) int64 `Task` per asset; ignored without task embedding.
            needs_null: also prepare the empty condition, for guidance.
        """
        batch, device = structure.batch_size, structure.device
        null = [make_null_condition(self.config.flow.cond_channels, device)] * batch
        counts = (0,) * batch if clicks is None else clicks.counts
        noise_rows = torch.cat([torch.zeros_like(tex_slat), shape_slat], dim=1)
        texture_rows = torch.cat([tex_slat, shape_slat], dim=1)
        order, lengths, kept = _plan_packing(structure.lengths, counts, device)
        coords = [structure.coords[:, 1:], structure.coords[:, 1:]]
        coords += [] if clicks is None else [clicks.coords.to(device)]
        layout = TokenLayout(
            torch.cat(coords)[order], lengths, self.config.flow.head_dim, kept, structure.lengths
        )
        return FlowInputs(
            structure=structure,
            static=torch.cat([noise_rows, texture_rows]),
            click_feats=self._embed_clicks(clicks, device),
            order=order,
            layout=layout,
            context=self.flow_model.prepare_context(null if cond is None else cond),
            null_context=self.flow_model.prepare_context(null) if needs_null else None,
            task=task,
        )

    def _embed_clicks(self, clicks: ClickTokens | None, device: torch.device) -> Tensor:
        """(K, C): row 0 for positive, row 1 for negative, zero for padding."""
        width = self.config.flow.model_channels
        if clicks is None or not len(clicks.labels):
            return torch.zeros(0, width, device=device)
        labels = clicks.labels.to(device)
        if not self.config.num_click_embeddings:
            raise ValueError("this checkpoint takes no clicks; load an interactive one")
        rows = (labels < 0).long()
        if self.config.num_click_embeddings == 1 and bool(rows.any()):
            raise ValueError("this checkpoint knows no negative clicks; leave them out")
        feats: Tensor = self.seg_embeddings(rows)
        return feats * (labels != 0)[:, None]

    def predict_velocity(
        self, x_t: Tensor, t: Tensor | float, inputs: FlowInputs, *, is_null: bool = False
    ) -> Tensor:
        """Predict the velocity at one time.

        Args:
            x_t: (T, C_tex) noisy normalised latents.
            t: time in 0..1, one number or (B,).
            inputs: what `prepare` made.
            is_null: use the empty condition.

        Returns:
            (T, C_tex).
        """
        num, channels = x_t.shape
        rows = inputs.static.clone()
        rows[:num, :channels] = x_t
        tokens = torch.cat([self.flow_model.input_layer(rows), inputs.click_feats])[inputs.order]
        batch = inputs.structure.batch_size
        if not isinstance(t, Tensor):
            t = torch.full((1,), t, dtype=torch.float32, device=x_t.device)  # made there, no copy
        times = t.to(x_t.device, torch.float32).expand(batch) * 1000.0
        extra = None
        if self.config.has_task_embedding and inputs.task is not None:
            extra = self.task_embeddings(inputs.task)
        context = inputs.null_context if is_null else inputs.context
        if context is None:
            raise ValueError("guidance needs prepare(needs_null=True)")
        modulation = self.flow_model.compute_modulation(times, extra)
        return self.flow_model.run_blocks(tokens, modulation, context, inputs.layout)

    def forward(self, x_t: Tensor, t: Tensor, inputs: FlowInputs) -> Tensor:
        """Same as `predict_velocity`, so that hooks and compilation see one entry."""
        return self.predict_velocity(x_t, t, inputs)

    def encode_view(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) views in 0..1 -> (B, L, D) condition tokens."""
        if self.config.view is None:
            raise ValueError("this checkpoint has no own image encoder; give image tokens")
        out: Tensor = self.view_encoder(images)
        return out


def _plan_packing(
    lengths: tuple[int, ...], counts: tuple[int, ...], device: torch.device
) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Order of rows [all noise; all texture; all clicks] -> per asset; lengths; noise rows."""
    total, start, click, packed = sum(lengths), 0, 2 * sum(lengths), 0
    order: list[Tensor] = []
    kept: list[Tensor] = []
    for length, count in zip(lengths, counts, strict=True):
        order.append(torch.arange(start, start + length))
        order.append(torch.arange(total + start, total + start + length))
        order.append(torch.arange(click, click + count))
        kept.append(torch.arange(packed, packed + length))
        start, click, packed = start + length, click + count, packed + 2 * length + count
    sizes = tuple(2 * n + k for n, k in zip(lengths, counts, strict=True))
    return torch.cat(order).to(device), sizes, torch.cat(kept).to(device)
