"""What ingest learns of a mesh from the confined process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from segvigen_model.mesh.canonical import mesh_from_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from tasks.ingest.sandbox import ParsedMesh, ParserBudget, get_shared_parser, summarize_mesh


def parse(data: bytes, suffix: str) -> ParsedMesh:
    return get_shared_parser().parse_mesh(data, suffix, {}, MeshLimits(), ParserBudget())


def test_facts_are_those_of_the_mesh(make_boxes: Callable[..., bytes]) -> None:
    for count in (1, 3):
        parsed = parse(make_boxes(count), "glb")
        assert parsed.facts == summarize_mesh(mesh_from_bytes(make_boxes(count), "glb"))
        assert parsed.facts == summarize_mesh(mesh_from_canonical(parsed.canonical))
    facts = parsed.facts
    assert (facts["num_faces"], facts["num_components"]) == (36, 3)
    assert facts["surface_area"] == pytest.approx(18) and np.shape(facts["bounds"]) == (2, 3)


def test_bounds_are_of_what_faces_have() -> None:
    box = trimesh.creation.box().export(file_type="off")
    text = box.replace("OFF\n8 ", "OFF\n9 ")
    head, points, faces = text.split("\n")[:2], text.split("\n")[2:10], text.split("\n")[10:]
    facts = parse("\n".join([*head, *points, "1e5 0 0", *faces]).encode(), "off").facts
    assert (facts["num_vertices"], facts["num_components"]) == (9, 1)
    assert facts["bounds"] == [[-0.5] * 3, [0.5] * 3]
