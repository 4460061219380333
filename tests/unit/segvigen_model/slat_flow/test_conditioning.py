"""Click slots and the view encoder."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.slat_flow.conditioning import (
    NUM_CLICK_SLOTS,
    ViewConfig,
    ViewEncoder,
    make_click_tokens,
    make_empty_clicks,
    stack_clicks,
)

CLICKS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(CLICKS)
def test_the_latest_clicks_are_never_dropped(clicks):
    cells = np.array([c[:3] for c in clicks], dtype=np.int32).reshape(-1, 3)
    tokens = make_click_tokens(cells, np.array([c[3] for c in clicks], dtype=bool))
    wanted: list[tuple[int, ...]] = []
    for x, y, z, positive in reversed(clicks):
        row = (x, y, z, 1 if positive else -1)
        if row not in wanted:
            wanted.append(row)
    rows = torch.cat([tokens.coords, tokens.labels[:, None]], dim=1).tolist()
    kept = [tuple(row) for row in rows if row[3]]
    assert sorted(kept) == sorted(wanted[:NUM_CLICK_SLOTS])
    assert tokens.counts == (NUM_CLICK_SLOTS,)
    assert rows[len(kept) :] == [[0, 0, 0, 0]] * (NUM_CLICK_SLOTS - len(kept))


def test_clicks_stack_with_assets_that_have_none():
    one = make_click_tokens(np.array([[1, 2, 3]]), np.array([True]))
    both = stack_clicks([make_empty_clicks(), one])
    assert both.counts == (0, NUM_CLICK_SLOTS)
    assert both.coords[0].tolist() == [1, 2, 3]


def test_view_tokens_see_their_own_patch():
    torch.manual_seed(0)
    encoder = ViewEncoder(ViewConfig(image_size=32, patch_size=8), 24)
    image = torch.rand(1, 3, 32, 32)
    other = image.clone()
    other[:, :, 8:16, 24:32] = 0
    moved = (encoder(image) - encoder(other)).abs().amax(dim=2)[0] > 1e-6
    assert moved.nonzero().tolist() == [[7]]  # row 1, column 3 of four


def test_views_of_other_sizes_are_resized():
    encoder = ViewEncoder(ViewConfig(image_size=32, patch_size=8), 24)
    image = torch.rand(1, 3, 32, 32)
    doubled = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.allclose(encoder(image), encoder(doubled), atol=1e-5)
