"""Mutants of every format: what a file announces is read, or the file is refused.

SEGVIGEN_FUZZ_MUTANTS sets how many; `python -m tests.fuzz` runs many and prints a table.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.io import mesh_from_bytes
from tests.fuzz.known import make_known
from tests.fuzz.mutants import FORMATS, Mutant, judge, make_mutant, run_mutant

NUM_MUTANTS = int(os.environ.get("SEGVIGEN_FUZZ_MUTANTS", "600"))


def skip_without_decoder(name):
    if name == "draco" and importlib.util.find_spec("DracoPy") is None:
        pytest.skip("needs the extra `formats`")


@pytest.mark.parametrize("name", FORMATS)
def test_every_mutant_is_read_as_announced_or_refused(name):
    skip_without_decoder(name)
    outcomes = [run_mutant(name, number) for number in range(NUM_MUTANTS // len(FORMATS))]
    faults = [f"{name}:{n} {outcome}" for n, outcome in enumerate(outcomes) if outcome.fault]
    assert not faults, "\n".join(faults[:5])
    # The fuzzer itself works only if all three meanings occur, with their ends.
    ends = {(outcome.meaning, outcome.result == "read") for outcome in outcomes}
    assert {("same", True), ("losing", False), ("damage", False)} <= ends


def test_a_mutant_is_the_same_every_time():
    for name in ("ply", "gltf", "zip"):
        assert make_mutant(name, 7).data == make_mutant(name, 7).data
        assert make_mutant(name, 7).data != make_mutant(name, 8).data


@pytest.mark.parametrize("meaning", ["same", "losing", "damage"])
def test_the_judge_sees_a_mesh_that_is_smaller(meaning):
    """Nothing in the file tells that its last face is gone, but the judge knows."""
    known = make_known(np.random.default_rng(3), is_triangles=True)
    points = "".join(f"{x} {y} {z}\n" for x, y, z in known.points.tolist())
    faces = "".join(f"3 {a} {b} {c}\n" for a, b, c in known.polygons[:-1])
    text = f"OFF\n{len(known.points)} {len(known.polygons) - 1} 0\n{points}{faces}".encode()
    mutant = Mutant(text, "off", known, frozenset({"order"}), 1.0, (), meaning)
    assert bool(judge(mutant).fault) == (meaning != "damage")


# Finds of the fuzzer, as small as they go.
SHIFTED = b"""ply
format ascii 1.0
element vertex 4
property float y
property float z
property list uchar short marks
property float x
element face 2
property list uchar int vertex_indices
end_header
1 1 2 1 1 2
3 2 2 1 1 3
0 1 2 1 1
3 1 2 1 1 1
3 0 1 2
3 0 1 3
"""


def test_a_number_lost_in_a_row_shifts_nothing():
    """All later numbers found a place, because lists of their own took the rest."""
    with pytest.raises(AssetRejected) as caught:
        mesh_from_bytes(SHIFTED, "ply")
    assert caught.value.reason == "unreadable"
