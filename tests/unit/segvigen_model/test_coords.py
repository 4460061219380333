from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.coords import (
    UNIT_EXTENT,
    fit_frame,
    grid_to_latent,
    grid_to_unit,
    mesh_to_unit,
    unit_to_grid,
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(1e-6, 1e6), shift=st.floats(-1e3, 1e3))
def test_fit_frame_fills_the_unit_cube_and_comes_back(seed, size, shift):
    points = np.random.default_rng(seed).normal(size=(30, 3)) * size + shift * size
    frame = fit_frame(points)
    unit = mesh_to_unit(points, frame)
    assert np.ptp(unit, axis=0).max() == pytest.approx(UNIT_EXTENT, rel=1e-6)
    assert np.abs(unit).max() < 0.5
    np.testing.assert_allclose(
        unit / frame.scale + frame.center, points, rtol=1e-9, atol=1e-9 * size
    )


def test_fit_frame_of_one_point_and_of_huge_points():
    assert fit_frame(np.array([[1.0, 2.0, 3.0]])).scale == 1.0
    frame = fit_frame(np.array([[1.5e308, 0, 0], [1.7e308, 0, 0]]))
    assert np.isfinite(frame.center).all()


@pytest.mark.parametrize("grid", [1, 5, 64])
def test_grid_centres_fall_into_their_own_voxel(grid):
    coords = np.stack(np.meshgrid(*[np.arange(min(grid, 9))] * 3, indexing="ij"), -1).reshape(-1, 3)
    assert (unit_to_grid(grid_to_unit(coords, grid), grid) == coords).all()


def test_unit_to_grid_clips_and_latent_divides():
    assert unit_to_grid(np.array([[-9.0, 0.5, 0.499]]), 64).tolist() == [[0, 63, 63]]
    assert grid_to_latent(np.array([[0, 15, 16]]), 16).tolist() == [[0, 0, 1]]
