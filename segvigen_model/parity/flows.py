"""Parity of the flow transformer, both segmentation heads, and the samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segvigen_model.checkpoints.official_config import parse_flow_config
from segvigen_model.parity.golden import BF16_TOLERANCE, FLOW_TOLERANCE, Golden
from segvigen_model.parity.row import ParityRow
from segvigen_model.slat_flow.blocks import FlowBlock
from segvigen_model.slat_flow.conditioning import ClickTokens, make_empty_clicks, stack_clicks
from segvigen_model.slat_flow.sampler import (
    SamplerOptions,
    StepCallback,
    compute_data,
    compute_schedule,
    sample_latents,
)
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import SLatFlowModel, embed_time, set_torso_dtype
from segvigen_model.sparse.rope import apply_rope, compute_rope_frequencies, compute_rope_phases
from segvigen_model.sparse.structure import Structure
from segvigen_model.sparse.tensor import make_sparse_tensor

TIME_SCALE = 1000.0  # golden times are in 0..1000
# Single precision leaves 2^-24 of such an angle, and processors round exp differently.
TIME_TOLERANCE = 1e-4


def compare_rope_time(folder: Path) -> list[ParityRow]:
    """Rotations of every head width and the time embedding."""
    golden = Golden(folder)
    coords = golden.inputs["coords"][:, 1:]
    rows = [golden.compare_close("t_sinusoid", embed_time(golden.inputs["t"]), TIME_TOLERANCE)]
    widths = sorted(int(key[1:]) for key in golden.inputs if key[0] == "q" and key[1:].isdigit())
    for width in widths:
        phases = compute_rope_phases(coords, width)
        rows.append(
            golden.compare_close(f"freqs{width}", compute_rope_frequencies(width), FLOW_TOLERANCE)
        )
        rows.append(golden.compare_close(f"phase_re{width}", phases.real, FLOW_TOLERANCE))
        rows.append(golden.compare_close(f"phase_im{width}", phases.imag, FLOW_TOLERANCE))
        for name in {f"q{width}", f"k{width}"} & golden.inputs.keys():
            rows.append(
                golden.compare_close(name, apply_rope(golden.inputs[name], phases), FLOW_TOLERANCE)
            )
    return [*rows, *golden.list_left_over()]


def compare_slat_flow(folder: Path) -> list[ParityRow]:
    """The plain texture flow: outputs, per-block features, gradients, bfloat16 torso."""
    golden = Golden(folder)
    given = golden.inputs
    model = SLatFlowModel(parse_flow_config(golden.config["args"]))
    golden.load_weights(model)
    x_feats = given["x_t"].clone().requires_grad_()
    x = make_sparse_tensor(x_feats, given["coords"])
    shape = make_sparse_tensor(given["shape"], given["coords"])
    features, handles = _record_outputs(model)
    y = model(x, given["t"], given["cond"], shape).feats
    for handle in handles:
        handle.remove()
    rows = [
        golden.compare_close("y", y, FLOW_TOLERANCE),
        golden.compare_close("t_emb", model.t_embedder(given["t"]), FLOW_TOLERANCE),
        golden.compare_close("adaln", model.compute_modulation(given["t"]), FLOW_TOLERANCE),
    ]
    rows += [
        golden.compare_close(name, found, FLOW_TOLERANCE)
        for name, found in features.items()
        if golden.has_output(name)
    ]
    if "target" in given:
        loss = F.mse_loss(y, given["target"])
        torch.autograd.backward(loss)
        rows.append(golden.compare_close("loss", loss, FLOW_TOLERANCE))
        rows.append(golden.compare_close("grad_x_t", _get_grad(x_feats), FLOW_TOLERANCE))
        rows.append(golden.compare_gradients(model, "grad_norm_sum"))
        rows += _compare_flow_gradients(golden, model)
    return [*rows, *_compare_flow_variants(golden, model), *golden.list_left_over()]


def _compare_flow_gradients(golden: Golden, model: SLatFlowModel) -> list[ParityRow]:
    """Whole gradients that the set keeps: of block 0's queries, keys, values; of modulations."""
    first: FlowBlock = model.blocks[0]  # type: ignore[assignment]
    found = {
        "grad_qkv0": first.self_attn.to_qkv.weight,
        "grad_gamma0": first.self_attn.q_rms_norm.gamma,
    }
    for index, block in enumerate(model.blocks):
        found[f"grad_modulation{index}"] = block.modulation  # type: ignore[assignment]
    return [
        golden.compare_close(name, _get_grad(weight), FLOW_TOLERANCE)
        for name, weight in found.items()
        if golden.has_output(name)
    ]


