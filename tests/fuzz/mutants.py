"""Makes a mutant by its number, reads it, and says whether the rule held.

The rule: what a file announces is read, or it is refused with `AssetRejected`. A change that keeps
the meaning gives the known mesh; one that loses something gives a refusal, or a counted repair;
after damaged bytes there are at least as many polygons as the damaged file announces.
"""

from __future__ import annotations

import io
import json
import re
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.isolation import allow_decoding_here
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from tests.fuzz import drafts, gltf_writer, text_writers
from tests.fuzz.known import Known, find_difference, make_known
from tests.fuzz.packed_writers import write_3mf, write_fbx

HANG_S = 20
DAMAGES = {"flip": 0.35, "set": 0.25, "swap": 0.1, "delete": 0.1, "insert": 0.08, "repeat": 0.07,
           "cut": 0.05}  # fmt: skip
WRITERS: dict[str, tuple[Callable[..., Any], bool]] = {
    # name -> writer, whether it takes triangles only
    "ply": (text_writers.write_ply, False),
    "off": (text_writers.write_off, False),
    "obj": (text_writers.write_obj, False),
    "stl-binary": (text_writers.write_stl_binary, True),
    "stl-text": (text_writers.write_stl_text, True),
    "gltf": (gltf_writer.write_gltf, True),
    "draco": (gltf_writer.write_draco, True),
    "3mf": (write_3mf, True),
    "fbx": (write_fbx, False),
}
# Repairs that count polygons of the file which are not in the mesh.
FACES_LEFT_OUT = ("faces_with_fewer_than_3_corners", "faces_under_three_corners")
NO_POISON = ("stl-binary", "stl-text", "draco")  # no indices, or the encoder refuses them
FORMATS = (*WRITERS, "zip")


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        changes: names of the changes.
        meaning: "same", "losing" or "damage".
        result: "read", or the reason of the refusal.
        fault: how the rule was broken, "" = it held.
    """

    changes: tuple[str, ...]
    meaning: str
    result: str
    fault: str = ""


@dataclass(frozen=True)
class Mutant:
    """A file and what has to become of it."""

    data: bytes
    suffix: str
    known: Known
    keeps: frozenset[str]
    scale: float
    changes: tuple[str, ...]
    meaning: str


def make_mutant(name: str, seed: int) -> Mutant:
    """The mutant of a format with a number; the same every time."""
    rng = np.random.default_rng([seed, FORMATS.index(name)])
    inner = name
    if name == "zip":
        inner = str(rng.choice(["ply", "off", "obj", "stl-text", "gltf"]))
    writer, is_triangles = WRITERS[inner]
    known = make_known(rng, is_triangles=is_triangles)
    if inner == "obj" and known.colors is not None:
        known = replace(known, colors=np.maximum(known.colors, np.uint8([0, 0, 0, 255])))
    meaning = str(rng.choice(["same", "same", "losing", "damage"]))
    poison = None
    changes: list[str] = []
    if meaning == "losing" and inner not in NO_POISON and rng.random() < 0.3:
        choices = [len(known.points), -1] + ([2] if inner in ("ply", "off", "obj") else [])
        poison = int(rng.choice(choices))
        changes.append(f"corner {'missing' if poison == 2 else poison}")
    draft = writer(known, rng, poison)
    room = gltf_writer if isinstance(draft, gltf_writer.GltfDraft) else drafts
    for change in rng.permutation(np.array(room.SAME, dtype=object))[: rng.integers(0, 4)]:
        changed = change(draft, rng)
        if changed is not None:
            draft, changes = changed, [*changes, change.__name__]
    if meaning == "losing" and poison is None:
        for change in rng.permutation(np.array(room.LOSING, dtype=object)):
            changed = change(draft, rng)
            if changed is not None and changed.join() != draft.join():
                draft, changes = changed, [*changes, change.__name__]
                break
        else:
            meaning = "same"
    data, suffix = draft.join(), draft.suffix
    if name == "zip":
        data, suffix = pack(data, suffix, rng), "zip"
    if meaning == "damage":
        data, how = damage(data, rng)
        changes += how
    return Mutant(data, suffix, known, draft.keeps, draft.scale, tuple(changes), meaning)


def pack(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    folder = ["", "model/", "a b/c/"][rng.integers(3)]
    with zipfile.ZipFile(stream, "w", method) as file:
        if rng.random() < 0.5:
            file.writestr(folder + "readme.txt", "hello")
        file.writestr(f"{folder}mesh.{suffix}", data)
    return stream.getvalue()


def damage(data: bytes, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Change some bytes anywhere."""
    broken, how = bytearray(data), []
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(broken)))
        kind = str(rng.choice(list(DAMAGES), p=list(DAMAGES.values())))
        size = int(rng.integers(1, 40))
        if kind == "flip":
            broken[at] ^= 1 << int(rng.integers(8))
        elif kind == "set":
            broken[at] = int(rng.choice([0, 255, 32, 10, 13, 35, 45, 46, 57, 92]))
        elif kind == "delete":
            del broken[at : at + size]
        elif kind == "insert":
            broken[at:at] = bytes(rng.integers(0, 256, size=size, dtype=np.uint8))
        elif kind == "cut" and rng.random() < 0.4:
            del broken[max(at, 1) :]
        elif kind == "swap":
            other = int(rng.integers(len(broken)))
            broken[at], broken[other] = broken[other], broken[at]
        else:
            broken[at:at] = broken[at : at + size]
        how.append(kind)
        if not broken:
            break
    return bytes(broken), how


