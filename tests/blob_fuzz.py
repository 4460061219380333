"""Damaged blobs for every reader, by a seed: read rightly, or refused with an error of ours.

`python -m tests.blob_fuzz SEED COUNT` makes COUNT mutants, dealt out to all readers in turn, and
prints a JSON report. Every mutant is first offered to the checked read, which must refuse its hash,
then to the raw reader without any hash, which must return a value whose invariants hold or raise a
`SegvigenError`, within 5 s of CPU time and 1 GiB of address space above what the interpreter has.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from segvigen_model.checkpoints.native import CONFIG_FILE, load_folder, save_model
from segvigen_model.checkpoints.native import WEIGHTS_FILE as MODEL_FILE
from segvigen_model.errors import SegvigenError
from segvigen_model.interactive.mask_selector import WEIGHTS_FILE as SELECTOR_FILE
from segvigen_model.interactive.mask_selector import load_mask_selector
from segvigen_model.interactive.patch_network import (
    PatchNetwork,
    read_patch_network,
    save_patch_network,
)
from segvigen_model.mesh.canonical import mesh_from_canonical, mesh_to_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.model.bundle import build_model
from segvigen_model.ovoxel.vxz import read_vxz, to_ovoxel, write_ovoxel
from segvigen_model.partition.hierarchy import build_part_tree
from segvigen_model.serialization import (
    encoding_from_bytes,
    encoding_to_bytes,
    proposal_from_bytes,
    proposal_to_bytes,
)
from segvigen_model.types import (
    AssetMesh,
    Encoding,
    Frame,
    Material,
    OVoxel,
    PartTable,
    Proposal,
    RefinementState,
)
from tasks.labelling.label_sets import LabelSet, label_set_from_bytes
from tasks.labelling.loading import check_asset_info
from tasks.rendering.pixel_buffers import Buffers, buffers_from_bytes, buffers_to_bytes
from tasks.settings import ShardSettings
from tasks.shards.reader import check_manifest, read_index, unpack_tar
from tasks.shards.samples import SampleSource, build_sample_members, decode_sample
from tasks.storage import checked_reads
from tasks.storage.canonical import json_document, parse_json
from tasks.storage.errors import BlobDamaged

MAX_SECONDS = 5
MAX_GROWTH_BYTES = 2**30
FIXTURE = Path(__file__).parent / "fixtures" / "a4d9af9" / "proposal-1.npz"
HASH = "a" * 64
_BOMB, _BOMB_MIB = b"a member that unfolds to more than is allowed", 800
NUM_PARTS, NUM_FACES, NUM_VOXELS, NUM_LATENTS = 3, 12, 40, 9

Read = Callable[[bytes], Any]


def make_blobs(folder: Path) -> dict[str, tuple[bytes, Read]]:
    """Reader's name -> a good blob, and what reads it and checks the value's invariants."""
    rng = np.random.default_rng(0)
    encoding, proposal, labels = _encoding(rng), _proposal(rng), _label_set()
    members = build_sample_members(
        SampleSource(HASH, _box(), encoding, labels, proposal.voxel_labels, (labels.face_labels,)),
        ShardSettings(num_palettes=1, num_guide_views=1, guide_pixels=32),
    ) | {"rounds.npz": _npz(shown=proposal.voxel_labels[None])}
    provenance = {"clicks": [], "decided_by": "ann"}
    blobs: dict[str, tuple[bytes, Read]] = {
        "encoding": (encoding_to_bytes(encoding), _read_encoding),
        "proposal": (proposal_to_bytes(proposal), _read_proposal),
        "proposal/1": (FIXTURE.read_bytes(), _read_proposal),
        "label set": (
            _pack_label_set(labels),
            lambda data: _check_labels(label_set_from_bytes(data, provenance, "ann")),
        ),
        "buffers": (buffers_to_bytes(_buffers(rng)), _read_buffers),
        "sample tar": (_pack_tar(members), lambda data: decode_sample(unpack_tar(data, HASH))),
        "parsed mesh": (mesh_to_canonical(_box()), mesh_from_canonical),
        "vxz": (write_ovoxel(_ovoxel(rng), chunk_size=16), _read_vxz),
        "manifest": (json_document(_manifest()), lambda d: check_manifest(parse_json(d, "m"))),
        "index": (_index(), lambda data: read_index(data, 1)),
        "asset.json": (
            json_document(_asset_info()),
            lambda d: MeshLimits(**check_asset_info(parse_json(d, "a"), "a")["limits"]),
        ),
    }
    for name in sorted(members):
        blobs[f"sample {name}"] = (
            members[name],
            lambda data, name=name: decode_sample({**members, name: data}),
        )
    return blobs | _weights_blobs(folder)


def _weights_blobs(folder: Path) -> dict[str, tuple[bytes, Read]]:
    """Files of checkpoints, each read from disk beside its good companions."""
    save_model(build_model("tiny"), folder / "model")
    network, patches = PatchNetwork(8, 2, (1, 1), 4), folder / "patches.safetensors"
    save_patch_network(network, patches)

    def read_model(name: str) -> Read:
        place = folder / "model" / name
        good = place.read_bytes()

        def read(data: bytes) -> None:
            place.write_bytes(data)
            try:
                load_folder(folder / "model")
            finally:
                place.write_bytes(good)

        return read

    def read_file(load: Callable[[Path], Any]) -> Read:
        def read(data: bytes) -> None:
            (folder / "mutant").write_bytes(data)
            load(folder / "mutant")

        return read

    return {
        "checkpoint weights": (
            (folder / "model" / MODEL_FILE).read_bytes(),
            read_model(MODEL_FILE),
        ),
        "checkpoint config": (
            (folder / "model" / CONFIG_FILE).read_bytes(),
            read_model(CONFIG_FILE),
        ),
        "patch network": (patches.read_bytes(), read_file(read_patch_network)),
        "mask selector": (
            SELECTOR_FILE.read_bytes(),
            read_file(load_mask_selector.__wrapped__),
        ),
    }


# --- good values


def _encoding(rng: np.random.Generator) -> Encoding:
    coords = np.unique(rng.integers(0, 32, (200, 3)), axis=0)[:NUM_VOXELS].astype(np.int32)
    latent = np.unique(coords // 8, axis=0)[:NUM_LATENTS].astype(np.int32)
    slat = rng.normal(size=(2, len(latent), 8)).astype(np.float32)
    colors = rng.integers(0, 256, (NUM_VOXELS, 3)).astype(np.uint8)
    frame = Frame(np.zeros(3), 0.5)
    tokens = np.ones((4, 8), np.float32)
    return Encoding(32, 8, coords, latent, slat[0], slat[1], colors, frame, HASH, tokens)


def _proposal(rng: np.random.Generator) -> Proposal:
    return Proposal(
        np.arange(NUM_FACES, dtype=np.int32) % NUM_PARTS,
        rng.integers(0, NUM_PARTS, NUM_VOXELS).astype(np.int32),
        np.full(NUM_PARTS, 0.5, np.float32),
        0.75,
        parts=PartTable(("lid", "", "leg"), ("", "", ""), (0, 1, 2)),
        refinement=RefinementState((3, 5), 1, {0: 0, 1: 2}, {2: (1, 2)}),
        checkpoint=HASH,
        num_draws=4,
        provenance={"seed": 3, "note": "x" * 40},
        finer=np.arange(NUM_FACES, dtype=np.int32)[None],
        groups=np.array([0, 0, 1], np.int32),
    )


def _label_set() -> LabelSet:
    labels = np.arange(NUM_FACES, dtype=np.int32) % NUM_PARTS
    tree = build_part_tree(labels, np.arange(NUM_FACES, dtype=np.int32)[None], np.array([0, 0, 1]))
    parts = np.arange(NUM_PARTS, dtype=np.int32)
    names, empty = ("lid", "body", "leg"), ("",) * NUM_PARTS
    provenance = {"clicks": [], "decided_by": "ann"}
    return LabelSet(labels, names, -1, "ann", (), provenance, empty, tree, parts)


def _pack_label_set(labels: LabelSet) -> bytes:
    return _npz(
        face_labels=labels.face_labels,
        part_names=np.array(labels.part_names),
        part_categories=np.array(labels.part_categories, np.str_),
        not_object_part=np.array(-1, np.int32),
        levels=labels.tree.levels,
        level_offsets=labels.tree.offsets,
        parents=labels.tree.parents,
        part_level=np.array(labels.tree.part_level, np.int32),
        proposal_parts=labels.proposal_parts,
    )


def _buffers(rng: np.random.Generator) -> Buffers:
    face = rng.integers(-1, NUM_FACES, (24, 24)).astype(np.int32)
    is_there = face >= 0
    cameras = np.tile(np.array([0, 0, 24, 0.6, *np.zeros(3), *np.eye(3).ravel()]), (2, 1))
    return Buffers(
        face,
        np.where(is_there, 1, -1).astype(np.int8),
        np.where(is_there, face % NUM_PARTS, -1).astype(np.int16),
        np.where(is_there, 0.5, 0).astype(np.float32),
        cameras.astype(np.float64),
        Frame(np.zeros(3), 1.0),
        {"views": ["front", "back"], "num_parts": NUM_PARTS, "asset_id": HASH},
    )


def _ovoxel(rng: np.random.Generator) -> OVoxel:
    coords = np.unique(rng.integers(0, 32, (300, 3)), axis=0).astype(np.int32)

    def bytes_of(*shape: int) -> Any:
        return rng.integers(0, 256, (len(coords), *shape)).astype(np.uint8)

    return OVoxel(
        grid=32,
        coords=coords,
        dual=bytes_of(3),
        intersected=bytes_of(3) > 127,
        base_color=bytes_of(3),
        metallic=bytes_of(),
        roughness=bytes_of(),
        alpha=bytes_of(),
        emissive=bytes_of(3),
        normal=bytes_of(3),
        frame=Frame(np.zeros(3), 1.0),
    )


def _box() -> AssetMesh:
    corner = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int64)
    return AssetMesh(corner, faces, np.zeros(len(faces), np.int32), (Material(),))


def _manifest() -> dict[str, Any]:
    shard = {"key": "shards/parts/v/shard-000000.tar", "sha256": HASH, "size": 9, "num_samples": 1}
    index = {"key": "shards/parts/v/index.jsonl", "sha256": HASH, "size": 9}
    return {"schema": "segvigen-shards/2", "shards": [shard], "index": index, "counts": {"a": 1}}


def _index() -> bytes:
    line = {"key": HASH, "label_id": "b" * 24, "shard": 0, "offset": 0, "size": 9, "sha256": HASH}
    return b"".join(json.dumps(line | {"offset": 512 * i}).encode() + b"\n" for i in range(4))


def _asset_info() -> dict[str, Any]:
    side = {"chair.mtl": {"key": "assets/a/side/0000", "sha256": HASH, "size": 3}}
    limits = {"max_bytes": 9, "max_faces": 9, "is_side_file_required": False}
    return {"schema": "segvigen-asset/1", "sha256": HASH, "side_files": side, "limits": limits}


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _pack_tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(f"{HASH}.{name}")
            entry.size = len(members[name])
            archive.addfile(entry, io.BytesIO(members[name]))
    return buffer.getvalue().rstrip(b"\0") + b"\0" * 512


# --- invariants of what was read without a hash


def _read_encoding(data: bytes) -> None:
    read = encoding_from_bytes(data)
    assert read.coords.shape[1] == 3 and 0 <= read.coords.min() <= read.coords.max() < read.grid
    assert len(read.shape_slat) == len(read.tex_slat) == len(read.latent_coords)
    assert all(np.isfinite(each).all() for each in (read.shape_slat, read.tex_slat))
    assert 0 < read.frame.scale < np.inf and np.isfinite(read.frame.center).all()


def _read_proposal(data: bytes) -> None:
    read = proposal_from_bytes(data)
    num_parts = read.num_parts
    assert read.parts.num_parts == num_parts == len(read.part_confidence)
    assert read.face_labels.min() >= 0 and read.face_labels.max() < num_parts
    assert np.isfinite(read.part_confidence).all() and np.isfinite(read.confidence)
    json.dumps(dict(read.provenance), allow_nan=False)
    proposal_to_bytes(read)


def _check_labels(read: LabelSet) -> None:
    assert sorted(set(read.face_labels.tolist())) == list(range(len(read.part_names)))
    assert np.array_equal(read.tree.levels[read.tree.part_level], read.face_labels)
    for part in range(len(read.part_names)):
        read.tree.find_children(part)


def _read_buffers(data: bytes) -> None:
    read = buffers_from_bytes(data)
    for row, column in ((0, 0), (11, 7), (23, 23)):
        point = read.locate(column, row)
        assert point is None or np.isfinite(point.xyz).all()


def _read_vxz(data: bytes) -> None:
    read = to_ovoxel(read_vxz(data), 32, Frame(np.zeros(3), 1.0))
    assert 0 <= read.coords.min() <= read.coords.max() < 32


# --- damage


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One damaged version of a blob, different from it."""
    kinds: list[Callable[[bytes, random.Random, list[bytes]], bytes]] = [
        *(_cut, _flip, _flip, _overwrite, _move, _graft),
    ]
    if data[:2] == b"PK":
        kinds += [_change_member] * 6
    elif b"{" in data[:16]:  # JSON, or a header of safetensors or vxz
        kinds += [_change_word] * 6
    while True:
        mutant = rng.choice(kinds)(data, rng, others)
        if mutant != data:
            return mutant


