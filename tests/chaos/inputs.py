"""The raw bucket of a chaos run: small meshes made in code, each with the fate it must meet.

Most are a few boxes in one of four formats. Some are broken or hostile files that ingest has to
refuse with a known reason, some are exact copies, and some are good meshes that the scripted
reviewer throws away or passes over. The same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from segvigen_model.mesh.io import mesh_to_glb
from segvigen_model.types import AssetMesh, IntArray, Material
from tasks.quality.gate import is_in_audit

PREFIX = "chaos"
BROKEN_EVERY = 8  # one of so many inputs is a broken file
COPY_EVERY = 20
THROWN_EVERY = 12  # by the reviewer
PASSED_EVERY = 15
# Corners of a box by three bits, and its two triangles a side, outwards.
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
SIDES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)
AUDIT_SHARE = 0.8  # of what the gate is sure of; the rest skips the reviewer
SPLIT_SHARE = 0.6
HALF_OF_BOX = slice(4, 8)  # two opposite sides of the first box


class Fate(StrEnum):
    """Where an input must be at the end."""

    SHARDED = "sharded"
    THROWN = "rejected by the reviewer"
    PASSED = "skipped by the reviewer"
    BROKEN = "rejected by ingest"


@dataclass(frozen=True, slots=True)
class Input:
    """One object of the raw bucket.

    Attributes:
        key: in the bucket.
        data: its bytes.
        fate: of the asset that it holds.
        truth: (F,) int32 true part of each face, of good meshes.
        reason: of a broken file.
    """

    key: str
    data: bytes
    fate: Fate
    truth: IntArray | None = None
    reason: str = ""


def make_inputs(count: int, seed: int) -> list[Input]:
    """Make `count` inputs with ascending keys; about one in eight is broken."""
    made: list[Input] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        if number % BROKEN_EVERY == BROKEN_EVERY - 1:
            made.append(_make_broken(number, rng))
        elif number % COPY_EVERY == COPY_EVERY - 1:
            made.append(_make_copy(number, made))
        else:
            made.append(_make_good(number, rng))
    return made


def _make_good(number: int, rng: np.random.Generator) -> Input:
    suffix = ("glb", "obj", "ply", "stl")[number % 4]
    mesh, truth = make_boxes(rng)
    data = WRITERS[suffix](mesh)
    fate = Fate.SHARDED
    # What is not audited the gate accepts, and no reviewer can decide otherwise.
    is_seen = is_in_audit(hashlib.sha256(data).hexdigest(), AUDIT_SHARE)
    if is_seen and number % THROWN_EVERY == THROWN_EVERY - 2:
        fate = Fate.THROWN
    elif is_seen and number % PASSED_EVERY == PASSED_EVERY - 3:
        fate = Fate.PASSED
    return Input(f"{PREFIX}/{number:04d}.{suffix}", data, fate, truth)


def _make_copy(number: int, made: list[Input]) -> Input:
    """The same bytes as an earlier good input, under another key."""
    old = next(each for each in reversed(made) if each.fate is Fate.SHARDED)
    suffix = old.key.rpartition(".")[2]
    return Input(f"{PREFIX}/{number:04d}-copy.{suffix}", old.data, old.fate, old.truth)


def _make_broken(number: int, rng: np.random.Generator) -> Input:
    kinds = list(BROKEN)
    suffix, reason, make = BROKEN[kinds[(number // BROKEN_EVERY) % len(kinds)]]
    data = make(rng)
    return Input(f"{PREFIX}/{number:04d}-broken.{suffix}", data, Fate.BROKEN, None, reason)


def make_boxes(rng: np.random.Generator) -> tuple[AssetMesh, IntArray]:
    """Two to four boxes in a row, and the true part of each face."""
    num_boxes = int(rng.integers(2, 5))
    sizes = rng.uniform(0.5, 1.0, (num_boxes, 3))
    lefts = np.concatenate([[0.0], np.cumsum(sizes[:-1, 0] + 0.1)])
    vertices = [CORNERS * size + [left, 0, 0] for size, left in zip(sizes, lefts, strict=True)]
    faces = np.concatenate([SIDES + 8 * box for box in range(num_boxes)])
    truth = np.repeat(np.arange(num_boxes, dtype=np.int32), len(SIDES))
    if rng.random() < SPLIT_SHARE:  # a box of two parts: no proposal has them before a click
        truth[HALF_OF_BOX] = num_boxes
    colour = (*map(float, rng.uniform(0.2, 0.9, 3)), 1.0)
    materials = (Material("paint", base_color_factor=colour),)
    mesh = AssetMesh(
        np.round(np.concatenate(vertices), 5), faces, np.zeros(len(faces), np.int32), materials
    )
    return mesh, truth


def write_obj(mesh: AssetMesh) -> bytes:
    """Write as OBJ without materials."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    return ("\n".join(lines) + "\n").encode()


