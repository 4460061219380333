"""Training the network that chooses masks: the same questions for a seed, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import SegmenterConfig
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.interactive.crops import MultiScaleCrops
from segvigen_model.interactive.mask_features import NUM_MASK_FEATURES
from segvigen_model.interactive.mask_selector import load_mask_selector
from segvigen_model.interactive.patch_network import WEIGHTS_FILE
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import build_segment_tree
from segvigen_model.training import train_mask_selector
from segvigen_model.training.train_mask_selector import (
    MaskSample,
    SampleSource,
    compare_choices,
    compute_iou_on_faces,
    fit_selector,
    load_samples,
    pad_samples,
    sample_mesh,
    sample_object,
    save_samples,
)

MADE = SampleSource(WEIGHTS_FILE, None, 10)
CONFIG = SegmenterConfig()


@pytest.fixture(scope="module")
def shell():
    made = make_asset("chair", 2)
    return fuse_mesh(made.mesh, made.face_labels, grid=48)


@pytest.fixture(scope="module")
def samples(shell):
    return sample_mesh(WEIGHTS_FILE, *shell, np.random.default_rng(0), CONFIG)


def test_the_same_seed_draws_the_same_questions(shell, samples):
    again = sample_mesh(WEIGHTS_FILE, *shell, np.random.default_rng(0), CONFIG)
    assert len(again) == len(samples) >= 8
    for left, right in zip(samples, again, strict=True):
        assert (left.count, left.is_corrected) == (right.count, right.is_corrected)
        assert (left.features == right.features).all() and (left.iou == right.iou).all()
        assert left.features.shape == (len(left.iou), NUM_MASK_FEATURES)
        assert (left.iou >= 0).all() and (left.iou <= 1).all()
    assert {each.is_corrected for each in samples} == {False, True}
    assert {each.count for each in samples} <= set(train_mask_selector.CLICK_COUNTS)
    other = sample_mesh(WEIGHTS_FILE, *shell, np.random.default_rng(1), CONFIG)
    assert any(len(a.iou) != len(b.iou) for a, b in zip(samples, other, strict=False))


def test_masks_of_closer_crops_are_sampled_too(samples):
    """By the measure that is the logarithm of a crop's share."""
    shares = np.exp(np.concatenate([each.features[:, -4] for each in samples]))
    all_samples = {round(float(share), 1) for share in shares}
    assert 1.0 in all_samples and len(all_samples) >= 2
    for each in samples:
        assert each.features[0, -4] == 0.0  # the whole's plain mask comes first


def test_iou_is_of_the_whole_surface(shell):
    """A crop's mask of all its patches, against a part that is partly outside."""
    mesh, _ = shell
    surface = measure_surface(mesh)
    tree = build_segment_tree(surface, CONFIG.regions)
    for crop in MultiScaleCrops.build(surface, tree, CONFIG).select(np.array([0])):
        part = surface.centers[:, 1] > np.median(surface.centers[:, 1])
        rng = np.random.default_rng(0)
        masks = rng.random((3, crop.superfaces.count)) < 0.5
        for mask, iou in zip(
            masks, compute_iou_on_faces(crop, masks, part, surface.areas), strict=True
        ):
            shown = np.zeros(len(part), bool)
            shown[crop.faces] = mask[crop.superfaces.of_face]
            expected = surface.areas[shown & part].sum() / surface.areas[shown | part].sum()
            assert iou == pytest.approx(expected)


