"""Voxel sets: neighbours, folding and unfolding."""

from __future__ import annotations

import pytest
import torch

from segvigen_model.sparse import structure as module
from segvigen_model.sparse.structure import Structure, fold_levels, list_kernel_offsets
from segvigen_model.sparse.tensor import SparseTensor


def brute_neighbours(coords):
    rows = {tuple(row): index for index, row in enumerate(coords.tolist())}
    offsets = list_kernel_offsets().tolist()
    return torch.tensor(
        [
            [rows.get((b, x + i, y + j, z + k), len(rows)) for i, j, k in offsets]
            for b, x, y, z in coords.tolist()
        ],
        dtype=torch.int32,
    )


@pytest.mark.parametrize("find", [module._find_neighbours, module._find_neighbours_by_search])
def test_neighbours_equal_a_plain_search(make_structure, find):
    coords = make_structure().coords
    assert torch.equal(find(coords), brute_neighbours(coords))


def test_neighbours_stay_within_their_asset_and_row_of_the_grid():
    coords = torch.tensor([[0, 0, 0, 4095], [0, 0, 1, 0], [1, 0, 0, 4095]], dtype=torch.int32)
    for find in (module._find_neighbours, module._find_neighbours_by_search):
        found = find(coords)
        assert (found < 3).sum() == 3, find.__name__  # every voxel sees itself only


def test_no_voxels_have_no_neighbours():
    empty = Structure(torch.zeros(0, 4, dtype=torch.int32), batch_size=1)
    assert empty.neighbours.shape == (0, 27)
    assert empty.lengths == (0,)


def test_folding_gives_sorted_unique_cells(make_structure):
    fine = make_structure()
    coarse = fine.fold()
    cells = fine.coords.clone()
    cells[:, 1:] //= 2
    assert torch.equal(coarse.coords, torch.unique(cells, dim=0))
    assert fine.fold() is coarse


def test_folding_and_unfolding_return_the_same_rows(make_structure):
    fine = make_structure()
    feats = torch.arange(len(fine) * 3, dtype=torch.float32).view(-1, 3)
    back = SparseTensor(feats, fine).fold().unfold()
    assert back.structure is fine
    assert torch.equal(back.feats, feats)


def test_slots_count_x_fastest():
    fine = Structure(torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.int32))
    folded = SparseTensor(torch.tensor([[1.0], [2.0]]), fine).fold()
    assert folded.feats.tolist() == [[0, 1, 0, 0, 0, 0, 2, 0]]


def test_unfolding_a_subdivision_makes_its_children(make_structure):
    coarse = make_structure().fold()
    again = coarse.without_fine().unfold(coarse.subdivision)
    wanted = {tuple(row) for row in coarse.fine.coords.tolist()}
    assert {tuple(row) for row in again.fine.coords.tolist()} == wanted
    assert torch.equal(again.subdivision, coarse.subdivision)


def test_pyramid_leads_back_to_its_voxels(make_structure):
    fine = make_structure()
    top = fold_levels(fine.coords, 2)
    assert torch.equal(top.fine.fine.coords, fine.coords)


def test_a_free_tensor_cannot_be_unfolded(make_structure):
    structure = make_structure()
    with pytest.raises(ValueError, match="subdivide it first"):
        SparseTensor(torch.zeros(len(structure), 8), structure).unfold()
    with pytest.raises(ValueError, match="not folded"):
        _ = structure.fine_rows
