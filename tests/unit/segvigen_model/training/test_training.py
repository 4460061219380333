"""Training runs: resume equals no interruption in bookkeeping."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from segvigen_model.datasets import voxel_samples
from segvigen_model.model.bundle import build_model
from segvigen_model.training.runs import Average, Run, compute_warm_cosine, draw_curves
from segvigen_model.training.train_vae import Codec, CodecOptions, train_codec

GRID = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    for split in ("train", "validation"):
        voxel_samples.build_shards(out, grid=GRID, count=4, parts=None, seed=0, split=split)
    return out


@pytest.fixture
def codec():
    model = build_model("tiny")
    return Codec(model.shape_encoder, model.shape_decoder, model.tex_encoder, model.tex_decoder)


def test_run_state_round_trips(tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-2)
    average = Average(layer, 0.9)
    run = Run(tmp_path)
    for _ in range(3):
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        run.step += 1
        average.update(layer, run.step)
    run.report(loss=1.0)
    run.save(layer, optimizer, average)
    other = nn.Linear(3, 2)
    other_optimizer = torch.optim.AdamW(other.parameters(), 1e-2)
    other_average, other_run = Average(other, 0.9), Run(tmp_path)
    assert other_run.resume(other, other_optimizer, other_average)
    assert other_run.step == 3 and len(other_run.history) == 1
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(other_average.values["weight"], average.values["weight"])
    for a, b in ((layer, optimizer), (other, other_optimizer)):
        b.zero_grad()
        a(torch.ones(1, 3)).sum().backward()
        b.step()
    assert torch.equal(other.weight, layer.weight), "the optimiser's moments must come back"
    assert not Run(tmp_path / "empty").resume(other, other_optimizer, other_average)


def test_average_swaps_there_and_back():
    layer = nn.Linear(2, 2)
    average = Average(layer, 0.5)
    with torch.no_grad():
        layer.weight.add_(1.0)
    before = layer.weight.clone()
    average.swap(layer)
    assert not torch.equal(layer.weight, before)
    average.swap(layer)
    assert torch.equal(layer.weight, before)


def test_rate_warms_up_and_falls():
    rates = [compute_warm_cosine(step, 1000) for step in (0, 99, 500, 1000)]
    assert rates[0] < 0.02 and rates[1] == 1.0 and rates[1] > rates[2] > rates[3] > 0


def test_curves_are_drawn(tmp_path):
    draw_curves([{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 500


def test_codec_run_continues_where_it_stopped(folder, codec, tmp_path):
    options = CodecOptions(minutes=1, total_steps=4, batch_size=1)
    train_codec(codec, Run(tmp_path), folder, options, report_every=2)
    again = Run(tmp_path)
    train_codec(codec, again, folder, replace(options, total_steps=6), report_every=2)
    assert again.step == 6
    assert {"tex_loss", "shape_loss"} <= {k for row in again.history for k in row}
    assert (tmp_path / "curves.png").exists()
