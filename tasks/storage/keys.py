"""Every object key of the store, in one place.

A key is made of checked words only, so that an untrusted name can never climb out of its folder.
No key is ever a prefix folder of another one: some S3 servers cannot hold both.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from segvigen_model.errors import SegvigenError

REVIEW_DIGEST_CHARS = 8
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNSTORABLE = re.compile(r"[\x00-\x1f\ud800-\udfff\\]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class BadKey(SegvigenError):
    """A key that may not be used in the store."""


def check_key(key: str) -> str:
    """Return `key` unchanged if it is safe below a root, else raise BadKey."""
    parts = key.split("/")
    if _SURROGATE.search(key):
        raise BadKey(f"key {key[:80]!r} is no UTF-8; rename it")
    if not key or "\\" in key or any(ord(char) < 32 for char in key):
        raise BadKey(f"key {key[:80]!r} is empty or has control characters or a backslash")
    if any(part in ("", ".", "..") for part in parts):
        raise BadKey(f"key {key[:80]!r} has an empty, '.' or '..' segment; use a relative path")
    return key


def spelled(key: str) -> str:
    """Spell any key so that a database can hold it; those that may be used stay as they are."""
    return _UNSTORABLE.sub(lambda found: ascii(found[0])[1:-1], key)


def unread_id(key: str, etag: str) -> str:
    """Id of an asset whose bytes could not be read; of the form of any asset's id."""
    return hashlib.sha256(f"unread:{spelled(key)}:{etag}".encode()).hexdigest()


def asset_source(asset_id: str, suffix: str) -> str:
    """Key of the untouched source file; `suffix` with its dot, e.g. ".glb"."""
    return f"assets/{_word(asset_id)}/source.{_word(suffix.lower().removeprefix('.'))}"


def asset_side_file(asset_id: str, relative: str) -> str:
    """Key of a file that the source names (glTF buffer, MTL, texture), by its relative path."""
    return check_key(f"assets/{_word(asset_id)}/side/{PurePosixPath(relative)}")


def asset_json(asset_id: str) -> str:
    """Key of what ingest found out about the asset."""
    return f"assets/{_word(asset_id)}/asset.json"


def encoding(encoder: str, asset_id: str) -> str:
    """Key of an encoding; `encoder` names checkpoint and grid, so other weights never collide."""
    return f"encodings/{_word(encoder)}/{_word(asset_id)}.safetensors"


def proposal(asset_id: str, round_: int, digest: str) -> str:
    """Key of one round's proposal; `digest` is the hash of what it was made from."""
    return f"proposals/{_word(asset_id)}/{_number(round_)}-{_word(digest)}.npz"


def review_sheet(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the contact sheet that the reviewer sees."""
    return f"{_review_folder(asset_id, round_, proposal_sha256)}/sheet.png"


def review_buffers(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the buffers that map sheet pixels to faces."""
    return f"{_review_folder(asset_id, round_, proposal_sha256)}/buffers.npz"


def review_viewer(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the single-file 3D viewer."""
    return f"{_review_folder(asset_id, round_, proposal_sha256)}/viewer.html"


def _review_folder(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Folder of one round's files; a round that is proposed again differently gets another."""
    digest = _word(proposal_sha256[:REVIEW_DIGEST_CHARS])
    return f"review/{_word(asset_id)}/{_number(round_)}-{digest}"


def label_set(asset_id: str, label_id: str) -> str:
    """Key of an accepted label set's arrays."""
    return f"labels/{_word(asset_id)}/{_word(label_id)}.npz"


def label_provenance(asset_id: str, label_id: str) -> str:
    """Key of an accepted label set's provenance."""
    return f"labels/{_word(asset_id)}/{_word(label_id)}.json"


def known_labels(asset_id: str) -> str:
    """Key of the right labels of a task that quality control knows; the desk cannot read it."""
    return f"quality/{_word(asset_id)}/labels.npz"


def shard_folder(dataset: str, version: str) -> str:
    """Folder of one immutable version of a dataset."""
    return f"shards/{_word(dataset)}/{_word(version)}"


def shard(dataset: str, version: str, number: int) -> str:
    """Key of one tar file of a dataset version."""
    return f"{shard_folder(dataset, version)}/shard-{number:06d}.tar"


def shard_index(dataset: str, version: str) -> str:
    """Key of the byte-range index of a dataset version."""
    return f"{shard_folder(dataset, version)}/index.jsonl"


def shard_manifest(dataset: str, version: str) -> str:
    """Key of the manifest; written last: the version is finished when it exists."""
    return f"{shard_folder(dataset, version)}/manifest.json"


def checkpoint_folder(version: str) -> str:
    """Folder of one tuned checkpoint."""
    return f"checkpoints/{_word(version)}"


def checkpoint_file(version: str, name: str) -> str:
    """Key of one of its files."""
    return f"{checkpoint_folder(version)}/{_word(name)}"


def review_key(asset_id: str, round_: int) -> str:
    """Name of a review task in Label Studio (data.key); not an object key."""
    return f"{_word(asset_id)}:{_number(round_)}"


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise BadKey(f"{text[:80]!r} cannot stand in a key; use letters, digits, '.', '_' and '-'")
    return text


def _number(value: int) -> int:
    if value < 0:
        raise BadKey(f"round {value} is negative")
    return int(value)


def drawn(purpose: str, asset_id: str) -> float:
    """Chance that never changes: 0..1 by the asset and what it is drawn for."""
    digest = hashlib.sha256(f"{purpose}:{asset_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
