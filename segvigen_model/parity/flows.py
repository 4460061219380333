"""Parity of the flow transformer, both segmentation heads, and the samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segvigen_model.checkpoints.official_config import flow_config
from segvigen_model.parity.golden import BF16_TOLERANCE, FLOW_TOLERANCE, Golden
from segvigen_model.parity.row import ParityRow
from segvigen_model.slat_flow.blocks import FlowBlock
from segvigen_model.slat_flow.conditioning import ClickTokens, no_clicks, stack_clicks
from segvigen_model.slat_flow.sampler import (
    SamplerOptions,
    StepCallback,
    data_from_velocity,
    sample,
    schedule,
)
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import SLatFlowModel, set_torso_dtype, time_sinusoid
from segvigen_model.sparse.rope import apply_rope, rope_frequencies, rope_phases
from segvigen_model.sparse.structure import Structure
from segvigen_model.sparse.tensor import sparse_tensor

TIME_SCALE = 1000.0  # golden times are in 0..1000


def rope_time(folder: Path) -> list[ParityRow]:
    """Rotations of every head width and the time embedding."""
    golden = Golden(folder)
    coords = golden.inputs["coords"][:, 1:]
    rows = [golden.close("t_sinusoid", time_sinusoid(golden.inputs["t"]), FLOW_TOLERANCE)]
    widths = sorted(int(key[1:]) for key in golden.inputs if key[0] == "q" and key[1:].isdigit())
    for width in widths:
        phases = rope_phases(coords, width)
        rows.append(golden.close(f"freqs{width}", rope_frequencies(width), FLOW_TOLERANCE))
        rows.append(golden.close(f"phase_re{width}", phases.real, FLOW_TOLERANCE))
        rows.append(golden.close(f"phase_im{width}", phases.imag, FLOW_TOLERANCE))
        for name in {f"q{width}", f"k{width}"} & golden.inputs.keys():
            rows.append(golden.close(name, apply_rope(golden.inputs[name], phases), FLOW_TOLERANCE))
    return [*rows, *golden.left_over()]


def slat_flow(folder: Path) -> list[ParityRow]:
    """The plain texture flow: outputs, per-block features, gradients, bfloat16 torso."""
    golden = Golden(folder)
    given = golden.inputs
    model = SLatFlowModel(flow_config(golden.config["args"]))
    golden.fill(model)
    x_feats = given["x_t"].clone().requires_grad_()
    x = sparse_tensor(x_feats, given["coords"])
    shape = sparse_tensor(given["shape"], given["coords"])
    features, handles = _watch(model)
    y = model(x, given["t"], given["cond"], shape).feats
    for handle in handles:
        handle.remove()
    rows = [
        golden.close("y", y, FLOW_TOLERANCE),
        golden.close("t_emb", model.t_embedder(given["t"]), FLOW_TOLERANCE),
        golden.close("adaln", model.modulation(given["t"]), FLOW_TOLERANCE),
    ]
    rows += [
        golden.close(name, found, FLOW_TOLERANCE)
        for name, found in features.items()
        if golden.has(name)
    ]
    if "target" in given:
        loss = F.mse_loss(y, given["target"])
        torch.autograd.backward(loss)
        rows.append(golden.close("loss", loss, FLOW_TOLERANCE))
        rows.append(golden.close("grad_x_t", _grad(x_feats), FLOW_TOLERANCE))
        rows.append(golden.gradients(model, "grad_norm_sum"))
        rows += _flow_gradients(golden, model)
    return [*rows, *_flow_variants(golden, model), *golden.left_over()]


def _flow_gradients(golden: Golden, model: SLatFlowModel) -> list[ParityRow]:
    """Whole gradients that the set keeps: of block 0's queries, keys, values; of modulations."""
    first: FlowBlock = model.blocks[0]  # type: ignore[assignment]
    found = {
        "grad_qkv0": first.self_attn.to_qkv.weight,
        "grad_gamma0": first.self_attn.q_rms_norm.gamma,
    }
    for index, block in enumerate(model.blocks):
        found[f"grad_modulation{index}"] = block.modulation  # type: ignore[assignment]
    return [
        golden.close(name, _grad(weight), FLOW_TOLERANCE)
        for name, weight in found.items()
        if golden.has(name)
    ]


