"""Training the network that chooses masks: the same questions for a seed, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import SegmenterConfig
from segvigen_model.datasets.fuse import fused_skin
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.interactive.crops import Looks
from segvigen_model.interactive.mask_features import NUM_MEASURES
from segvigen_model.interactive.mask_selector import load_choice_network
from segvigen_model.interactive.patch_network import WEIGHTS_FILE
from segvigen_model.surface.geometry import surface_of
from segvigen_model.surface.region_merging import segment_tree
from segvigen_model.training import train_mask_selector
from segvigen_model.training.train_mask_selector import (
    Ask,
    Asked,
    ask_mesh,
    ask_object,
    compare,
    fit,
    iou_on_faces,
    load_asked,
    padded,
    save_asked,
)

MADE = Ask(WEIGHTS_FILE, None, 10)
CONFIG = SegmenterConfig()


@pytest.fixture(scope="module")
def skin():
    made = make_asset("chair", 2)
    return fused_skin(made.mesh, made.face_labels, grid=48)


@pytest.fixture(scope="module")
def asked(skin):
    return ask_mesh(WEIGHTS_FILE, *skin, np.random.default_rng(0), CONFIG)


def test_the_same_seed_asks_the_same_questions(skin, asked):
    again = ask_mesh(WEIGHTS_FILE, *skin, np.random.default_rng(0), CONFIG)
    assert len(again) == len(asked) >= 8
    for left, right in zip(asked, again, strict=True):
        assert (left.count, left.is_corrected) == (right.count, right.is_corrected)
        assert (left.measures == right.measures).all() and (left.iou == right.iou).all()
        assert left.measures.shape == (len(left.iou), NUM_MEASURES)
        assert (left.iou >= 0).all() and (left.iou <= 1).all()
    assert {each.is_corrected for each in asked} == {False, True}
    assert {each.count for each in asked} <= set(train_mask_selector.CLICK_COUNTS)
    other = ask_mesh(WEIGHTS_FILE, *skin, np.random.default_rng(1), CONFIG)
    assert any(len(a.iou) != len(b.iou) for a, b in zip(asked, other, strict=False))


def test_masks_of_closer_looks_are_asked_about_too(asked):
    """By the measure that is the logarithm of a look's share."""
    shares = np.exp(np.concatenate([each.measures[:, -4] for each in asked]))
    told = {round(float(share), 1) for share in shares}
    assert 1.0 in told and len(told) >= 2
    for each in asked:
        assert each.measures[0, -4] == 0.0  # the whole's plain mask comes first


def test_iou_is_of_the_whole_surface(skin):
    """A look's mask of all its patches, against a part that is partly outside."""
    mesh, _ = skin
    surface = surface_of(mesh)
    tree = segment_tree(surface, CONFIG.regions)
    for look in Looks.of(surface, tree, CONFIG).at(np.array([0])):
        part = surface.centers[:, 1] > np.median(surface.centers[:, 1])
        rng = np.random.default_rng(0)
        masks = rng.random((3, look.atoms.count)) < 0.5
        for mask, iou in zip(masks, iou_on_faces(look, masks, part, surface.areas), strict=True):
            shown = np.zeros(len(part), bool)
            shown[look.faces] = mask[look.atoms.of_face]
            expected = surface.areas[shown & part].sum() / surface.areas[shown | part].sum()
            assert iou == pytest.approx(expected)


def planted(number: int) -> list[Asked]:
    """Questions whose best mask is the one with the lowest third measure; never the first."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        measures = rng.normal(size=(rng.integers(3, 9), NUM_MEASURES)).astype(np.float32)
        measures[0, 2] = 3.0
        iou = 1 / (1 + np.exp(2 * measures[:, 2]))
        kind = int(rng.choice([1, 5])), bool(rng.random() < 0.5)
        found.append(Asked(*kind, measures, iou.astype(np.float32)))
    return found


def test_what_makes_masks_good_is_learned():
    asked = planted(400)
    network = fit(asked, epochs=24, seed=0)
    for _, (plain, chosen, best) in compare(network, asked):
        assert plain < 0.1 < chosen and chosen > best - 0.02


def test_only_what_the_product_would_choose_is_asked():
    """Of an object whose largest loose piece is under a half of it, one click asks nothing."""
    made = make_asset("lamp", 2)
    surface = surface_of(made.mesh)
    pieces = np.bincount(surface.components, surface.areas) / surface.areas.sum()
    assert pieces.max() < CONFIG.selection.min_clicked_share
    rng = np.random.default_rng(0)
    asked = ask_mesh(WEIGHTS_FILE, made.mesh, made.face_labels, rng, CONFIG)
    assert not any(each.count == 1 for each in asked)


def test_padding_is_never_chosen():
    asked = planted(20)
    measures, iou = padded(asked)
    network = fit(asked, epochs=1, seed=0)
    scores = train_mask_selector._scores(network, measures, iou)
    assert (iou.gather(1, scores.argmax(dim=1, keepdim=True)) >= 0).all()


def test_questions_are_kept_as_they_were(asked, tmp_path):
    save_asked(tmp_path / "asked.npz", asked)
    for left, right in zip(asked, load_asked(tmp_path / "asked.npz"), strict=True):
        assert (left.count, left.is_corrected) == (right.count, right.is_corrected)
        assert (left.measures == right.measures).all() and (left.iou == right.iou).all()


def test_an_object_that_cannot_be_used_asks_nothing(monkeypatch, caplog):
    def refuse(*_):
        raise train_mask_selector.SegvigenError("no such object")

    monkeypatch.setattr(train_mask_selector, "labelled_object", refuse)
    assert ask_object(MADE, 3, 0) == []
    assert "object=3 refused=no such object" in caplog.text


def test_the_command_writes_weights_that_load_and_says_what_they_do(asked, tmp_path, caplog):
    out = tmp_path / "new" / "choice.safetensors"
    save_asked(tmp_path / "asked.npz", asked)
    made = [str(WEIGHTS_FILE), "made", "2"]
    arguments = ["--ask", *made, "--asked", str(tmp_path / "asked.npz"), "--out", str(out)]
    with caplog.at_level("INFO"):
        train_mask_selector.main([*arguments, "--check", *made, "--epochs", "2", "--workers", "1"])
    assert load_choice_network.__wrapped__(out).mean.any()
    assert "questions=" in caplog.text and " plain=" in caplog.text
    kept = load_asked(out.with_suffix(".asked.npz"))
    assert f"questions={len(kept) + len(asked)} " in caplog.text


def test_the_command_needs_questions(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_mask_selector.main(["--out", str(tmp_path / "choice.safetensors")])
    assert "no questions; give --ask or --asked" in capsys.readouterr().err
