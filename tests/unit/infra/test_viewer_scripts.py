"""The viewer's pure functions, run by Node as they are, against Python's own."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from infra.viewer.build import SOURCE, find_node
from segvigen_model.datasets.procedural import make_asset
from tasks.labelling.edit_commands import parse_commands
from tasks.live.preview import encode_face_runs
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.viewer_html import _describe_tiles

RUN = """
const { name, from, calls } = JSON.parse(require("fs").readFileSync(0, "utf8"));
import(from).then((module) =>
  console.log(JSON.stringify(calls.map((call) => module[name](...call)))));
"""


def call_script(file, name, *calls):
    """What one exported function gives for each list of arguments."""
    work = {"name": name, "from": str(SOURCE / "src" / file), "calls": calls}
    done = subprocess.run(
        [find_node().node, "-e", RUN], input=json.dumps(work), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "line", ["merge 3 1 4", "Merge part 3, part 1 + 4", "MERGE: 3, 1 and 4", "merge #3 & 1, 4"]
)
def test_merges_are_shown_as_the_pull_understands_them(line):
    ((command,), problems) = parse_commands([line], 6)
    assert command.parts == (3, 1, 4) and not problems
    assert call_script("commands.js", "mergedInto", [[line], 6]) == [[0, 3, 2, 3, 3, 5]]


def test_merges_add_up_and_impossible_ones_are_not_shown():
    lines = ["merge 1 2", "merge 0 1\nsplit 4", "merge 3 9", "merge 3", "merge three four"]
    assert call_script("commands.js", "mergedInto", [lines, 5]) == [[0, 0, 0, 3, 4]]


def test_names_and_categories_are_read_back():
    lines = ["name 0 left  arm", "Name part 1: lid", "category 1 cup/lid", "name 7 gone", "name 2"]
    (message,) = call_script("commands.js", "namesOf", [lines, 3])
    assert message == [{"name": "left  arm"}, {"name": "lid", "category": "cup/lid"}, {}]


def test_what_the_viewer_writes_the_pull_understands():
    lines = [
        *call_script("commands.js", "mergeLine", [[4, 2]]),
        *call_script("commands.js", "splitLine", [3, 0], [1, 5]),
        *call_script("commands.js", "nameLine", [0, "  left \n arm "]),
    ]
    commands, problems = parse_commands(lines, 5)
    assert [command.line for command in commands] == lines and not problems
    assert lines == ["merge 4 2", "split 3", "split 1 into 5", "name 0 left arm"]


def test_runs_of_faces_come_back_and_nonsense_stays_inside_the_mesh():
    faces = np.flatnonzero(np.random.default_rng(3).random(500) < 0.4)
    calls = [encode_face_runs(faces), 500], [[-5, 3, 1.7, 2, None, 1e9], 8], [[2], 8]
    assert call_script("preview.js", "facesOf", *calls) == [
        faces.tolist(),
        [0, 1, 2, 4, 5, 6, 7],
        [],
    ]


def test_clicked_points_land_on_the_sheet_where_it_shows_them():
    made = make_asset("chair", 1)
    buffers = render_sheet(made.mesh, made.face_labels, width=384).buffers
    points = (made.mesh.vertices - buffers.frame.center) * buffers.frame.scale
    page = {
        "points": points.ravel().tolist(),
        "faces": made.mesh.faces.ravel().tolist(),
        "part": made.face_labels.tolist(),
        "parts": [{}] * (int(made.face_labels.max()) + 1),
        "tiles": _describe_tiles(buffers),
        "sheet": list(buffers.size),
    }
    rows, columns = np.nonzero(buffers.face >= 0)
    some = np.random.default_rng(0).choice(len(rows), 25, replace=False)
    hits, faces = [], []
    for row, column in zip(rows[some], columns[some], strict=True):
        point = buffers.locate(int(column), int(row))
        triangle = made.mesh.triangles[point.face]
        normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
        unit = (point.xyz - buffers.frame.center) * buffers.frame.scale
        hits.append({"point": unit.tolist(), "normal": (normal / np.linalg.norm(normal)).tolist()})
        faces.append(point.face)
    right = 0
    for spot, face in zip(
        call_script("sheet.js", "onSheet", *[[page, hit] for hit in hits]), faces, strict=True
    ):
        column, row = (
            int(spot[axis] / 100 * size) for axis, size in zip("xy", buffers.size, strict=True)
        )
        around = buffers.face[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        right += face in around
    assert right == len(faces)
