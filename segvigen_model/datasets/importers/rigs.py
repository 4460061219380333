"""Rigged glTF characters and animals to labelled folders: bones give the limbs.

    python -m segvigen_model.datasets.importers.rigs --scenes FOLDER --out FOLDER \
        --source OWNER/NAME --licence CC0-1.0 [--unlike LABELLED ...]

Every face takes the limb of the bones that move it most. Bones are joined to limbs by their names
("UpperArm.L" and "LowerArm.L" are one arm, fingers belong to the hand). A name without
meaning joins its parent along a chain and begins a limb at a branch. What hangs on a bone without
a skin (a helmet) is a part of its own. It is dropped when it hangs on a hand (most held things are
weapons, a held-out theme) or when its name shows a held-out theme.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segvigen_model.datasets.importers.folder import FolderWriter
from segvigen_model.datasets.scenes import (
    LabelledScene,
    NotAnObject,
    label_scene,
    read_fingerprints,
)
from segvigen_model.datasets.themes import find_held_out_theme, split_words
from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf import check_extensions, read_faces
from segvigen_model.mesh.formats.gltf_accessors import read_accessor
from segvigen_model.mesh.formats.gltf_nodes import compute_local_matrix, find_roots
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    get_item,
    open_glb,
    parse_header,
)
from segvigen_model.types import AssetMesh, FloatArray, IntArray, Material

SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
ENDS = {"front": "front", "fore": "front", "back": "back", "hind": "back", "rear": "back"}
# Limb -> words of bones; the first that fits is taken.
LIMBS: dict[str, str] = {
    "hand": "hand wrist palm thumb index middle ring pinky finger fingers fist",
    "foot": "foot toe toes ankle heel paw hoof ball",
    "ear": "ear ears",
    "arm": "arm upperarm lowerarm forearm elbow",
    "leg": "leg legs thigh shin calf knee upleg upperleg lowerleg",
    "tail": "tail",
    "wing": "wing wings",
    "fin": "fin",
    "neck": "neck",
    "head": "head jaw mouth eye eyes eyelid hair horn beak tongue skull face brow nose",
    "torso": "torso chest spine hips hip pelvis abdomen body belly back shoulder clavicle collar",
}
_PAIRED = {"hand", "foot", "ear", "arm", "leg", "wing", "fin"}
_NAMELESS = {"bone", "joint", "node", "armature", "root", "main", "rig", "ctrl", "control", "def"}
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RigPiece:
    """One primitive of a rigged scene.

    Attributes:
        vertices: (V, 3) float64, scene frame, rest pose.
        faces: (F, 3) int64.
        labels: (F,) int64 into `names`.
        names: limbs, or the one name of a rigid piece.
    """

    vertices: FloatArray
    faces: IntArray
    labels: IntArray
    names: tuple[str, ...]


def name_limbs(names: Sequence[str], parents: Sequence[int]) -> list[str]:
    """The limb of every bone.

    Args:
        names: of the bones.
        parents: index of each bone's parent, -1 = none.
    """
    children = Counter(parents)
    limbs: dict[int, str] = {}

    def find(bone: int) -> str:
        if bone not in limbs:
            known = _find_limb(names[bone])
            parent = parents[bone]
            if known is None:
                is_chain = parent >= 0 and children[parent] == 1
                known = find(parent) if is_chain else f"limb {names[bone]}"
            limbs[bone] = known
        return limbs[bone]

    return [find(bone) for bone in range(len(names))]


def _find_limb(name: str) -> str | None:
    """The limb that a bone's name means; None when it means none."""
    words = [word for word in split_words(name.rpartition(":")[2]) if not word.isdigit()]
    side = next((SIDES[word] for word in words if word in SIDES), "")
    end = next((ENDS[word] for word in words if word in ENDS), "")
    plain = [word for word in words if word not in SIDES]
    joined = {"".join(pair) for pair in itertools.pairwise(plain)} | set(plain)
    limb = next((limb for limb, known in LIMBS.items() if joined & set(known.split())), None)
    if limb == "torso" and side and end:
        limb = "leg"  # an animal's front or back shoulder
    if limb is None:
        rest = [word for word in plain if word not in _NAMELESS]
        return " ".join([*rest, side]).strip() if rest else None
    end = end if limb in ("leg", "foot") else ""  # "LeftForeArm" is no front arm
    return " ".join(filter(None, (end, limb, side))) if limb in _PAIRED else limb