def write_ply(mesh: AssetMesh) -> bytes:
    """Write as text PLY."""
    header = f"ply\nformat ascii 1.0\nelement vertex {len(mesh.vertices)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += f"element face {mesh.num_faces}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
    rows += [f"3 {a} {b} {c}" for a, b, c in mesh.faces]
    return (header + "\n".join(rows) + "\n").encode()


def write_stl(mesh: AssetMesh) -> bytes:
    """Write as binary STL."""
    fields = [("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("extra", "<u2")]
    rows = np.zeros(mesh.num_faces, dtype=fields)
    rows["corners"] = mesh.triangles
    return b"chaos".ljust(80, b" ") + np.array(len(rows), "<u4").tobytes() + rows.tobytes()


WRITERS: dict[str, Callable[[AssetMesh], bytes]] = {
    "glb": mesh_to_glb,
    "obj": write_obj,
    "ply": write_ply,
    "stl": write_stl,
}


def _tag(rng: np.random.Generator) -> bytes:
    """Some bytes that make a file unlike every other."""
    return hashlib.sha256(rng.bytes(16)).hexdigest().encode()


def _make_half_glb(rng: np.random.Generator) -> bytes:
    data = mesh_to_glb(make_boxes(rng)[0])
    return data[: len(data) // 2]


def _make_huge_ply(rng: np.random.Generator) -> bytes:
    text = write_ply(make_boxes(rng)[0])
    head, mark, rest = text.partition(b"element face ")
    return head + mark + b"2000000000\n" + rest.partition(b"\n")[2]


def _make_nan_obj(rng: np.random.Generator) -> bytes:
    lines = write_obj(make_boxes(rng)[0]).splitlines()
    return b"\n".join([b"v nan nan inf", *lines[1:]]) + b"\n"


def _make_far_index_obj(rng: np.random.Generator) -> bytes:
    return write_obj(make_boxes(rng)[0]) + b"f 1 2 999999\n"


def _make_empty_gltf(rng: np.random.Generator) -> bytes:
    about = {"asset": {"version": "2.0", "generator": _tag(rng).decode()}, "scenes": [{}]}
    return json.dumps(about).encode()


# kind -> suffix, reason, bytes
BROKEN: dict[str, tuple[str, str, Callable[[np.random.Generator], bytes]]] = {
    "cut in half": ("glb", "truncated", _make_half_glb),
    "announces two billion faces": ("ply", "truncated", _make_huge_ply),
    "a picture": ("glb", "wrong_suffix", lambda rng: b"\x89PNG\r\n\x1a\n" + _tag(rng)),
    "not a number": ("obj", "nan_vertices", _make_nan_obj),
    "no bytes": ("stl", "empty_file", lambda rng: b""),
    "index past the end": ("obj", "unreadable", _make_far_index_obj),
    "a format that is not read": ("blend", "unsupported_format", _tag),
    "no faces": ("gltf", "no_faces", _make_empty_gltf),
    "noise": ("ply", "wrong_extension", lambda rng: b"\x00\xff" + rng.bytes(300)),
}