def make_planted(number: int) -> list[MaskSample]:
    """Questions whose best mask is the one with the lowest third measure; never the first."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        features = rng.normal(size=(rng.integers(3, 9), NUM_MASK_FEATURES)).astype(np.float32)
        features[0, 2] = 3.0
        iou = 1 / (1 + np.exp(2 * features[:, 2]))
        kind = int(rng.choice([1, 5])), bool(rng.random() < 0.5)
        found.append(MaskSample(*kind, features, iou.astype(np.float32)))
    return found


def test_what_makes_masks_good_is_learned():
    samples = make_planted(400)
    network = fit_selector(samples, epochs=24, seed=0)
    for _, (plain, chosen, best) in compare_choices(network, samples):
        assert plain < 0.1 < chosen and chosen > best - 0.02


def test_only_what_the_product_would_choose_is_sampled():
    """Of an object whose largest connected component is under a half of it, one click asks
    nothing."""
    made = make_asset("lamp", 2)
    surface = measure_surface(made.mesh)
    pieces = np.bincount(surface.components, surface.areas) / surface.areas.sum()
    assert pieces.max() < CONFIG.selection.min_clicked_share
    rng = np.random.default_rng(0)
    samples = sample_mesh(WEIGHTS_FILE, made.mesh, made.face_labels, rng, CONFIG)
    assert not any(each.count == 1 for each in samples)


def test_padding_is_never_chosen():
    samples = make_planted(20)
    features, iou = pad_samples(samples)
    network = fit_selector(samples, epochs=1, seed=0)
    scores = train_mask_selector._score_masks(network, features, iou)
    assert (iou.gather(1, scores.argmax(dim=1, keepdim=True)) >= 0).all()


def test_questions_are_kept_as_they_were(samples, tmp_path):
    save_samples(tmp_path / "kept.npz", samples)
    for left, right in zip(samples, load_samples(tmp_path / "kept.npz"), strict=True):
        assert (left.count, left.is_corrected) == (right.count, right.is_corrected)
        assert (left.features == right.features).all() and (left.iou == right.iou).all()


def test_questions_of_version_0_1_are_read(samples, tmp_path):
    save_samples(tmp_path / "kept.npz", samples)
    with np.load(tmp_path / "kept.npz") as stored:
        arrays = {"measures" if k == "features" else k: stored[k] for k in stored.files}
    np.savez(tmp_path / "old.npz", **arrays)
    loaded = load_samples(tmp_path / "old.npz")
    for left, right in zip(samples, loaded, strict=True):
        assert (left.features == right.features).all()


def test_an_object_that_cannot_be_used_gives_no_sample(monkeypatch, caplog):
    def refuse(*_):
        raise train_mask_selector.SegvigenError("no such object")

    monkeypatch.setattr(train_mask_selector, "load_labelled_object", refuse)
    assert sample_object(MADE, 3, 0) == []
    assert "object=3 refused=no such object" in caplog.text


def test_the_command_writes_weights_that_load_and_reports_what_they_do(samples, tmp_path, caplog):
    out = tmp_path / "new" / "mask_selector.safetensors"
    save_samples(tmp_path / "kept.npz", samples)
    made = [str(WEIGHTS_FILE), "made", "2"]
    one = [*made[:2], "1"]
    sources = ["--source", *one, "--ask", *one]  # the latter is the name of version 0.1.0
    arguments = [*sources, "--samples", str(tmp_path / "kept.npz"), "--out", str(out)]
    with caplog.at_level("INFO"):
        train_mask_selector.main([*arguments, "--check", *made, "--epochs", "2", "--workers", "1"])
    assert load_mask_selector.__wrapped__(out).mean.any()
    assert "questions=" in caplog.text and " plain=" in caplog.text
    kept = load_samples(out.with_suffix(".samples.npz"))
    assert f"questions={len(kept) + len(samples)} " in caplog.text


def test_the_option_of_version_0_1_for_kept_questions_is_taken(samples, tmp_path):
    save_samples(tmp_path / "kept.npz", samples)
    out = tmp_path / "mask_selector.safetensors"
    kept = ["--asked", str(tmp_path / "kept.npz")]
    train_mask_selector.main([*kept, "--out", str(out), "--epochs", "1"])
    assert load_mask_selector.__wrapped__(out).mean.any()


def test_the_command_needs_questions(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_mask_selector.main(["--out", str(tmp_path / "mask_selector.safetensors")])
    assert "no questions; give --source or --samples" in capsys.readouterr().err