def read_rig(data: bytes, suffix: str, side_files: Mapping[str, bytes]) -> list[RigPiece]:
    """Read a rigged scene in its rest pose, limbs found.

    Args:
        data: the whole file.
        suffix: "glb" or "gltf".
        side_files: buffers of a .gltf by name.

    Raises:
        NotAnObject: no mesh has a skin.
        AssetRejected: the file cannot be read.
    """
    if suffix == "glb":
        source = open_glb(data)
    else:
        source = GltfSource(parse_header(data), None, side_files, is_binary=False)
    check_extensions(source)
    if not source.header.get("skins"):
        raise NotAnObject("the file has no skin")
    places, parents = _place_nodes(source)
    pieces = []
    for index, matrix in places.items():
        node = get_item(source, "nodes", index)
        if "mesh" not in node:
            continue
        mesh = get_item(source, "meshes", node["mesh"])
        for primitive in mesh.get("primitives", []):
            if "skin" in node:
                skin = get_item(source, "skins", node["skin"])
                pieces.append(_read_skinned_piece(source, primitive, skin, places, parents))
            elif not _is_held(source, index, parents):
                name = str(node.get("name") or mesh.get("name") or "piece")
                pieces.append(_read_rigid_piece(source, primitive, matrix, name))
    return pieces


def _place_nodes(source: GltfSource) -> tuple[dict[int, FloatArray], dict[int, int]]:
    """World matrix and parent of every node of the scene."""
    places: dict[int, FloatArray] = {}
    parents: dict[int, int] = {}
    stack = [(root, -1) for root in find_roots(source)]
    while stack:
        index, parent = stack.pop()
        node = get_item(source, "nodes", index)
        if index in places:
            raise AssetRejected("unreadable", f"glTF node {index} has two parents")
        above = places[parent] if parent >= 0 else np.eye(4)
        places[index], parents[index] = above @ compute_local_matrix(node), parent
        stack += [(child, index) for child in node.get("children", [])]
    return places, parents


def _is_held(source: GltfSource, index: int, parents: Mapping[int, int]) -> bool:
    """Whether a node hangs on a hand."""
    while (index := parents[index]) >= 0:
        limb = _find_limb(str(get_item(source, "nodes", index).get("name") or ""))
        if limb is not None and limb.startswith("hand"):
            return True
    return False


def _read_positions(source: GltfSource, primitive: Mapping[str, Any]) -> FloatArray:
    positions: FloatArray = read_accessor(source, primitive["attributes"]["POSITION"])
    return positions.astype(np.float64)


def _read_rigid_piece(
    source: GltfSource, primitive: Mapping[str, Any], matrix: FloatArray, name: str
) -> RigPiece:
    points = _read_positions(source, primitive)
    faces = read_faces(source, primitive, len(points))
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    return RigPiece(moved, faces, np.zeros(len(faces), np.int64), (name,))


def _read_skinned_piece(
    source: GltfSource,
    primitive: Mapping[str, Any],
    skin: Mapping[str, Any],
    places: Mapping[int, FloatArray],
    parents: Mapping[int, int],
) -> RigPiece:
    """Vertices as their bones hold them, faces by the limb that weighs most."""
    points = _read_positions(source, primitive)
    faces = read_faces(source, primitive, len(points))
    joints: list[int] = skin["joints"]
    attributes = primitive["attributes"]
    if "JOINTS_0" not in attributes or "WEIGHTS_0" not in attributes:
        raise NotAnObject("a skinned mesh has no joints or weights")
    bones = read_accessor(source, attributes["JOINTS_0"]).astype(np.int64)
    weights = read_accessor(source, attributes["WEIGHTS_0"]).astype(np.float64)
    if bones.max(initial=0) >= len(joints):
        raise AssetRejected("unreadable", f"a vertex names bone {bones.max()} of {len(joints)}")
    inverse = np.tile(np.eye(4), (len(joints), 1, 1))
    if "inverseBindMatrices" in skin:
        stored = read_accessor(source, skin["inverseBindMatrices"]).astype(np.float64)
        inverse = stored.reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.stack([places.get(joint, np.eye(4)) for joint in joints]) @ inverse
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    full = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    moved = np.einsum("vk,vkij,vj->vi", share, matrices[bones], full)[:, :3]
    limbs = _name_skin_limbs(source, joints, parents)
    names = tuple(dict.fromkeys(limbs))
    limb_of = np.array([names.index(limb) for limb in limbs])
    table = np.zeros((len(points), len(names)))
    np.add.at(table, (np.arange(len(points))[:, None], limb_of[bones]), share)
    return RigPiece(moved, faces, table[faces].sum(axis=1).argmax(axis=1), names)