@torch.no_grad()
def _compare_flow_variants(golden: Golden, model: SLatFlowModel) -> list[ParityRow]:
    given = golden.inputs
    x = make_sparse_tensor(given["x_t"], given["coords"])
    shape = make_sparse_tensor(given["shape"], given["coords"])
    names = [f"cond_list{asset}" for asset in range(x.batch_size)]
    rows: list[ParityRow] = []
    if all(name in given for name in names):
        listed = [given[name] for name in names]
        y = model(x, given["t"], listed, shape).feats
        rows.append(golden.compare_close("y_cond_list", y, FLOW_TOLERANCE))
    for asset in range(x.batch_size):
        if golden.has_output(f"y_single{asset}"):
            own = given["coords"][:, 0] == asset
            coords = given["coords"][own].clone()
            coords[:, 0] = 0
            only = slice(asset, asset + 1)
            one = make_sparse_tensor(given["x_t"][own], coords)
            its_shape = make_sparse_tensor(given["shape"][own], coords)
            y = model(one, given["t"][only], given["cond"][only], its_shape).feats
            rows.append(golden.compare_close(f"y_single{asset}", y, FLOW_TOLERANCE))
    set_torso_dtype(model, torch.bfloat16)
    y_bf16 = model(x, given["t"], given["cond"], shape).feats
    return [*rows, golden.compare_close("y_bf16", y_bf16, BF16_TOLERANCE)]


