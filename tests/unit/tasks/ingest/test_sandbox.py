"""The process that reads untrusted meshes: its answers, its limits, its deaths."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from tasks.ingest.sandbox import (
    PROGRAM,
    Parser,
    ParserBudget,
    ParserFault,
    get_shared_parser,
    summarize_mesh,
)

PLENTY = ParserBudget(seconds=60.0, gib=16.0)
NOISY = """
import sys
import tasks.ingest.sandbox as reader
real = reader.mesh_from_bytes
def mesh_from_bytes(*args, **kwargs):
    print("a library talks")
    sys.stdout.flush()
    return real(*args, **kwargs)
reader.mesh_from_bytes = mesh_from_bytes
reader.main()
"""


@pytest.fixture
def parser_of() -> Iterator[Callable[..., Parser]]:
    made: list[Parser] = []

    def make(*program: str) -> Parser:
        made.append(Parser(program or PROGRAM))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_gives_the_same_as_loading_here(make_boxes: Callable[..., bytes]) -> None:
    parser = get_shared_parser()
    for count in (1, 3):
        mesh = mesh_from_bytes(make_boxes(count), "glb")
        features = parser.measure_mesh(make_boxes(count), "glb", {}, MeshLimits(), PLENTY)
        assert features == summarize_mesh(mesh)
    assert (features["num_faces"], features["num_components"]) == (36, 3)
    assert features["surface_area"] == pytest.approx(18) and np.shape(features["bounds"]) == (2, 3)


def test_bounds_are_of_what_faces_have() -> None:
    box = trimesh.creation.box().export(file_type="off")
    text = box.replace("OFF\n8 ", "OFF\n9 ")
    head, points, faces = text.split("\n")[:2], text.split("\n")[2:10], text.split("\n")[10:]
    data = "\n".join([*head, *points, "1e5 0 0", *faces]).encode()
    features = get_shared_parser().measure_mesh(data, "off", {}, MeshLimits(), PLENTY)
    assert (features["num_vertices"], features["num_components"]) == (9, 1)
    assert features["bounds"] == [[-0.5] * 3, [0.5] * 3]


def test_side_files_arrive_whole_and_by_name() -> None:
    box = trimesh.creation.box()
    text = "mtllib red.mtl\nusemtl red\n" + box.export(file_type="obj")
    side = {"red.mtl": b"newmtl red\nKd 1 0 0\n"}
    features = get_shared_parser().measure_mesh(text.encode(), "obj", side, MeshLimits(), PLENTY)
    assert features == summarize_mesh(mesh_from_bytes(text.encode(), "obj", side_files=side))
    assert features["num_materials"] == 1


def test_refusals_come_back_as_they_are(make_boxes: Callable[..., bytes]) -> None:
    parser = get_shared_parser()
    with pytest.raises(AssetRejected, match="24 faces > 10") as caught:
        parser.measure_mesh(make_boxes(2), "glb", {}, MeshLimits(max_faces=10), PLENTY)
    assert caught.value.reason == "too_many_faces"
    with pytest.raises(AssetRejected, match="truncated"):
        parser.measure_mesh(b"solid\nno", "stl", {}, MeshLimits(), PLENTY)
    assert parser.measure_mesh(make_boxes(1), "glb", {}, MeshLimits(), PLENTY)["num_faces"] == 12


def test_memory_is_bounded(parser_of: Callable[..., Parser]) -> None:
    points = np.random.default_rng(0).random((300_000, 3))
    faces = np.arange(300_000).reshape(-1, 3)
    data = trimesh.Trimesh(points, faces, process=False).export(file_type="obj").encode()
    parser = parser_of()
    box = trimesh.creation.box().export(file_type="off").encode()
    assert parser.measure_mesh(box, "off", {}, MeshLimits(), PLENTY)["num_faces"] == 12
    pid: Any = parser._process and parser._process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    used = pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    with pytest.raises(AssetRejected, match="raise parse_gib") as caught:
        parser.measure_mesh(data, "obj", {}, MeshLimits(), ParserBudget(60, used + 0.01))
    assert caught.value.reason == "too_much_memory"
    assert parser.measure_mesh(data, "obj", {}, MeshLimits(), PLENTY)["num_faces"] == 100_000


def test_names_are_read_under_the_same_limits(parser_of: Callable[..., Parser]) -> None:
    parser = parser_of()
    small = (
        b'{"buffers": [{"uri": "a%20b.bin"}, {"uri": "data:,"}], "images": [{"uri": "./c.png"}]}'
    )
    assert parser.list_side_names(small, "gltf", 9, PLENTY) == ["a b.bin", "c.png"]
    assert parser.list_side_names(small, "gltf", 1, PLENTY) == ["a b.bin"]
    pid: Any = parser._process and parser._process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    used = pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    large = b"[" + b"[]," * 2**21 + b"[]]"
    with pytest.raises(AssetRejected, match="raise parse_gib"):
        parser.list_side_names(large, "gltf", 9, ParserBudget(60, used + 0.05))
    assert parser.list_side_names(small, "gltf", 9, PLENTY) == ["a b.bin", "c.png"]


@pytest.mark.parametrize(
    ("kind", "data", "names"),
    [
        ("gltf", b"no json", []),
        ("gltf", b'{"buffers": 3, "images": [3, {"uri": 4}]}', []),
        ("gltf", b'{"images": [{"uri": "\\ud800"}]}', ["\ud800"]),
        ("obj", b"mtllib a b.mtl \r\n MTLLIB .\\c.mtl\rv 0 0 0\rmtllib\n", ["a b.mtl", "c.mtl"]),
        ("obj", b"# mtllib a.mtl\nxmtllib b.mtl\nmtllib " + b"x" * 9000, ["x" * 4096]),
        (
            "mtl",
            b"map_Kd -s 1 1 1 a.png\nbump b.png\nKd 1 1 1",
            ["a.png", "b.png"],
        ),
        ("ply", b"ply\ncomment TextureFile a.png\nend_header\ncomment TextureFile b", ["a.png"]),
        ("stl", b"mtllib a.mtl", []),
    ],
)
def test_names_of_other_files(kind: str, data: bytes, names: list[str]) -> None:
    assert get_shared_parser().list_side_names(data, kind, 9, PLENTY) == names


def test_who_takes_too_long_is_given_up(parser_of: Callable[..., Parser]) -> None:
    parser = parser_of(sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(AssetRejected, match=r"over 0.5 s; .* raise parse_seconds") as caught:
        parser.measure_mesh(b"x" * 200_000, "glb", {}, MeshLimits(), ParserBudget(0.5, 16))
    assert caught.value.reason == "parser_too_slow"
    assert parser._process is None, "the process is ended, not left to its sleep"


def test_a_kill_from_outside_costs_nothing(
    parser_of: Callable[..., Parser], make_boxes: Callable[..., bytes]
) -> None:
    parser = parser_of()
    parser.measure_mesh(make_boxes(1), "glb", {}, MeshLimits(), PLENTY)
    assert parser._process is not None
    pid = parser._process.pid
    os.kill(pid, signal.SIGSTOP)  # the next request is sure to meet its death
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    features = parser.measure_mesh(make_boxes(2), "glb", {}, MeshLimits(), PLENTY)
    assert features["num_faces"] == 24 and parser._process.pid != pid


@pytest.mark.parametrize(
    ("program", "ending"),
    [("import os; os.abort()", "signal 6"), ("raise SystemExit(3)", "exit code 3")],
)
def test_a_reader_that_dies_twice_refuses_the_file(
    parser_of: Callable[..., Parser], program: str, ending: str
) -> None:
    parser = parser_of(sys.executable, "-c", program)
    with pytest.raises(AssetRejected, match=f"{ending}, twice; export the mesh again") as caught:
        parser.measure_mesh(b"x" * 200_000, "glb", {}, MeshLimits(), PLENTY)
    assert caught.value.reason == "parser_died"


def test_words_of_libraries_are_no_replies(
    parser_of: Callable[..., Parser], make_boxes: Callable[..., bytes]
) -> None:
    parser = parser_of(sys.executable, "-c", NOISY)
    for _ in range(2):
        features = parser.measure_mesh(make_boxes(1), "glb", {}, MeshLimits(), PLENTY)
        assert features["num_faces"] == 12


def test_bugs_are_reported_as_such(parser_of: Callable[..., Parser]) -> None:
    broken = "import tasks.ingest.sandbox as r; r.mesh_from_bytes = lambda *a, **k: [][0]; r.main()"
    with pytest.raises(ParserFault, match=r"^IndexError: list index out of range$"):
        parser_of(sys.executable, "-c", broken).measure_mesh(b"x", "glb", {}, MeshLimits(), PLENTY)


def test_it_ends_with_its_input(make_boxes: Callable[..., bytes]) -> None:
    parser = Parser()
    parser.measure_mesh(make_boxes(1), "glb", {}, MeshLimits(), PLENTY)
    process = parser._process
    assert process is not None and process.stdin is not None
    process.stdin.write(b'{"sizes": [100]}\n')  # half a request, then nobody is there
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    parser.close()
