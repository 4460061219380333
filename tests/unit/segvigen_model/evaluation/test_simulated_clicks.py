"""Simulated annotators click where they should."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.datasets.procedural import make_asset
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks, find_error_click
from segvigen_model.surface.geometry import measure_surface


@pytest.fixture(scope="module")
def chair():
    made = make_asset("chair", 2)
    return measure_surface(made.mesh), made.face_labels


def test_positive_clicks_lie_on_the_part_and_repeat_by_seed(chair):
    surface, labels = chair
    for part in range(labels.max() + 1):
        clicks = draw_surface_clicks(surface, labels == part, 10, np.random.default_rng(4))
        again = draw_surface_clicks(surface, labels == part, 10, np.random.default_rng(4))
        for click, same in zip(clicks, again, strict=True):
            assert labels[click.face] == part
            assert click.face == same.face and np.array_equal(click.xyz, same.xyz)
            corners = surface.triangles[click.face]
            weights = np.linalg.lstsq(
                np.vstack([corners.T, np.ones(3)]), np.append(click.xyz, 1), rcond=None
            )[0]
            assert (weights > -1e-6).all() and abs(weights.sum() - 1) < 1e-6


def test_larger_faces_are_clicked_more(chair):
    surface, labels = chair
    mask = np.ones(len(labels), bool)
    clicks = draw_surface_clicks(surface, mask, 500, np.random.default_rng(0))
    clicked = surface.areas[[c.face for c in clicks]].mean()
    assert clicked > surface.areas.mean()


def test_a_part_without_area_is_refused(chair):
    surface, labels = chair
    with pytest.raises(ValueError, match="area"):
        draw_surface_clicks(surface, np.zeros(len(labels), bool), 1, np.random.default_rng(0))


def test_error_click_corrects_the_largest_error_with_its_sign(chair):
    surface, labels = chair
    truth = labels == 0
    missing = find_error_click(surface, np.zeros(len(labels), bool), truth)
    assert missing is not None and missing.is_positive and truth[missing.face]
    too_much = find_error_click(surface, np.ones(len(labels), bool), truth)
    assert too_much is not None and not too_much.is_positive and not truth[too_much.face]
    assert find_error_click(surface, truth, truth) is None
