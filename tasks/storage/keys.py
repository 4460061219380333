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
VERSION_MARK = "?versionId="  # s3fs reads the rest of such a key as a version of another object
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
    if VERSION_MARK in key:
        raise BadKey(
            f"key {key[:80]!r} has {VERSION_MARK!r}, which clients of S3 cut off; rename it"
        )
    return key


def escape_key(key: str) -> str:
    """Spell any key so that a database can hold it; those that may be used stay as they are."""
    return _UNSTORABLE.sub(lambda found: ascii(found[0])[1:-1], key)


def unread_id(key: str, etag: str) -> str:
    """Id of an asset whose bytes could not be read; of the form of any asset's id."""
    return hashlib.sha256(f"unread:{escape_key(key)}:{etag}".encode()).hexdigest()


def make_asset_source_key(asset_id: str, suffix: str) -> str:
    """Key of the untouched source file; `suffix` with its dot, e.g. ".glb"."""
    return f"assets/{_check_word(asset_id)}/source.{_check_word(suffix.lower().removeprefix('.'))}"


def make_mesh_key(asset_id: str) -> str:
    """Key of the parsed mesh in its canonical form; all stages but ingest read this one."""
    return f"assets/{_check_word(asset_id)}/mesh.safetensors"


def make_side_file_key(asset_id: str, relative: str) -> str:
    """Key of a file that the source names (glTF buffer, MTL, texture), by its relative path."""
    return check_key(f"assets/{_check_word(asset_id)}/side/{PurePosixPath(relative)}")


def make_asset_json_key(asset_id: str) -> str:
    """Key of what ingest found out about the asset."""
    return f"assets/{_check_word(asset_id)}/asset.json"


def make_encoding_key(encoder: str, asset_id: str) -> str:
    """Key of an encoding; `encoder` names checkpoint and grid, so other weights never collide."""
    return f"encodings/{_check_word(encoder)}/{_check_word(asset_id)}.safetensors"


def make_proposal_key(asset_id: str, round_: int, digest: str) -> str:
    """Key of one round's proposal; `digest` is the hash of what it was made from."""
    return f"proposals/{_check_word(asset_id)}/{_check_number(round_)}-{_check_word(digest)}.npz"


def make_review_sheet_key(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the contact sheet that the reviewer sees."""
    return f"{_make_review_folder(asset_id, round_, proposal_sha256)}/sheet.png"


def make_review_buffers_key(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the buffers that map sheet pixels to faces."""
    return f"{_make_review_folder(asset_id, round_, proposal_sha256)}/buffers.npz"


def make_review_viewer_key(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Key of the single-file 3D viewer."""
    return f"{_make_review_folder(asset_id, round_, proposal_sha256)}/viewer.html"


def _make_review_folder(asset_id: str, round_: int, proposal_sha256: str) -> str:
    """Folder of one round's files; a round that is proposed again differently gets another."""
    digest = _check_word(proposal_sha256[:REVIEW_DIGEST_CHARS])
    return f"review/{_check_word(asset_id)}/{_check_number(round_)}-{digest}"


def make_label_set_key(asset_id: str, label_id: str) -> str:
    """Key of an accepted label set's arrays."""
    return f"labels/{_check_word(asset_id)}/{_check_word(label_id)}.npz"


def make_label_provenance_key(asset_id: str, label_id: str) -> str:
    """Key of an accepted label set's provenance."""
    return f"labels/{_check_word(asset_id)}/{_check_word(label_id)}.json"


def make_gold_labels_key(asset_id: str) -> str:
    """Key of a gold task's labels; Label Studio cannot read it."""
    return f"quality/{_check_word(asset_id)}/labels.npz"


def make_shard_folder(dataset: str, version: str) -> str:
    """Folder of one immutable version of a dataset."""
    return f"shards/{_check_word(dataset)}/{_check_word(version)}"


def make_shard_key(dataset: str, version: str, number: int) -> str:
    """Key of one tar file of a dataset version."""
    return f"{make_shard_folder(dataset, version)}/shard-{number:06d}.tar"


def make_shard_index_key(dataset: str, version: str) -> str:
    """Key of the byte-range index of a dataset version."""
    return f"{make_shard_folder(dataset, version)}/index.jsonl"


def make_shard_manifest_key(dataset: str, version: str) -> str:
    """Key of the manifest; written last: the version is finished when it exists."""
    return f"{make_shard_folder(dataset, version)}/manifest.json"


def make_checkpoint_folder(version: str) -> str:
    """Folder of one tuned checkpoint."""
    return f"checkpoints/{_check_word(version)}"


def make_checkpoint_file_key(version: str, name: str) -> str:
    """Key of one of its files."""
    return f"{make_checkpoint_folder(version)}/{_check_word(name)}"


def make_review_key(asset_id: str, round_: int) -> str:
    """Name of a review task in Label Studio (data.key); not an object key."""
    return f"{_check_word(asset_id)}:{_check_number(round_)}"


def _check_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise BadKey(f"{text[:80]!r} cannot stand in a key; use letters, digits, '.', '_' and '-'")
    return text


def _check_number(value: int) -> int:
    if value < 0:
        raise BadKey(f"round {value} is negative")
    return int(value)


def hash_uniform(purpose: str, asset_id: str) -> float:
    """Hash an asset and a purpose to a uniform number, 0..1, that never changes."""
    digest = hashlib.sha256(f"{purpose}:{asset_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