@torch.no_grad()
def _flow_variants(golden: Golden, model: SLatFlowModel) -> list[ParityRow]:
    given = golden.inputs
    x = sparse_tensor(given["x_t"], given["coords"])
    shape = sparse_tensor(given["shape"], given["coords"])
    names = [f"cond_list{asset}" for asset in range(x.batch_size)]
    rows: list[ParityRow] = []
    if all(name in given for name in names):
        listed = [given[name] for name in names]
        y = model(x, given["t"], listed, shape).feats
        rows.append(golden.close("y_cond_list", y, FLOW_TOLERANCE))
    for asset in range(x.batch_size):
        if golden.has(f"y_single{asset}"):
            own = given["coords"][:, 0] == asset
            coords = given["coords"][own].clone()
            coords[:, 0] = 0
            only = slice(asset, asset + 1)
            one = sparse_tensor(given["x_t"][own], coords)
            its_shape = sparse_tensor(given["shape"][own], coords)
            y = model(one, given["t"][only], given["cond"][only], its_shape).feats
            rows.append(golden.close(f"y_single{asset}", y, FLOW_TOLERANCE))
    set_torso_dtype(model, torch.bfloat16)
    y_bf16 = model(x, given["t"], given["cond"], shape).feats
    return [*rows, golden.close("y_bf16", y_bf16, BF16_TOLERANCE)]


