"""The process that parses untrusted meshes: its answers, its limits, its deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.canonical import mesh_to_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.mesh.sandbox.parser import (
    LIBRARY_PROGRAM,
    ParsedMesh,
    Parser,
    ParserBudget,
    get_library_parser,
)
from segvigen_model.mesh.sandbox.process import ParserFault, SandboxUnavailable

PLENTY = ParserBudget(seconds=60.0, gib=16.0)
# A process whose `handle` is the test's.
SERVE = """
import os, signal, sys, time
from segvigen_model.mesh.sandbox import handlers
from segvigen_model.mesh.sandbox.child import serve
real = handlers.handle_request
def handle(head, blobs):
{body}
serve(handle)
"""


def make_glb(num_boxes: int) -> bytes:
    scene = trimesh.Scene()
    for number in range(num_boxes):
        scene.add_geometry(trimesh.creation.box().apply_translation((2.0 * number, 0, 0)))
    return bytes(scene.export(file_type="glb"))


def parse(parser: Parser, data: bytes, suffix: str = "glb", **options: object) -> ParsedMesh:
    given: dict = {"side_files": {}, "limits": MeshLimits(), "budget": PLENTY, **options}
    return parser.parse_mesh(data, suffix, **given)


@pytest.fixture
def parser_of() -> Iterator[Callable[..., Parser]]:
    made: list[Parser] = []

    def make(body: str = "", program: tuple[str, ...] = ()) -> Parser:
        code = SERVE.format(body="    " + body.replace("\n", "\n    "))
        made.append(Parser(program or ((sys.executable, "-c", code) if body else LIBRARY_PROGRAM)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def pid_of(parser: Parser) -> int:
    assert parser._process is not None
    return parser._process.pid


def used_gib(parser: Parser) -> float:
    pages = int(Path(f"/proc/{pid_of(parser)}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def test_it_gives_the_same_as_loading_here() -> None:
    parser = get_library_parser()
    for count in (1, 3):
        data = make_glb(count)
        assert parse(parser, data).canonical == mesh_to_canonical(mesh_from_bytes(data, "glb"))


def test_side_files_arrive_whole_and_by_name() -> None:
    text = (
        "mtllib red.mtl\nusemtl red\n" + trimesh.creation.box().export(file_type="obj")
    ).encode()
    side = {"red.mtl": b"newmtl red\nKd 1 0 0\n"}
    mesh = mesh_from_bytes(text, "obj", side_files=side)
    parsed = parse(get_library_parser(), text, "obj", side_files=side)
    assert parsed.canonical == mesh_to_canonical(mesh)
    assert mesh.materials[0].base_color_factor[:3] == (1.0, 0.0, 0.0)


def test_refusals_come_back_as_they_are() -> None:
    parser = get_library_parser()
    with pytest.raises(AssetRejected, match="24 faces > 10") as caught:
        parse(parser, make_glb(2), limits=MeshLimits(max_faces=10))
    assert caught.value.reason == "too_many_faces"
    with pytest.raises(AssetRejected, match="truncated"):
        parse(parser, b"solid\nno", "stl")
    assert parse(parser, make_glb(1)).canonical


def test_a_refusal_has_the_same_words_each_time() -> None:
    header = '{"asset":{"version":"2.0"}}'
    assert str(AssetRejected("x", "no <_io.BytesIO object at 0x7f01>; mend")) == (
        "x: no <_io.BytesIO object>; mend"
    )
    with pytest.raises(AssetRejected) as caught:
        parse(get_library_parser(), header.encode(), "gltf")
    assert " at 0x" not in str(caught.value)


def test_memory_is_bounded(parser_of: Callable[..., Parser]) -> None:
    points = np.random.default_rng(0).random((300_000, 3))
    faces = np.arange(300_000).reshape(-1, 3)
    data = trimesh.Trimesh(points, faces, process=False).export(file_type="obj").encode()
    parser = parser_of()
    assert parse(parser, make_glb(1)).canonical
    with pytest.raises(AssetRejected, match="raise parse_gib") as caught:
        parse(parser, data, "obj", budget=ParserBudget(60, used_gib(parser) + 0.01))
    assert caught.value.reason == "too_much_memory"
    assert parse(parser, data, "obj").canonical


def test_names_are_read_under_the_same_limits(parser_of: Callable[..., Parser]) -> None:
    parser = parser_of()
    small = (
        b'{"buffers": [{"uri": "a%20b.bin"}, {"uri": "data:,"}], "images": [{"uri": "./c.png"}]}'
    )
    assert parser.list_side_names(small, "gltf", 9, PLENTY) == ["a b.bin", "c.png"]
    assert parser.list_side_names(small, "gltf", 1, PLENTY) == ["a b.bin"]
    large = b"[" + b"[]," * 2**21 + b"[]]"
    with pytest.raises(AssetRejected, match="raise parse_gib"):
        parser.list_side_names(large, "gltf", 9, ParserBudget(60, used_gib(parser) + 0.05))
    assert parser.list_side_names(small, "gltf", 9, PLENTY) == ["a b.bin", "c.png"]


@pytest.mark.parametrize(
    "body", ["time.sleep(600)", "signal.pthread_sigmask(0, range(1, 65)); time.sleep(600)"]
)
def test_who_takes_too_long_is_given_up(parser_of: Callable[..., Parser], body: str) -> None:
    parser = parser_of(body)
    parser.ask_confinement()
    with pytest.raises(AssetRejected, match=r"over 0.5 s; .* raise parse_seconds") as caught:
        parse(parser, b"x" * 200_000, budget=ParserBudget(0.5, 16))
    assert caught.value.reason == "parser_too_slow"
    assert parser._process is None, "the process is ended, not left to its sleep"


def test_processor_time_is_bounded_by_the_kernel(parser_of: Callable[..., Parser]) -> None:
    body = """import resource