def _cut(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    changed = bytearray(data)
    reach = rng.choice((64, 512, len(data)))
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(min(reach, len(data)))
        changed[at if rng.random() < 0.6 else len(data) - 1 - at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64, 600))
    fill = rng.choice((b"\0", b"\xff", b"\x80", b"[", b"9")) * length
    return data[:start] + fill[: len(data) - start] + data[start + length :]


def _move(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    one, two = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return rng.choice((data[:one] + data[two:], data[:two] + data[one:], data[one:] + data[:one]))


def _graft(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    at = rng.randrange(len(data))
    return rng.choice((other, data[:at] + other, data[:at] + other[at:]))


def _change_word(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    """Replace one JSON token in the text; where a length stands before it, that stays wrong."""
    new = rng.choice(
        [
            *(b"NaN", b"-1", b"1e999", b"-Infinity", b"null", b"true", b"[]", b"{}", b'"\\ud800"'),
            *(b"9" * 30, b"[" * 5000, b'{"a":' * 3000, b"1.5", b'"x"', b"65535", b"0"),
        ]
    )
    places = [i for i, byte in enumerate(data[:6000]) if byte in b'0123456789"[]{},:tfn']
    at = rng.choice(places or [0])
    end = at + rng.choice((1, 1, 2, 5))
    if data[:1] not in b"[{" and rng.random() < 0.7:  # a counted header: keep its length
        return data[:at] + (new + b" " * 8)[: end - at] + data[end:]
    return data[:at] + new + data[end:]


def _change_member(data: bytes, rng: random.Random, _others: list[bytes]) -> bytes:
    """Pack an npz again with one member that is sound by itself and wrong here."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    header_end = 10 + int.from_bytes(members[name][8:10], "little")
    header, content = members[name][:header_end], members[name][header_end:]
    members[name] = rng.choice(
        [
            lambda: _npy(np.full(7, np.nan)),
            lambda: _npy(np.full((2, 3), np.inf, np.float32)),
            lambda: _npy(np.array(-(2**62))),
            lambda: _npy(np.array([[2**31]])),
            lambda: _npy(np.zeros(0)),
            lambda: _npy(np.array("{" * 40)),
            lambda: _npy(np.array('{"a": NaN}')),
            lambda: _npy(np.array(["x"] * 5)),
            lambda: _npy(np.zeros((1, 1, 1, 1, 1))),
            lambda: header.replace(b"'<", b"'>") + content,
            lambda: header.replace(b"i4", b"O4") + content,
            lambda: header.replace(b"(", b"(9999999999, ") + content,
            lambda: header.replace(b"(", b"((((") + content,
            lambda: header.replace(b"False", b"True ") + content,
            lambda: header + content[: len(content) // 2],
            lambda: header + content + b"\0" * 9,
            lambda: header + bytes(rng.randrange(256) for _ in content[:4096]) + content[4096:],
            lambda: header + b"\xff" * len(content),
            lambda: _BOMB,
        ]
    )()
    if rng.random() < 0.1:
        del members[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, stored in members.items():
            if stored is not _BOMB:
                archive.writestr(each, stored)
                continue
            with archive.open(each, "w") as stream:
                for _ in range(_BOMB_MIB):
                    stream.write(bytes(2**20))
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# --- one run


@contextmanager
def _bounded_time() -> Iterator[None]:
    def stop(*_: Any) -> NoReturn:
        raise TimeoutError(f"more than {MAX_SECONDS} s")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)  # CPU time: other programs do not count
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _address_space() -> int:
    text = Path("/proc/self/statm").read_text()
    return int(text.split()[0]) * resource.getpagesize()


@contextmanager
def _bounded_memory() -> Iterator[None]:
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MAX_GROWTH_BYTES, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def _offer(read: Read, mutant: bytes) -> tuple[str, str]:
    """How a reader takes a mutant: "read" or "refused", or "raw" and what it raised instead."""
    try:
        with _bounded_memory(), _bounded_time():
            read(mutant)
    except SegvigenError as err:
        return "refused", type(err).__name__
    except BaseException as err:
        where = traceback.extract_tb(err.__traceback__)[-1]
        return "raw", f"{type(err).__name__}: {str(err)[:120]} at {where.filename}:{where.lineno}"
    return "read", ""


def _is_refused_by_hash(mutant: bytes, good: bytes) -> bool:
    try:
        checked_reads.fetch_checked(lambda: mutant, "mutant", hashlib.sha256(good).hexdigest())
    except BlobDamaged:
        return True
    return False


def run(seed: int, count: int) -> dict[str, Any]:
    """Offer `count` mutants; returns counts by reader, raw errors with their blob, and maxima."""
    rng = random.Random(seed)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    raw: dict[str, str] = {}
    believed, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        blobs = make_blobs(Path(folder))
        for good, read in blobs.values():
            read(good)
        goods = [good for good, _ in blobs.values() if len(good) < 100_000]
        names = sorted(blobs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for number in range(count):
            name = names[number % len(names)]
            good, read = blobs[name]
            mutant = mutate(good, rng, goods)
            believed += not _is_refused_by_hash(mutant, good)
            begin = time.process_time()
            kind, what = _offer(read, mutant)
            slowest = max(slowest, time.process_time() - begin)
            counts[name][kind] += 1
            if kind == "raw":
                raw[f"{name} mutant {number}"] = what
    return {
        "mutants": count,
        "believed_by_hash": believed,
        "by_reader": counts,
        "raw": raw,
        "slowest_s": round(slowest, 3),
        "peak_growth_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
    }


if __name__ == "__main__":
    checked_reads.RETRY_DELAYS_S = ()
    logging.disable(logging.CRITICAL)
    json.dump(run(int(sys.argv[1]), int(sys.argv[2])), sys.stdout, indent=1)
