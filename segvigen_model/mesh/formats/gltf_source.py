"""The outer layer of glTF: GLB chunks, the JSON and its references, URIs.

A URI is served only from inside the file (`data:`) or, for .gltf, from the given side files.
What browsers forgive is forgiven: zero bytes or spaces behind the JSON, `=` missing at the end of
base64, a whole number written as 3.0, a name that is not UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error

log = logging.getLogger(__name__)

CHUNK_JSON, CHUNK_BIN = 0x4E4F534A, 0x004E4942
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
MAX_WHOLE = 2**53  # beyond it JSON numbers are not exact, and no file has so many of anything
DATA_URI = re.compile(r"data:([^,]*),(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class GltfSource:
    """Parsed JSON and the bytes that it may refer to.

    Attributes:
        header: the JSON object.
        blob: the GLB's binary chunk, or None.
        side_files: name -> bytes; empty for GLB.
        is_binary: the file is a GLB, which must be complete in itself.
        buffers: by number, those that were requested: an inline one is decoded once.
        accessors: by number, those that were read: a shared one is read once.
        views: by number, those that had to be decompressed.
    """

    header: Mapping[str, Any]
    blob: bytes | None
    side_files: Mapping[str, bytes]
    is_binary: bool
    buffers: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)
    accessors: dict[int, NDArray[Any]] = field(default_factory=dict, compare=False, repr=False)
    views: dict[int, bytes] = field(default_factory=dict, compare=False, repr=False)


def open_glb(data: bytes) -> GltfSource:
    """Split a GLB into its JSON and its binary chunk."""
    if len(data) < 20:
        raise AssetRejected(
            "truncated", f"the GLB has {len(data)} bytes, its header alone needs 20; fetch it again"
        )
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise make_unreadable_error(f"GLB version {version} is not 2", "convert it to glTF 2.0")
    if length > len(data):
        raise AssetRejected(
            "truncated", f"the GLB says {length} bytes and has {len(data)}; fetch it again"
        )
    text, blob = None, None
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise AssetRejected(
                "truncated",
                f"a GLB chunk of {size} bytes at {offset} passes the end at {length}; fetch it "
                "again",
            )
        chunk = data[offset + 8 : offset + 8 + size]
        if text is None and kind == CHUNK_JSON:
            text = chunk
        elif blob is None and kind == CHUNK_BIN:
            blob = chunk
        offset += 8 + size
    if text is None:
        raise make_unreadable_error("the GLB has no JSON chunk")
    return GltfSource(parse_header(text), blob, {}, is_binary=True)


def parse_json(text: bytes) -> Any:
    """Parse JSON that may be padded with zero bytes or spaces, or begin with a mark of UTF-8.

    Raises:
        AssetRejected: unreadable.
    """
    content = text.rstrip(b"\x00 \t\r\n")
    try:
        return json.loads(_decode_json(content))
    except (ValueError, RecursionError) as err:
        raise make_unreadable_error(f"the glTF JSON does not parse: {err}") from err


def _decode_json(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        log.warning("glTF JSON is not UTF-8, odd bytes in names are replaced")
        return content.decode("utf-8-sig", "replace")


def parse_header(text: bytes) -> Mapping[str, Any]:
    """Parse the JSON of a glTF file and check its version."""
    header = parse_json(text)
    if not isinstance(header, dict) or not isinstance(header.get("asset"), dict):
        raise make_unreadable_error("the glTF JSON has no `asset` object")
    version = str(header["asset"].get("version", ""))
    if not re.match(r"2(\.|$)", version):
        raise make_unreadable_error(
            f"glTF version {version[:20]!r} is not 2.x", "convert it to glTF 2.0"
        )
    return header


def parse_whole(value: Any) -> int | None:
    """Give a whole number of the JSON, also when it is written as 3.0; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= MAX_WHOLE:  # also NaN
        return None
    return int(value) if value == int(value) else None


def get_item(source: GltfSource, kind: str, index: Any) -> Mapping[str, Any]:
    """Give `header[kind][index]`, or raise naming the broken reference."""
    items = source.header.get(kind, [])
    number = parse_whole(index)
    if number is None or not isinstance(items, list) or not 0 <= number < len(items):
        raise make_unreadable_error(f"glTF refers to {kind}[{str(index)[:20]}] that is not there")
    found = items[number]
    if not isinstance(found, dict):
        raise make_unreadable_error(f"glTF {kind}[{number}] is no object")
    return found


def read_count(owner: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """Give a whole number >= 0 from the JSON."""
    value = owner.get(key, default)
    number = parse_whole(value)
    if number is None or number < 0:
        raise make_unreadable_error(f"glTF {key} is {str(value)[:40]!r}, not a whole number >= 0")
    return number


def read_list(owner: Mapping[str, Any], key: str, what: str) -> list[Any]:
    """Give a list from the JSON, empty when it is absent."""
    value = owner.get(key, [])
    if not isinstance(value, list):
        raise make_unreadable_error(f"{what} has no list of {key}")
    return value


def check_mapping(value: Any) -> Mapping[str, Any]:
    """Give an object of the JSON, empty when it is absent or something else."""
    return value if isinstance(value, dict) else {}


def get_extension(owner: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Give an extension's object, or None where it is absent."""
    found = check_mapping(owner.get("extensions")).get(name)
    return found if isinstance(found, dict) else None


def is_required(source: GltfSource, extension: str) -> bool:
    """Whether the file cannot be read without an extension."""
    names = source.header.get("extensionsRequired")
    return isinstance(names, list) and extension in names


def read_uri(source: GltfSource, uri: Any) -> bytes:
    """Give the bytes behind a URI: inline data, or one of the given side files."""
    if not isinstance(uri, str):
        raise make_unreadable_error(f"glTF uri is {type(uri).__name__}, not text")
    inline = DATA_URI.match(uri)
    if inline:
        return _decode_data_uri(inline[1], inline[2])
    try:
        return get_side_file(unquote(uri), source.side_files, is_allowed=not source.is_binary)
    except AssetRejected as err:
        if err.reason == "missing_side_file" and uri in source.side_files:
            return source.side_files[uri]  # a name that has a percent sign itself
        raise


def _decode_data_uri(head: str, body: str) -> bytes:
    plain = unquote_to_bytes(body)
    if not head.lower().rstrip().endswith(";base64"):
        return plain
    packed = b"".join(plain.split()).rstrip(b"=").translate(_FROM_URL_SAFE)
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error as err:
        raise make_unreadable_error(f"glTF data URI does not decode: {err}") from err


def get_side_file(name: str, side_files: Mapping[str, bytes], *, is_allowed: bool = True) -> bytes:
    """Give one side file by the name that is written in the mesh file.

    Raises:
        AssetRejected: for a name that was not given: external_reference where it leads elsewhere
            (absolute, `..`, an address, or any name in a GLB), else missing_side_file.
    """
    whole = name.replace("\\", "/")
    clean = whole.strip()
    while clean.startswith("./"):
        clean = clean[2:]
    for spelling in (whole, clean):  # a name may begin with a space
        if is_allowed and spelling in side_files:
            return side_files[spelling]  # whoever gives it has looked where it comes from
    is_outside = clean.startswith(("/", "~")) or ":" in clean or ".." in clean.split("/")
    if is_outside or not is_allowed:
        raise AssetRejected(
            "external_reference",
            f"the file refers to {name[:120]!r} outside itself; embed it (GLB) or put it beside "
            "the file under a plain relative name",
        )
    raise AssetRejected(
        "missing_side_file",
        f"the file needs {name[:120]!r}; put it beside the mesh, or export one GLB",
    )