raise IndexError(str(resource.getrlimit(resource.RLIMIT_CPU)))"""
    with pytest.raises(ParserFault, match=r"\(8, 8\)$"):
        parse(parser_of(body), b"x", budget=ParserBudget(6.5, 16))


def test_a_kill_from_outside_costs_nothing(parser_of: Callable[..., Parser]) -> None:
    parser = parser_of()
    parse(parser, make_glb(1))
    pid = pid_of(parser)
    os.kill(pid, signal.SIGSTOP)  # the next request is sure to meet its death
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    assert parse(parser, make_glb(2)).canonical
    assert pid_of(parser) != pid


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("os.abort()", "signal 6"),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_a_parser_that_dies_twice_refuses_the_file(
    parser_of: Callable[..., Parser], body: str, ending: str
) -> None:
    with pytest.raises(AssetRejected, match=f"{ending}, twice; export the mesh again") as caught:
        parse(parser_of(body), b"x" * 200_000)
    assert caught.value.reason == "parser_died"


def test_a_process_that_does_not_start_is_no_fault_of_the_file(
    parser_of: Callable[..., Parser], caplog: pytest.LogCaptureFixture
) -> None:
    program = (sys.executable, "-c", "raise SystemExit('no such library')")
    with pytest.raises(SandboxUnavailable, match="does not start: exit code 1"):
        parse(parser_of(program=program), b"x")


def test_each_file_has_a_process_of_its_own(parser_of: Callable[..., Parser]) -> None:
    body = """seen = getattr(sys, 'seen', 0)
