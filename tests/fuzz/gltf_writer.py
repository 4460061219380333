"""GLB and glTF of a known mesh of triangles, also with Draco, and changes of their JSON."""

from __future__ import annotations

import base64
import copy
import json
import struct
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.fuzz.known import Known

COMPONENTS = {"f4": 5126, "u4": 5125, "u2": 5123, "u1": 5121}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


@dataclass(frozen=True)
class GltfDraft:
    """A document and its buffer before they are packed."""

    document: dict[str, Any]
    blob: bytes
    suffix: str = "glb"
    keeps: frozenset[str] = frozenset({"colors", "uv"})
    padding: bytes = b" "
    scale: float = 1.0
    side_files: dict[str, bytes] = field(default_factory=dict)

    def join(self) -> bytes:
        document = copy.deepcopy(self.document)
        document["buffers"] = [{"byteLength": len(self.blob)}]
        if self.suffix == "gltf":
            inline = base64.b64encode(self.blob).decode()
            document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + inline
            return json.dumps(document, indent=1).encode()
        text = json.dumps(document).encode()
        text += self.padding * (-len(text) % 4)
        blob = self.blob + bytes(-len(self.blob) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(blob), 0x004E4942) + blob
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


class Builder:
    """Collects accessors in a document."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.blob = rng, b""
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}], "meshes": [{"primitives": []}], "accessors": [],
            "bufferViews": [],
        }  # fmt: skip

    def view(self, data: bytes, **more: int) -> int:
        self.blob += bytes(-len(self.blob) % 4 + 4 * int(self.rng.integers(3)))
        self.document["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more}
        )
        self.blob += data
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, kind: str, **more: Any) -> int:
        values = np.ascontiguousarray(values, dtype="<" + kind)
        width = 1 if values.ndim == 1 else values.shape[1]
        view: dict[str, int] = {}
        data = values.tobytes()
        if width > 1 and self.rng.random() < 0.3:  # spare bytes between the rows
            row = values.itemsize * width
            stride = row + 4 * int(self.rng.integers(1, 3)) + -row % 4
            data = b"".join(each.tobytes().ljust(stride, b"\xee") for each in values)
            view = {"byteStride": stride}
        self.document["accessors"].append({
            "bufferView": self.view(data, **view), "componentType": COMPONENTS[kind],
            "count": len(values), "type": TYPES[width], **more,
        })  # fmt: skip
        return len(self.document["accessors"]) - 1


def write_gltf(known: Known, rng, poison=None) -> GltfDraft:
    """One node, whose mesh has one primitive or two that share their vertices."""
    build = Builder(rng)
    attributes = {"POSITION": build.accessor(known.points, "f4")}
    if known.colors is not None:
        kind = str(rng.choice(["u1", "u2", "f4"]))
        top = {"u1": 1, "u2": 257, "f4": 1 / 255}[kind]
        more = {} if kind == "f4" else {"normalized": True}
        attributes["COLOR_0"] = build.accessor(known.colors * np.float64(top), kind, **more)
    if known.uv is not None:
        attributes["TEXCOORD_0"] = build.accessor(known.uv * [1, -1] + [0, 1], "f4")
    faces = np.array(known.polygons)
    if poison is not None:
        faces = faces.copy()
        faces[rng.integers(len(faces)), rng.integers(3)] = poison if poison >= 0 else 250
    kind = str(rng.choice(["u1", "u2", "u4"]))
    cut = int(rng.integers(1, len(faces))) if len(faces) > 1 and rng.random() < 0.5 else len(faces)
    primitives = build.document["meshes"][0]["primitives"]
    for part in (faces[:cut], faces[cut:]):
        if len(part):
            indices = build.accessor(part.ravel(), kind)
            primitives.append({"attributes": dict(attributes), "indices": indices})
    suffix = "glb" if rng.random() < 0.6 else "gltf"
    return GltfDraft(build.document, build.blob, suffix)


def write_draco(known: Known, rng, poison=None) -> GltfDraft:
    import DracoPy

    faces = np.array(known.polygons, dtype=np.uint32)
    data = DracoPy.encode(
        known.points.astype(np.float32), faces, preserve_order=True, quantization_bits=24
    )
    build = Builder(rng)
    count = len(known.points)
    build.document["accessors"] = [
        {"componentType": 5126, "count": count, "type": "VEC3"},
        {"componentType": 5125, "count": faces.size, "type": "SCALAR"},
    ]
    extension = {"bufferView": build.view(data), "attributes": {"POSITION": 0}}
    build.document["meshes"][0]["primitives"] = [{
        "attributes": {"POSITION": 0}, "indices": 1,
        "extensions": {"KHR_draco_mesh_compression": extension},
    }]  # fmt: skip
    build.document["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    build.document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return GltfDraft(build.document, build.blob, keeps=frozenset({"coarse"}))


# Changes that keep the meaning.


def pad_with_zeros(draft, rng):
    return replace(draft, padding=b"\x00")


def add_junk(draft, rng):
    document = copy.deepcopy(draft.document)
    junk = [{"extras": {"a": [1, {"b": None}]}}, {"name": "nobody"}, {"name": ["not", "text"]}]
    document["nodes"].append(junk[rng.integers(3)])
    document["extras"] = junk
    document["materials"] = [{"name": "unused"}]
    return replace(draft, document=document)


def repeat_accessor(draft, rng):
    """The second primitive, if there is one, gets copies of the accessors' entries."""
    document = copy.deepcopy(draft.document)
    primitive = document["meshes"][0]["primitives"][-1]
    for name, number in primitive["attributes"].items():
        document["accessors"].append(dict(document["accessors"][number]))
        primitive["attributes"][name] = len(document["accessors"]) - 1
    if "extensions" in primitive:
        return None
    return replace(draft, document=document)


