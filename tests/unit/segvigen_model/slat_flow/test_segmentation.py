"""The segmentation flow: batching, reuse, tasks, clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segvigen_model.slat_flow.conditioning import (
    Task,
    make_click_tokens,
    make_empty_clicks,
    make_null_condition,
    stack_clicks,
)
from segvigen_model.slat_flow.sampler import (
    SamplerOptions,
    compute_data,
    compute_schedule,
    compute_velocity,
    compute_velocity_target,
    draw_noise,
    mix_noise,
    sample_in_one_step,
    sample_latents,
)
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import FlowConfig
from segvigen_model.sparse.structure import Structure

SIZES = (23, 31, 12)
FLOW = FlowConfig(16, 8, 48, 24, num_blocks=2, num_heads=2, mlp_ratio=5.3334)


def click_sets():
    first = make_click_tokens(np.array([[1, 2, 3], [4, 5, 6]]), np.array([True, False]))
    many = make_click_tokens(np.arange(36).reshape(12, 3) % 8, np.ones(12, bool))
    return [first, make_empty_clicks(), many]


@pytest.fixture
def case(latent_structure):
    structure = latent_structure(*SIZES)
    generator = torch.Generator().manual_seed(5)
    total = sum(SIZES)
    arrays = [torch.randn(total, 8, generator=generator) for _ in range(3)]
    conds = [torch.randn(n, 24, generator=generator) for n in (16, 16, 5)]
    return structure, arrays, conds


def alone(case, asset):
    structure, arrays, conds = case
    rows = structure.batch_index == asset
    coords = structure.coords[rows].clone()
    coords[:, 0] = 0
    return Structure(coords), [each[rows] for each in arrays], conds[asset]


@torch.no_grad()
def test_a_batch_equals_its_assets_alone(tiny_model, case):
    flow = tiny_model.dit
    structure, (shape, tex, x_t), conds = case
    times, tasks = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([0, 1, 2])
    inputs = flow.prepare(
        structure, shape, tex, cond=conds, clicks=stack_clicks(click_sets()), task=tasks
    )
    batched = flow.predict_velocity(x_t, times, inputs).split(SIZES)
    for asset, clicks in enumerate(click_sets()):
        one, (shape_1, tex_1, x_1), cond = alone(case, asset)
        single = flow.prepare(
            one, shape_1, tex_1, cond=[cond], clicks=clicks, task=tasks[asset : asset + 1]
        )
        wanted = flow.predict_velocity(x_1, float(times[asset]), single)
        assert float((wanted - batched[asset]).abs().max()) < 1e-5


@torch.no_grad()
def test_reuse_and_the_short_last_block_change_nothing(tiny_model, case):
    """Compare with the plain way: everything anew, all tokens through all blocks."""
    flow = tiny_model.dit
    one, (shape, tex, x_t), cond = alone(case, 0)
    clicks = click_sets()[0]
    inputs = flow.prepare(one, shape, tex, cond=[cond], clicks=clicks, task=torch.tensor([0]))
    flow.predict_velocity(x_t, 0.3, inputs)
    found = flow.predict_velocity(x_t, 0.7, inputs)

    model = flow.flow_model
    rows = torch.cat([torch.cat([x_t, shape], 1), torch.cat([tex, shape], 1)])
    tokens = torch.cat([model.input_layer(rows), inputs.click_feats])
    layout = type(inputs.layout)(
        torch.cat([one.coords[:, 1:], one.coords[:, 1:], clicks.coords]),
        (len(tokens),),
        model.config.head_dim,
    )
    extra = flow.task_embeddings(torch.tensor([0]))
    modulation = model.compute_modulation(torch.tensor([700.0]), extra)
    wanted = model.run_blocks(tokens, modulation, model.prepare_context([cond]), layout)[: len(x_t)]
    assert float((found - wanted).abs().max()) < 1e-5


@torch.no_grad()
def test_order_of_clicks_does_not_matter_but_sign_task_and_view_do(tiny_model, case):
    flow = tiny_model.dit
    one, (shape, tex, x_t), cond = alone(case, 0)
    cells = np.array([[1, 2, 3], [4, 5, 6], [7, 0, 2]])

    def run(order=(0, 1, 2), signs=(True, True, False), task=0, view=cond):
        clicks = make_click_tokens(cells[list(order)], np.array(signs)[list(order)])
        inputs = flow.prepare(
            one, shape, tex, cond=[view], clicks=clicks, task=torch.tensor([task])
        )
        return flow.predict_velocity(x_t, 0.5, inputs)

    base = run()
    assert float((run(order=(2, 0, 1)) - base).abs().max()) < 1e-5
    for changed in (run(signs=(True, True, True)), run(task=1), run(view=cond + 1)):
        assert float((changed - base).abs().max()) > 1e-3


@torch.no_grad()
def test_no_view_equals_any_number_of_zero_tokens(tiny_model, case):
    flow = tiny_model.dit
    one, (shape, tex, x_t), _ = alone(case, 1)
    bare = flow.predict_velocity(x_t, 0.5, flow.prepare(one, shape, tex))
    zeros = flow.predict_velocity(
        x_t, 0.5, flow.prepare(one, shape, tex, cond=torch.zeros(1, 7, 24))
    )
    assert float((bare - zeros).abs().max()) < 1e-5
    assert make_null_condition(24).shape == (1, 24)


def test_every_weight_learns(tiny_model, case):
    import copy

    flow = copy.deepcopy(tiny_model.dit)
    structure, (shape, tex, x_t), _ = case
    views = flow.encode_view(torch.rand(3, 3, 32, 32))
    inputs = flow.prepare(
        structure,
        shape,
        tex,
        cond=views,
        clicks=stack_clicks(click_sets()),
        task=torch.tensor([0, 1, 2]),
    )
    flow(x_t, torch.rand(3), inputs).square().mean().backward()
    silent = [name for name, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_clicks_that_a_checkpoint_cannot_take_are_refused(tiny_model, case):
    one, (shape, tex, _), _ = alone(case, 0)
    sizes = tiny_model.config.flow.flow
    negative = make_click_tokens(np.array([[1, 1, 1]]), np.array([False]))
    for count, match in ((0, "takes no clicks"), (1, "no negative clicks")):
        flow = SegmentationFlow(SegmentationConfig(sizes, count, False, None))
        with pytest.raises(ValueError, match=match):
            flow.prepare(one, shape, tex, clicks=negative)
        with pytest.raises(ValueError, match="no own image encoder"):
            flow.encode_view(torch.zeros(1, 3, 32, 32))


def test_schedule_and_velocities_invert():
    times = compute_schedule(4, 3.0)
    assert np.allclose(times, [1.0, 0.9, 0.75, 0.5, 0.0])
    x_0, noise = torch.randn(5, 8), torch.randn(5, 8)
    x_t = mix_noise(x_0, noise, torch.tensor(0.3))
    velocity = compute_velocity_target(x_0, noise)
    assert torch.allclose(compute_data(x_t, velocity, 0.3), x_0, atol=1e-5)
    assert torch.allclose(compute_velocity(x_t, x_0, 0.3), velocity, atol=1e-4)


def test_sampling_is_seeded_and_guided(tiny_model, case):
    flow = tiny_model.dit
    structure, (shape, tex, _), conds = case
    inputs = flow.prepare(structure, shape, tex, cond=conds, needs_null=True)
    total = len(structure)
    plain, guided = (
        SamplerOptions(num_steps=2),
        SamplerOptions(
            num_steps=2, guidance_strength=3.0, guidance_interval=(0.0, 1.0), guidance_rescale=0.5
        ),
    )
    first = sample_latents(flow, inputs, draw_noise(total, 8, 0), plain)
    assert torch.equal(first, sample_latents(flow, inputs, draw_noise(total, 8, 0), plain))
    assert not torch.equal(first, sample_latents(flow, inputs, draw_noise(total, 8, 1), plain))
    assert not torch.allclose(first, sample_latents(flow, inputs, draw_noise(total, 8, 0), guided))
    assert not first.requires_grad


def test_guidance_without_an_empty_condition_reports_it(tiny_model, case):
    flow = tiny_model.dit
    structure, (shape, tex, x_t), _ = case
    inputs = flow.prepare(structure, shape, tex)
    with pytest.raises(ValueError, match="needs_null"):
        sample_latents(flow, inputs, x_t, SamplerOptions(guidance_strength=2.0))


def test_one_step_is_one_euler_step_from_zero(tiny_model, case):
    flow = tiny_model.dit
    structure, (shape, tex, x_t), _ = case
    inputs = flow.prepare(structure, shape, tex, task=torch.full((3,), int(Task.INTERACTIVE)))
    euler = sample_latents(flow, inputs, torch.zeros_like(x_t), SamplerOptions(num_steps=1))
    assert torch.allclose(sample_in_one_step(flow, inputs), euler, atol=1e-6)


def test_rescaled_guidance_is_per_asset(tiny_model, case):
    flow = tiny_model.dit
    structure, (shape, tex, x_t), conds = case
    options = SamplerOptions(1, 1.0, 4.0, (0.0, 1.0), 0.7)
    inputs = flow.prepare(structure, shape, tex, cond=conds, needs_null=True)
    batched = sample_latents(flow, inputs, x_t, options).split(SIZES)
    one, (shape_1, tex_1, x_1), cond = alone(case, 2)
    single = flow.prepare(one, shape_1, tex_1, cond=[cond], needs_null=True)
    assert float((sample_latents(flow, single, x_1, options) - batched[2]).abs().max()) < 1e-5


@torch.no_grad()
def test_the_last_block_computes_kept_rows_only_and_keys_are_made_once(tiny_model, case):
    """Count rows where work is done: not only equal answers, less work."""
    flow = tiny_model.dit
    structure, (shape, tex, x_t), conds = case
    rows: dict[str, list[int]] = {}

    def counted(name):
        return lambda module, args, out: rows.setdefault(name, []).append(len(args[0]))

    blocks = flow.flow_model.blocks
    watched = {"first": blocks[0].mlp, "last": blocks[-1].mlp, "out": blocks[-1].self_attn.to_out}
    watched |= {"cross": blocks[-1].cross_attn.to_q, "output": flow.flow_model.out_layer}
    watched |= {"keys": blocks[0].cross_attn.to_kv}
    handles = [each.register_forward_hook(counted(name)) for name, each in watched.items()]
    clicks = stack_clicks(click_sets())
    inputs = flow.prepare(structure, shape, tex, cond=conds, clicks=clicks)
    sample_latents(flow, inputs, x_t, SamplerOptions(num_steps=3))
    for handle in handles:
        handle.remove()
    total = sum(SIZES)
    assert rows["first"] == [2 * total + len(clicks.labels)] * 3
    for name in ("last", "out", "cross", "output"):
        assert rows[name] == [total] * 3, name
    assert rows["keys"] == [sum(len(cond) for cond in conds)]


@torch.no_grad()
@pytest.mark.parametrize("num_clicks", [0, 1], ids=["full", "interactive"])
def test_released_heads_batch_right_too(case, num_clicks):
    """The official forms: no task embedding; one embedding for clicks; any number of clicks."""
    torch.manual_seed(0)
    flow = SegmentationFlow(SegmentationConfig(FLOW, num_clicks, False, None)).eval()
    for parameter in flow.parameters():
        if not bool(parameter.any()):
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    structure, (shape, tex, x_t), conds = case
    numbers = (1, 7, 10)
    cells = np.arange(30).reshape(10, 3) % 8
    clicks = (
        [make_click_tokens(cells[:n], np.ones(n, bool)) for n in numbers] if num_clicks else None
    )
    options = SamplerOptions(3, 3.0, 2.0, (0.0, 1.0), 0.3)
    joined = None if clicks is None else stack_clicks(clicks)
    inputs = flow.prepare(structure, shape, tex, cond=conds, clicks=joined, needs_null=True)
    together = torch.split(sample_latents(flow, inputs, x_t, options), list(SIZES))
    for asset in range(3):
        one, (shape_1, tex_1, x_1), cond = alone(case, asset)
        its = None if clicks is None else clicks[asset]
        single = flow.prepare(one, shape_1, tex_1, cond=[cond], clicks=its, needs_null=True)
        wanted = sample_latents(flow, single, x_1, options)
        assert float((wanted - together[asset]).abs().max()) < 1e-5, asset
