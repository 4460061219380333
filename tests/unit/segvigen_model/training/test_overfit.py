"""Training cannot rot: codec and flow learn three shapes from scratch, all the way to labels.

The way is that of a real run: shards, codec, flow, export, load, encode, masks, face labels. Steps
are counted, not seconds, so that a loaded machine changes nothing. About 45 s on one quiet core.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from segvigen_model.checkpoints.loading import load_model
from segvigen_model.config import TransferConfig
from segvigen_model.coords import grid_to_latent, mesh_to_unit
from segvigen_model.datasets import voxel_samples
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.evaluation.metrics import compute_mask_iou, compute_miou_matched
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks
from segvigen_model.model.bundle import build_model_from_config
from segvigen_model.model.inference import ClickSet, draw_masks
from segvigen_model.model.presets import PRESETS
from segvigen_model.segmenter import Segmenter
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.voxel_transfer import find_nearest_voxels, relate_faces_to_voxels
from segvigen_model.training.export import export_checkpoint
from segvigen_model.training.runs import Run
from segvigen_model.training.train_flow import FlowOptions, replace_flow, train_flow
from segvigen_model.training.train_vae import (
    Codec,
    CodecOptions,
    build_codec_model,
    measure_normalization,
    train_codec,
)

GRID = 16
CHANNELS = (16, 32, 64)
SHAPES = (("stack", 0), ("stool", 3), ("tree", 2))  # few large parts: cells are 1/4 of the object
NUM_CLICKS = 3
CODEC_STEPS, FLOW_STEPS = 200, 300
UNLIMITED_MIN = 600.0


@pytest.fixture
def one_thread():
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_config():
    preset = PRESETS["default"]
    halves = {
        name: replace(getattr(preset, name), channels=CHANNELS[:: 1 if "en" in name else -1])
        for name in ("shape_encoder", "tex_encoder", "shape_decoder", "tex_decoder")
    }
    return replace(preset, grid=GRID, **halves)


def own_masks(model, made, seed=1):
    """The network's masks (P, F) for seeded clicks on every true part, without any geometry."""
    encoding, surface = Segmenter(model).encode(made.mesh), measure_surface(made.mesh)
    relation = relate_faces_to_voxels(made.mesh, surface, encoding, TransferConfig())
    rng, sets = np.random.default_rng(seed), []
    for part in range(made.face_labels.max() + 1):
        clicks = draw_surface_clicks(surface, made.face_labels == part, NUM_CLICKS, rng)
        unit = mesh_to_unit(np.array([click.xyz for click in clicks]), encoding.frame)
        rows = find_nearest_voxels(unit, encoding.coords, encoding.grid)
        cells = grid_to_latent(encoding.coords[rows], encoding.factor)
        sets.append(ClickSet(cells, np.ones(NUM_CLICKS, bool)))
    return np.stack([relation.average_to_faces(mask) for mask in draw_masks(model, encoding, sets)])


def scores(model, made):
    """Mean IoU of the masks, and one-to-one mIoU of the exclusive labels made of them."""
    areas, masks = measure_surface(made.mesh).areas, own_masks(model, made)
    ious = [
        compute_mask_iou(mask > 0.5, made.face_labels == part, areas)
        for part, mask in enumerate(masks)
    ]
    return float(np.mean(ious)), compute_miou_matched(masks.argmax(0), made.face_labels, areas)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("one_thread")
def test_codec_and_flow_learn_three_shapes_up_to_their_labels(tmp_path):
    shapes = [make_asset(category, seed, textured=False) for category, seed in SHAPES]
    samples = [voxel_samples.voxelise(made.mesh, made.face_labels, GRID) for made in shapes]
    for split in ("train", "validation"):
        voxel_samples.save_shard(tmp_path / f"{split}-00000.npz", samples)
    (tmp_path / "data.json").write_text(json.dumps({"grid": GRID, "seed": 0, "parts": False}))

    config = small_config()
    start = build_model_from_config(config, seed=0)
    codec = Codec(start.shape_encoder, start.shape_decoder, start.tex_encoder, start.tex_decoder)
    options = CodecOptions(UNLIMITED_MIN, CODEC_STEPS, batch_size=3, rate=3e-3)
    learnt = train_codec(codec, Run(tmp_path / "codec"), tmp_path, options)
    assert learnt["mask_iou"] > 0.75, learnt

    norm = measure_normalization(codec, samples * 8, "cpu")
    model = replace_flow(
        build_codec_model(config, codec, norm, {}), width=96, depth=3, heads=4, seed=0
    )
    untrained = [scores(model, made)[0] for made in shapes]
    flow = FlowOptions(UNLIMITED_MIN, FLOW_STEPS, batch_size=6, rate=2e-3, report_every=60)
    train_flow(model, Run(tmp_path / "flow"), tmp_path, flow)

    export_checkpoint(tmp_path / "flow", tmp_path / "checkpoint", tmp_path)
    shipped = load_model(tmp_path / "checkpoint")
    (tmp_path / "flow" / "model").rename(tmp_path / "flow" / "bundle")  # its name in 0.1.0
    assert export_checkpoint(tmp_path / "flow", tmp_path / "again").sha256 == shipped.sha256
    assert shipped.card["flow"]["steps"] > 0
    found = {made.category: scores(shipped, made) for made in shapes}
    assert np.mean([mask for mask, _ in found.values()]) > 0.7, found
    assert np.mean([full for _, full in found.values()]) > 0.7, found
    assert np.mean(untrained) < 0.4, untrained