sys.seen = seen + 1
return {"facts": {"seen": seen, "pid": os.getpid(), "parent": os.getppid()}}, [b""]"""
    parser = parser_of(body)
    one, other = (parse(parser, b"x").facts for _ in range(2))
    assert one["seen"] == other["seen"] == 0 and one["pid"] != other["pid"]
    assert one["parent"] == other["parent"] == pid_of(parser)


def test_a_reply_prepared_for_the_next_file_is_refused(parser_of: Callable[..., Parser]) -> None:
    body = """if blobs[0] == b"evil":
    reply = b'{"facts": {"is_forged": true}, "sizes": [0]}\\n'
    import threading
    for handle in range(3, 64):
        try:
            os.write(handle, b'{"id": "' + head["id"].encode() + b'", ' + reply[1:] + reply)
        except OSError:
            pass
    os._exit(0)
return {"facts": {"is_forged": False}}, [b""]"""
    parser = parser_of(body)
    assert parse(parser, b"evil").facts == {"is_forged": True}, "its own it may forge"
    assert parse(parser, b"good").facts == {"is_forged": False}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"sizes": [-1]}', "twice"),
        ('{"sizes": "no"}', "twice"),
        ("[]", "twice"),
        ('{"sizes": [99999999999]}', "twice"),
        ("no json", "twice"),
        ('{"id": "%s", "sizes": [], "facts": {}}', "sent no mesh"),
    ],
)
def test_replies_are_not_believed(
    parser_of: Callable[..., Parser], reply: str, message: str
) -> None:
    body = f"""line = {reply!r}
line = line % head["id"] if "%s" in line else line
for handle in range(3, 64):
    try:
        os.write(handle, line.encode() + b"\\n")
    except OSError:
        pass
os._exit(0)"""
    with pytest.raises((AssetRejected, ParserFault), match=message):
        parse(parser_of(body), b"x")


def test_words_of_libraries_are_no_replies(
    parser_of: Callable[..., Parser], caplog: pytest.LogCaptureFixture
) -> None:
    parser = parser_of('print("a library talks", flush=True)\nreturn real(head, blobs)')
    for _ in range(2):
        assert parse(parser, make_glb(1)).canonical


def test_bugs_are_reported_as_such(parser_of: Callable[..., Parser]) -> None:
    with pytest.raises(ParserFault, match=r"^IndexError: list index out of range$"):
        parse(parser_of("[][0]"), b"x")


def test_a_decoder_that_is_not_installed_is_named(parser_of: Callable[..., Parser]) -> None:
    body = """from segvigen_model.errors import MissingExtra
raise MissingExtra("DracoPy", "pip install it")"""
    with pytest.raises(MissingExtra, match="DracoPy is not installed; pip install it"):
        parse(parser_of(body), b"x")


def test_it_ends_with_its_input(parser_of: Callable[..., Parser]) -> None:
    parser = parser_of()
    parse(parser, make_glb(1))
    assert parser._process is not None
    process = parser._process._process
    assert process.stdin is not None
    process.stdin.write(b'{"sizes": [100]}\n')  # half a request, then nobody is there
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def test_it_ends_with_the_asking_process_while_it_parses(tmp_path: Path) -> None:
    """The worker is killed in the middle of a file: neither of its two processes stays."""
    code = SERVE.format(
        body="    print('pids', os.getppid(), os.getpid(), flush=True)\n    time.sleep(600)"
    )
    asking = f"""
import logging, sys
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.sandbox.parser import Parser, ParserBudget
logging.basicConfig(level="WARNING")
Parser((sys.executable, "-c", {code!r})).parse_mesh(b"x", "glb", {{}}, MeshLimits(), ParserBudget())
"""
    worker = subprocess.Popen([sys.executable, "-c", asking], stderr=subprocess.PIPE, text=True)
    assert worker.stderr is not None
    words = next(line for line in worker.stderr if "pids" in line).split()
    pids = [int(word) for word in words[-2:]]
    worker.kill()
    worker.wait()
    worker.stderr.close()
    for _ in range(600):
        if not any(is_running(pid) for pid in pids):
            return
        threading.Event().wait(0.1)
    pytest.fail(f"still there: {[pid for pid in pids if is_running(pid)]}")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