def _watch(model: SLatFlowModel) -> tuple[dict[str, Tensor], list[Any]]:
    """Collect what the official model reports per block."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, out: found.__setitem__(name, out)

    named = {f"block{index}": block for index, block in enumerate(model.blocks)}
    named["input_layer"] = model.input_layer
    return found, [module.register_forward_hook(keep(name)) for name, module in named.items()]


def _head(golden: Golden) -> SegmentationFlow:
    state = golden.state()
    embeddings = len(state.get("seg_embeddings.weight", ()))
    flow = SegmentationFlow(
        SegmentationConfig(flow_config(golden.config["flow_args"]), embeddings, False, None)
    )
    golden.fill(flow)
    return flow


def _clicks(coords: Tensor, labels: Tensor) -> ClickTokens:
    return ClickTokens(coords[:, 1:], labels[:, 0].long(), (len(coords),))


def _batch_clicks(given: dict[str, Tensor], assets: list[int]) -> ClickTokens | None:
    if "point_coords0" not in given:
        return None
    sets = [
        _clicks(given[f"point_coords{k}"], given[f"point_labels{k}"])
        if f"point_coords{k}" in given
        else no_clicks()
        for k in assets
    ]
    return stack_clicks(sets)


def _predict(flow: SegmentationFlow, given: dict[str, Tensor], assets: list[int]) -> Tensor:
    """Velocity of some of the golden assets, batched."""
    rows = torch.cat([(given["coords"][:, 0] == k).nonzero()[:, 0] for k in assets])
    coords = given["coords"][rows].clone()
    coords[:, 0] -= assets[0]
    inputs = flow.prepare(
        Structure(coords),
        given["shape"][rows],
        given["tex"][rows],
        cond=given["cond"][assets],
        clicks=_batch_clicks(given, assets),
    )
    return flow.velocity(given["x_t"][rows], given["t"][assets] / TIME_SCALE, inputs)


def segvigen_head(folder: Path) -> list[ParityRow]:
    """Full or interactive head: each asset alone, all in one batch, gradients."""
    golden = Golden(folder)
    flow, given = _head(golden), golden.inputs
    assets = list(range(int(given["coords"][:, 0].max()) + 1))
    rows: list[ParityRow] = []
    single = [_predict(flow, given, [asset]) for asset in assets]
    batched = torch.split(_predict(flow, given, assets), [len(y) for y in single])
    for asset in assets:
        wanted = f"y_single{asset}"
        rows.append(golden.close(wanted, single[asset], FLOW_TOLERANCE))
        rows.append(
            golden.close(f"batched asset {asset}", batched[asset], FLOW_TOLERANCE, key=wanted)
        )
    rows.append(golden.alone("y", torch.cat(single), torch.cat(batched)))
    if golden.has("y_two"):
        rows.append(golden.close("y_two", torch.cat(batched), FLOW_TOLERANCE))
        rows.append(golden.exact("y_two_coords", given["coords"]))
    if "target" in given:
        rows += _head_gradients(golden, flow, torch.cat(batched), single[0])
    return [*rows, *golden.left_over()]


def _head_gradients(
    golden: Golden, flow: SegmentationFlow, batched: Tensor, first: Tensor
) -> list[ParityRow]:
    is_alone = "loss_single0" in golden.outputs
    y = first if is_alone else batched
    loss = F.mse_loss(y, golden.inputs["target"][: len(y)])
    torch.autograd.backward(loss)
    suffix = "_single0" if is_alone else ""
    rows = [
        golden.close(f"loss{suffix}", loss, FLOW_TOLERANCE),
        golden.gradients(flow, f"grad_norm_sum{suffix}"),
    ]
    if "grad_seg_embeddings" in golden.outputs:
        found = _grad(flow.seg_embeddings.weight)
        rows.append(golden.close("grad_seg_embeddings", found, FLOW_TOLERANCE))
    return rows


def sampler(folder: Path) -> list[ParityRow]:
    """Every sampling case, step by step."""
    golden = Golden(folder)
    flow, given = _head(golden), golden.inputs
    assets = list(range(int(given["coords"][:, 0].max()) + 1))
    clicks = _batch_clicks(given, assets)
    if "point_coords" in given:
        clicks = _clicks(given["point_coords"], given["point_labels"])
    inputs = flow.prepare(
        Structure(given["coords"]),
        given["shape"],
        given["tex"],
        cond=given["cond"],
        clicks=clicks,
        needs_null=True,
    )
    cases = {f"case{index}": case for index, case in enumerate(golden.config.get("cases", []))}
    if golden.has("trellis2_rescale"):
        cases["trellis2_rescale"] = golden.config["trellis2_rescale"]
    rows: list[ParityRow] = []
    for name, case in cases.items():
        options = sampler_options(case)
        steps: list[Tensor] = []
        x = sample(flow, inputs, given["noise"], options, _collector(steps))
        rows.append(golden.close(name, x, FLOW_TOLERANCE))
        times = torch.from_numpy(schedule(options.num_steps, options.rescale_t))
        if golden.has(f"{name}_steps"):
            rows.append(golden.close(f"{name}_steps", torch.stack(steps), FLOW_TOLERANCE))
            rows.append(golden.close(f"{name}_t", times, FLOW_TOLERANCE))
        if golden.has(f"{name}_x0_last"):
            rows.append(_last_data(golden, name, [given["noise"], *steps], times))
    return [*rows, *golden.left_over()]


def _last_data(golden: Golden, name: str, steps: list[Tensor], times: Tensor) -> ParityRow:
    """The data that the last step points at, by the velocity it moved along."""
    t, t_next = (float(time) for time in times[-2:])
    velocity = (steps[-2] - steps[-1]) / (t - t_next)
    found = data_from_velocity(steps[-2], velocity, t)
    return golden.close(f"{name}_x0_last", found, FLOW_TOLERANCE)


def _collector(steps: list[Tensor]) -> StepCallback:
    return lambda _step, x: steps.append(x)


def sampler_options(case: dict[str, Any]) -> SamplerOptions:
    """Official sampler parameters -> ours."""
    low, high = case["guidance_interval"]
    return SamplerOptions(
        num_steps=int(case["steps"]),
        rescale_t=float(case["rescale_t"]),
        guidance_strength=float(case["guidance_strength"]),
        guidance_interval=(float(low), float(high)),
        guidance_rescale=float(case["guidance_rescale"]),
    )


def _grad(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan) if tensor.grad is None else tensor.grad