def move_accessors(draft, rng):
    """The same accessors in another order."""
    document = copy.deepcopy(draft.document)
    order = rng.permutation(len(document["accessors"]))
    document["accessors"] = [draft.document["accessors"][old] for old in order]
    new = {int(old): place for place, old in enumerate(order)}
    for primitive in document["meshes"][0]["primitives"]:
        primitive["indices"] = new[primitive["indices"]]
        primitive["attributes"] = {k: new[v] for k, v in primitive["attributes"].items()}
    return replace(draft, document=document)


def add_parent(draft, rng):
    document = copy.deepcopy(draft.document)
    document["nodes"].append({"children": [0], "translation": [0, 0, 0], "scale": [1, 1, 1]})
    document["scenes"][0]["nodes"] = [len(document["nodes"]) - 1]
    return replace(draft, document=document)


SAME = (pad_with_zeros, add_junk, repeat_accessor, move_accessors, add_parent)

# Changes that lose something.


def _change_accessor(draft, rng, change):
    document = copy.deepcopy(draft.document)
    used = {number for p in document["meshes"][0]["primitives"]
            for number in (p["indices"], *p["attributes"].values())}  # fmt: skip
    change(document["accessors"][int(rng.choice(sorted(used)))])
    return replace(draft, document=document)


def count_more(draft, rng):
    return _change_accessor(draft, rng, lambda each: each.update(count=each["count"] + 1000))


def count_nothing(draft, rng):
    bad = [-3, "3", None, 1.5, 10**12][rng.integers(5)]
    return _change_accessor(draft, rng, lambda each: each.update(count=bad))


def unknown_component(draft, rng):
    if "extensions" in draft.document["meshes"][0]["primitives"][0]:
        return None  # Draco brings its own types
    return _change_accessor(draft, rng, lambda each: each.update(componentType=1))


def index_list_too_short(draft, rng):
    document = copy.deepcopy(draft.document)
    primitive = document["meshes"][0]["primitives"][-1]
    document["accessors"][primitive["indices"]]["count"] -= 1
    return replace(draft, document=document)


def move_view(draft, rng):
    document = copy.deepcopy(draft.document)
    document["bufferViews"][-1]["byteOffset"] += len(draft.blob)
    return replace(draft, document=document)


def cut_blob(draft, rng):
    """The buffer is shorter than the last view needs, by more than a GLB's padding."""
    return replace(draft, blob=draft.blob[: -int(rng.integers(4, 16))])


def drop_accessor(draft, rng):
    document = copy.deepcopy(draft.document)
    document["accessors"] = document["accessors"][:-1]
    return replace(draft, document=document)


LOSING = (
    count_more, count_nothing, unknown_component, index_list_too_short, move_view, cut_blob,
    drop_accessor,
)  # fmt: skip
