"""The sampler's steps never wait for the device: no number is read back, nothing is copied over."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segvigen_model.slat_flow.conditioning import Task, make_click_tokens, stack_clicks
from segvigen_model.slat_flow.sampler import SamplerOptions, sample_latents

READS_BACK = {"_local_scalar_dense", "item", "nonzero", "unique_dim", "_unique2", "masked_select"}


class Recorder(TorchDispatchMode):
    """Collect the names of operators that make a GPU wait, from the second step on."""

    def __init__(self):
        super().__init__()
        self.waits = []
        self.is_on = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        copies = name == "_to_copy" and kwargs.get("device") is not None
        # index with a bool mask reads its count back; with int64 it does not
        masks = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if self.is_on and (name in READS_BACK or copies or masks or name == "lift_fresh"):
            self.waits.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize("strength, rescale", [(1.0, 0.0), (3.0, 0.0), (3.0, 0.7)])
def test_steps_wait_for_nothing(tiny_model, latent_structure, strength, rescale):
    flow, structure = tiny_model.dit, latent_structure(30, 20)
    options = SamplerOptions(4, 3.0, strength, (0.0, 1.0), rescale)
    cells = structure.coords[:3, 1:].numpy()
    clicks = stack_clicks([make_click_tokens(cells, cells[:, 0] >= 0)] * 2)
    slat = torch.randn(50, 8)
    inputs = flow.prepare(
        structure,
        slat,
        slat,
        cond=torch.randn(2, 5, 24),
        clicks=clicks,
        task=torch.full((2,), int(Task.INTERACTIVE)),
        needs_null=options.needs_null,
    )
    recorder = Recorder()

    def start(step, x):
        recorder.is_on = True

    with recorder:
        sample_latents(flow, inputs, torch.randn(50, 8), options, on_step=start)
    assert recorder.waits == []


def test_the_recorder_notices_a_wait():
    recorder = Recorder()
    recorder.is_on = True
    with recorder:
        _ = torch.ones(3).sum().item()
        _ = torch.tensor(2.0)
    assert "_local_scalar_dense" in recorder.waits
    assert "lift_fresh" in recorder.waits
