"""Training the network that chooses masks: the same questions for a seed, and it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.mask_choice import load_choice_network
from segvigen_model.mask_measures import NUM_MEASURES
from segvigen_model.patch_network import WEIGHTS_FILE
from segvigen_model.training import choice_fit, patch_data
from segvigen_model.training.choice_fit import (
    Asked,
    ask_file,
    ask_object,
    compare,
    fit,
    padded,
)
from segvigen_model.training.patch_data import read_file

FEW = (40, 60)  # patches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("patches")
    for split in ("train", "validation"):
        patch_data.make_file(out / f"{split}-00000.npz", range(4), 0, None, split, FEW)
    return out


def test_the_same_seed_asks_the_same_questions(folder):
    path = folder / "train-00000.npz"
    first, second = (ask_file(WEIGHTS_FILE, path, 7) for _ in range(2))
    other = ask_file(WEIGHTS_FILE, path, 8)
    assert len(first) == len(second) >= 20
    for left, right in zip(first, second, strict=True):
        assert (left.count, left.is_corrected) == (right.count, right.is_corrected)
        assert (left.measures == right.measures).all()
        assert (left.iou == right.iou).all() and (left.iou >= 0).all() and (left.iou <= 1).all()
    assert {each.count for each in first} == set(choice_fit.CLICK_COUNTS)
    assert {each.is_corrected for each in first} == {False, True}
    assert any(len(a.iou) != len(b.iou) for a, b in zip(first, other, strict=False))


def planted(number: int) -> list[Asked]:
    """Questions whose best mask is the one with the lowest third measure; never the first."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        measures = rng.normal(size=(rng.integers(3, 9), NUM_MEASURES)).astype(np.float32)
        measures[0, 2] = 3.0
        iou = 1 / (1 + np.exp(2 * measures[:, 2]))
        found.append(
            Asked(
                *(int(rng.choice([1, 5])), bool(rng.random() < 0.5), True),
                *(measures, iou.astype(np.float32)),
            )
        )
    return found


def test_what_makes_masks_good_is_learned():
    asked = planted(400)
    network = fit(asked, epochs=24, seed=0)
    for _, (plain, chosen, best) in compare(network, asked):
        assert plain < 0.1 < chosen and chosen > best - 0.02


def test_only_what_the_product_would_choose_is_asked(folder):
    """Halves as parts: of one piece, and of four, two of which must be clicked."""
    (example, *_) = read_file(folder / "train-00000.npz")
    count = example.facts.count
    halves = np.arange(count) < count // 2
    quarters = np.arange(count) * 4 // count
    areas = np.full(count, 1 / count, np.float32)
    shares = np.stack([halves, ~halves], axis=1).astype(np.uint8) * 255
    asked = []
    for pieces in (halves * 0, quarters):
        facts = replace(example.facts, levels=np.tile(pieces, (9, 1)), areas=areas)
        known = replace(example, facts=facts, shares=shares)
        asked.append(ask_object(WEIGHTS_FILE, known, np.random.default_rng(0)))
    drawn = [[each.count for each in rows if not each.is_corrected] for rows in asked]
    assert drawn[0].count(1) >= 2 and drawn[0].count(10) == 2
    assert 1 not in drawn[1] and drawn[1].count(10) >= 1  # of an odd count, one half is under .5


def test_padding_is_never_chosen():
    asked = planted(20)
    measures, iou = padded(asked)
    network = fit(asked, epochs=1, seed=0)
    scores = choice_fit._scores(network, measures, iou)
    assert (iou.gather(1, scores.argmax(dim=1, keepdim=True)) >= 0).all()


def test_the_command_writes_weights_that_load_and_says_what_they_do(folder, tmp_path, caplog):
    out = tmp_path / "new" / "choice.safetensors"
    pair = [str(WEIGHTS_FILE), str(folder)]
    arguments = ["--ask", *pair, "--check", *pair, "--out", str(out), "--epochs", "2"]
    with caplog.at_level("INFO"):
        choice_fit.main([*arguments, "--workers", "1"])
    assert load_choice_network.__wrapped__(out).mean.any()
    assert "questions=" in caplog.text and "clicks=drawn 10 plain=" in caplog.text