def _name_skin_limbs(
    source: GltfSource, joints: Sequence[int], parents: Mapping[int, int]
) -> list[str]:
    place = {joint: number for number, joint in enumerate(joints)}
    names = [str(get_item(source, "nodes", joint).get("name") or "") for joint in joints]
    return name_limbs(names, [place.get(parents.get(joint, -1), -1) for joint in joints])


def build_rig_mesh(pieces: Sequence[RigPiece]) -> AssetMesh:
    """One mesh whose geometries are limbs and rigid pieces, equal names joined.

    Rigid pieces whose names show a held-out theme are dropped.

    Raises:
        NotAnObject: nothing is left, or its vertices are not finite or all in one place.
    """
    kept = [
        piece
        for piece in pieces
        if len(piece.faces) and (len(piece.names) > 1 or find_held_out_theme(piece.names) is None)
    ]
    if not kept:
        raise NotAnObject("no piece is left")
    names = tuple(dict.fromkeys(name for piece in kept for name in piece.names))
    starts = np.cumsum([0] + [len(piece.vertices) for piece in kept[:-1]])
    labels = [np.array([names.index(name) for name in piece.names])[piece.labels] for piece in kept]
    faces = np.concatenate([p.faces + start for p, start in zip(kept, starts, strict=True)])
    vertices = np.concatenate([piece.vertices for piece in kept])
    if not np.isfinite(vertices).all() or not np.ptp(vertices, axis=0).max() > 0:
        raise NotAnObject("the rest pose has no finite extent; see its weights and bones")
    return AssetMesh(
        vertices=vertices,
        faces=faces,
        face_material=np.zeros(len(faces), np.int32),
        materials=(Material("rigged", (0.7, 0.7, 0.7, 1.0), metallic_factor=0.0),),
        face_geometry=np.concatenate(labels).astype(np.int32),
        geometry_names=names,
    )


def label_rig(mesh: AssetMesh) -> LabelledScene:
    """Parts of a mesh from `build_rig_mesh`; see `label_scene`.

    Raises:
        NotAnObject: all faces are of one limb, or `label_scene` refuses it.
    """
    if mesh.face_geometry is None or not np.ptp(mesh.face_geometry):
        raise NotAnObject("all faces are of one limb")
    return replace(label_scene(mesh), part_source="rig")


def import_rigs(
    scenes: Path, out: Path, about: Mapping[str, str], unlike: Sequence[Path] = ()
) -> Counter[str]:
    """Add every rigged scene below a folder to a labelled folder.

    Args:
        scenes: searched for .glb and .gltf files.
        out: labelled folder; made when absent.
        about: `source_repo`, `licence` and `category` of the rows.
        unlike: labelled folders whose shapes are left out, held-out ones included.

    Returns:
        How many were taken, and left out by reason.
    """
    writer = FolderWriter(out, read_fingerprints([*unlike, out]))
    for path in _list_scenes(scenes):
        place = path.relative_to(scenes).as_posix()
        writer.add(dict(about) | {"source_path": place}, [place], partial(_read, path), label_rig)
    for place, why in writer.left_out.items():
        log.info("scene=%s left_out=%s", place, why)
    return Counter({"taken": writer.num_taken, "left out": len(writer.left_out)})


def _read(path: Path) -> AssetMesh:
    side_files = {each.name: each.read_bytes() for each in path.parent.glob("*.bin")}
    return build_rig_mesh(read_rig(path.read_bytes(), path.suffix[1:].lower(), side_files))


def _list_scenes(scenes: Path) -> Iterator[Path]:
    yield from sorted(p for p in scenes.rglob("*") if p.suffix.lower() in (".glb", ".gltf"))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", required=True, help="where they come from, owner/name")
    parser.add_argument("--licence", required=True)
    parser.add_argument("--category", default="character/rigged")
    parser.add_argument("--unlike", type=Path, nargs="*", default=(), help="labelled folders")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    about = {"source_repo": args.source, "licence": args.licence, "category": args.category}
    counts = import_rigs(args.scenes, args.out, about, args.unlike)
    log.info("%s", ", ".join(f"{what}={count}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
