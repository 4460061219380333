"""Stored review buffers: damage is refused before a click is located in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segvigen_model.types import Frame
from tasks.rendering.pixel_buffers import BadBuffers, Buffers, buffers_from_bytes, buffers_to_bytes


def make_buffers() -> Buffers:
    face = np.zeros((4, 4), np.int32)
    camera = np.array([[0, 0, 4, 0.6, *np.zeros(3), *np.eye(3).ravel()]])
    zeros = np.zeros((4, 4))
    parts = (zeros.astype(np.int8), zeros.astype(np.int16), zeros.astype(np.float32))
    return Buffers(face, *parts, camera, Frame(np.zeros(3), 1.0), {"views": ["front"]})


def with_camera(column: int, value: float) -> Buffers:
    buffers = make_buffers()
    cameras = buffers.cameras.copy()
    cameras[0, column] = value
    return replace(buffers, cameras=cameras)


def test_buffers_come_back() -> None:
    stored = buffers_to_bytes(make_buffers())
    assert buffers_to_bytes(buffers_from_bytes(stored)) == stored


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        (with_camera(2, 0.5), "no pixel"),
        (with_camera(3, 0.0), "sees nothing"),
        (with_camera(4, 1e300), "proportion"),
        (with_camera(4, np.nan), "not finite"),
        (replace(make_buffers(), frame=Frame(np.zeros(3), 0.0)), "proportion"),
        (replace(make_buffers(), view=np.ones((4, 4), np.int8)), "'view' of review buffers has"),
        (replace(make_buffers(), part=np.zeros((4, 3), np.int16)), "'part' of review buffers is"),
        (replace(make_buffers(), meta={"views": []}), "1 cameras without as many names"),
    ],
)
def test_damaged_buffers_are_refused(buffers: Buffers, message: str) -> None:
    with pytest.raises(BadBuffers, match=message):
        buffers_from_bytes(buffers_to_bytes(buffers))
