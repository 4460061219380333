"""The tiny network on CUDA: equal to the CPU, near it in bfloat16, without waits, offloaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.model.inference import ClickSet, draw_colorings, draw_masks, encode_voxels
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.slat_flow import transformer
from segvigen_model.slat_flow.conditioning import Task, make_click_tokens, stack_clicks
from segvigen_model.slat_flow.sampler import SamplerOptions, sample_latents
from segvigen_model.sparse.attention import Lengths, attend_packed
from segvigen_model.sparse.structure import Structure


@pytest.fixture(scope="module")
def voxels():
    return mesh_to_ovoxel(make_asset(CATEGORIES[0], 0).mesh, 32)


def flow_inputs(flow, structure, options):
    """Two clicks, random latents; the same numbers on every device."""
    generator = torch.Generator().manual_seed(3)
    count, device = len(structure), structure.device
    shape, tex, noise = torch.randn(3, count, 8, generator=generator).to(device)
    cond = torch.randn(structure.batch_size, 5, 24, generator=generator).to(device)
    cells = np.array([[1, 2, 3], [3, 2, 1]])
    clicks = stack_clicks([make_click_tokens(cells, cells[:, 0] > 0)] * structure.batch_size)
    task = torch.full((structure.batch_size,), int(Task.INTERACTIVE), device=device)
    inputs = flow.prepare(
        structure,
        shape,
        tex,
        cond=cond,
        clicks=clicks.to(device),
        task=task,
        needs_null=options.needs_null,
    )
    return inputs, noise


def test_encoding_and_drawing_equal_the_cpu(device, make_model, voxels):
    outputs = []
    for place in ("cpu", device):
        model = make_model(place)
        encoding = encode_voxels(model, voxels)
        clicks = [ClickSet(encoding.latent_coords[:3], np.array([True, False, True]))]
        colors = draw_colorings(model, encoding, num_draws=2, num_steps=3, seed=0)
        outputs.append((encoding, draw_masks(model, encoding, clicks), colors))
    (one, masks, colors), (other, gpu_masks, gpu_colors) = outputs
    assert np.array_equal(one.latent_coords, other.latent_coords)
    assert np.abs(one.shape_slat - other.shape_slat).max() < 1e-4
    assert np.abs(one.tex_slat - other.tex_slat).max() < 1e-4
    assert np.abs(masks - gpu_masks).max() < 1e-3
    assert np.abs(colors - gpu_colors).max() < 1e-3


def test_bfloat16_torso_is_near_float32(device, make_model, shell):
    options = SamplerOptions(2)
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        flow = make_model(device).dit
        transformer.set_torso_dtype(flow.flow_model, dtype)
        inputs, noise = flow_inputs(flow, Structure(shell(16).coords.to(device)), options)
        with torch.no_grad():
            outputs.append(flow.predict_velocity(noise, 0.7, inputs))
    spread = outputs[0].std()
    assert (outputs[0] - outputs[1]).abs().max() < 0.1 * spread
    assert (outputs[0] - outputs[1]).abs().mean() < 0.01 * spread


def test_variable_lengths_equal_one_by_one(device):
    if device.type != "cuda":
        pytest.skip("the variable-length kernel is for CUDA")
    lengths = Lengths((70, 1, 300), device)
    q, k, v = torch.randn(3, 371, 4, 64, device=device, dtype=torch.bfloat16)
    batched = attend_packed(q, k, v, lengths, lengths)
    start = 0
    for length in lengths.values:
        rows, alone = slice(start, start + length), Lengths((length,), device)
        wanted = attend_packed(q[rows].float(), k[rows].float(), v[rows].float(), alone, alone)
        assert (batched[rows].float() - wanted).abs().max() < 3e-2, length
        start += length


@pytest.mark.parametrize("strength, rescale", [(1.0, 0.0), (3.0, 0.7)])
def test_steps_never_wait_for_the_device(device, make_model, shell, strength, rescale):
    if device.type != "cuda":
        pytest.skip("torch notices waits on CUDA only")
    flow = make_model(device).dit
    transformer.set_torso_dtype(flow.flow_model, torch.bfloat16)
    options = SamplerOptions(4, 3.0, strength, (0.0, 1.0), rescale)
    inputs, noise = flow_inputs(flow, Structure(shell(16).coords.to(device)), options)
    sample_latents(flow, inputs, noise, options)  # caches are made on first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample_latents(flow, inputs, noise, options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_offloaded_weights_give_the_same_answer(device, make_model, voxels):
    straight = make_model(device)
    offloaded = replace(
        make_model("cpu"),
        compute_device=device,
        normalization=straight.normalization,
        sha256=straight.sha256,
    )
    outputs = []
    for model in (straight, offloaded):
        encoding = encode_voxels(model, voxels)
        outputs.append(draw_colorings(model, encoding, num_draws=1, num_steps=2, seed=0))
    assert np.array_equal(*outputs)
    places = {parameter.device.type for parameter in offloaded.dit.parameters()}
    assert places == {"cpu"}, "weights go home"