def _record_outputs(model: SLatFlowModel) -> tuple[dict[str, Tensor], list[Any]]:
    """Collect what the official model reports per block."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _args, out: found.__setitem__(name, out)

    named = {f"block{index}": block for index, block in enumerate(model.blocks)}
    named["input_layer"] = model.input_layer
    return found, [module.register_forward_hook(keep(name)) for name, module in named.items()]


def _build_head(golden: Golden) -> SegmentationFlow:
    state = golden.read_state()
    embeddings = len(state.get("seg_embeddings.weight", ()))
    flow = SegmentationFlow(
        SegmentationConfig(parse_flow_config(golden.config["flow_args"]), embeddings, False, None)
    )
    golden.load_weights(flow)
    return flow


def _make_clicks(coords: Tensor, labels: Tensor) -> ClickTokens:
    return ClickTokens(coords[:, 1:], labels[:, 0].long(), (len(coords),))


def _stack_asset_clicks(given: dict[str, Tensor], assets: list[int]) -> ClickTokens | None:
    if "point_coords0" not in given:
        return None
    sets = [
        _make_clicks(given[f"point_coords{k}"], given[f"point_labels{k}"])
        if f"point_coords{k}" in given
        else make_empty_clicks()
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
        clicks=_stack_asset_clicks(given, assets),
    )
    return flow.predict_velocity(given["x_t"][rows], given["t"][assets] / TIME_SCALE, inputs)


def compare_segvigen_head(folder: Path) -> list[ParityRow]:
    """Full or interactive head: each asset alone, all in one batch, gradients."""
    golden = Golden(folder)
    flow, given = _build_head(golden), golden.inputs
    assets = list(range(int(given["coords"][:, 0].max()) + 1))
    rows: list[ParityRow] = []
    single = [_predict(flow, given, [asset]) for asset in assets]
    batched = torch.split(_predict(flow, given, assets), [len(y) for y in single])
    for asset in assets:
        wanted = f"y_single{asset}"
        rows.append(golden.compare_close(wanted, single[asset], FLOW_TOLERANCE))
        rows.append(
            golden.compare_close(
                f"batched asset {asset}", batched[asset], FLOW_TOLERANCE, key=wanted
            )
        )
    rows.append(golden.compare_alone("y", torch.cat(single), torch.cat(batched)))
    if golden.has_output("y_two"):
        rows.append(golden.compare_close("y_two", torch.cat(batched), FLOW_TOLERANCE))
        rows.append(golden.compare_exact("y_two_coords", given["coords"]))
    if "target" in given:
        rows += _compare_head_gradients(golden, flow, torch.cat(batched), single[0])
    return [*rows, *golden.list_left_over()]


def _compare_head_gradients(
    golden: Golden, flow: SegmentationFlow, batched: Tensor, first: Tensor
) -> list[ParityRow]:
    is_alone = "loss_single0" in golden.outputs
    y = first if is_alone else batched
    loss = F.mse_loss(y, golden.inputs["target"][: len(y)])
    torch.autograd.backward(loss)
    suffix = "_single0" if is_alone else ""
    rows = [
        golden.compare_close(f"loss{suffix}", loss, FLOW_TOLERANCE),
        golden.compare_gradients(flow, f"grad_norm_sum{suffix}"),
    ]
    if "grad_seg_embeddings" in golden.outputs:
        found = _get_grad(flow.seg_embeddings.weight)
        rows.append(golden.compare_close("grad_seg_embeddings", found, FLOW_TOLERANCE))
    return rows


def compare_sampler(folder: Path) -> list[ParityRow]:
    """Every sampling case, step by step."""
    golden = Golden(folder)
    flow, given = _build_head(golden), golden.inputs
    assets = list(range(int(given["coords"][:, 0].max()) + 1))
    clicks = _stack_asset_clicks(given, assets)
    if "point_coords" in given:
        clicks = _make_clicks(given["point_coords"], given["point_labels"])
    inputs = flow.prepare(
        Structure(given["coords"]),
        given["shape"],
        given["tex"],
        cond=given["cond"],
        clicks=clicks,
        needs_null=True,
    )
    cases = {f"case{index}": case for index, case in enumerate(golden.config.get("cases", []))}
    if golden.has_output("trellis2_rescale"):
        cases["trellis2_rescale"] = golden.config["trellis2_rescale"]
    rows: list[ParityRow] = []
    for name, case in cases.items():
        options = parse_sampler_options(case)
        steps: list[Tensor] = []
        x = sample_latents(flow, inputs, given["noise"], options, _make_collector(steps))
        rows.append(golden.compare_close(name, x, FLOW_TOLERANCE))
        times = torch.from_numpy(compute_schedule(options.num_steps, options.rescale_t))
        if golden.has_output(f"{name}_steps"):
            rows.append(golden.compare_close(f"{name}_steps", torch.stack(steps), FLOW_TOLERANCE))
            rows.append(golden.compare_close(f"{name}_t", times, FLOW_TOLERANCE))
        if golden.has_output(f"{name}_x0_last"):
            rows.append(_compute_last_data(golden, name, [given["noise"], *steps], times))
    return [*rows, *golden.list_left_over()]


def _compute_last_data(golden: Golden, name: str, steps: list[Tensor], times: Tensor) -> ParityRow:
    """The data that the last step points at, by the velocity it moved along."""
    t, t_next = (float(time) for time in times[-2:])
    velocity = (steps[-2] - steps[-1]) / (t - t_next)
    found = compute_data(steps[-2], velocity, t)
    return golden.compare_close(f"{name}_x0_last", found, FLOW_TOLERANCE)


def _make_collector(steps: list[Tensor]) -> StepCallback:
    return lambda _step, x: steps.append(x)


def parse_sampler_options(case: dict[str, Any]) -> SamplerOptions:
    """Official sampler parameters -> ours."""
    low, high = case["guidance_interval"]
    return SamplerOptions(
        num_steps=int(case["steps"]),
        rescale_t=float(case["rescale_t"]),
        guidance_strength=float(case["guidance_strength"]),
        guidance_interval=(float(low), float(high)),
        guidance_rescale=float(case["guidance_rescale"]),
    )


def _get_grad(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.nan) if tensor.grad is None else tensor.grad