@contextmanager
def guard_time() -> Iterator[None]:
    """Turn a hang into an error."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {HANG_S} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def run_mutant(name: str, seed: int) -> Outcome:
    """Read one mutant and judge what came of it."""
    mutant = make_mutant(name, seed)
    return judge(mutant)


def judge(mutant: Mutant) -> Outcome:
    limits = MeshLimits(max_faces=5000, max_vertices=20000)
    try:
        with guard_time(), allow_decoding_here():
            mesh = mesh_from_bytes(mutant.data, mutant.suffix, limits=limits)
    except AssetRejected as err:
        fault = f"refused: {err}" if mutant.meaning == "same" else ""
        return Outcome(mutant.changes, mutant.meaning, err.reason, fault)
    except Exception as err:  # the very thing that is looked for
        return Outcome(mutant.changes, mutant.meaning, "error", f"{type(err).__name__}: {err}")
    return Outcome(mutant.changes, mutant.meaning, "read", find_fault(mesh, mutant))


def find_fault(mesh, mutant: Mutant) -> str:
    """How a mesh that was read breaks the rule."""
    if not np.isfinite(mesh.vertices).all():
        return "coordinates are not finite"
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        return "a face names a vertex that is not there"
    if mutant.meaning == "same":
        return find_difference(mesh, mutant.known, keeps=set(mutant.keeps), scale=mutant.scale)
    num_recorded = sum(count for kind, count in mesh.repairs if kind in FACES_LEFT_OUT)
    if mutant.meaning == "losing":
        return "" if num_recorded else "read although something is lost"
    announced = count_announced(mutant.data, mutant.suffix)
    num_read = len(np.unique(mesh.face_polygons))
    if announced is not None and num_read + num_recorded < announced:
        return f"{num_read} polygons of {announced}"
    return ""


def count_announced(data: bytes, suffix: str) -> int | None:
    """Polygons that a damaged file announces, counted apart from the readers; None = unclear."""
    if suffix == "ply":
        found = re.search(rb"[\r\n][ \t]*element[ \t]+face[ \t]+(\d+)", data)
        return int(found[1]) if found else None
    if suffix == "off":
        found = re.match(rb"\s*[A-Z]*OFF\s*\d+\s+(\d+)\s", data.removeprefix(b"\xef\xbb\xbf"))
        return int(found[1]) if found else None
    if suffix == "obj" and b"\\" not in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return len(re.findall(rb"(?:\A|[\r\n])[ \t]*f(?=[ \t])", data))
    if suffix == "stl":
        if len(data) > 84 and b"\x00" in data[:400]:
            return int(struct.unpack_from("<I", data, 80)[0])
        return len(re.findall(rb"endfacet", data, re.IGNORECASE))
    if suffix == "glb":
        return _count_glb(data)
    return None


def _count_glb(data: bytes) -> int | None:
    try:
        (length,) = struct.unpack_from("<I", data, 12)
        document = json.loads(data[20 : 20 + length].rstrip(b"\x00 "))
        primitives = document["meshes"][0]["primitives"]
        return sum(document["accessors"][each["indices"]]["count"] // 3 for each in primitives)
    except (ValueError, KeyError, IndexError, TypeError, struct.error):
        return None
