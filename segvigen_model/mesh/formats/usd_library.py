"""Pixar's library, used on memory alone: one layer from bytes, and the names that it holds.

A layer is read into an anonymous one, with all its values, so that nothing refers to a file. Text
is parsed as it is; the binary form is lent as a memory file (`scratch.py`), after its table of
sections was compared with the bytes that are there.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segvigen_model.errors import AssetRejected, strip_addresses
from segvigen_model.mesh.formats.extras import import_extra
from segvigen_model.mesh.formats.isolation import is_isolated, require_isolation
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.scratch import lend_file

USD_HINT = "pip install 'segvigen-pipeline[usd]'"
TEXT_MAGIC, BINARY_MAGIC = b"#usda", b"PXR-USDC"
LAYER_KINDS = ("usd", "usda", "usdc")
PACKAGE = "usdz"
USD_KINDS = (*LAYER_KINDS, PACKAGE)
# One thread, as everywhere; values are copied, not left in the file's pages; no word about both.
SETTINGS = {
    "PXR_WORK_THREAD_LIMIT": "1",
    "USDC_ENABLE_ZERO_COPY_ARRAYS": "0",
    "TF_ENV_SETTING_ALERTS_ENABLED": "0",
}
HEADER = struct.Struct("<8s8sq")  # magic, version, place of the table of sections
SECTION = struct.Struct("<16sqq")  # name, start, bytes
MAX_SECTIONS = 64
MAX_WORDS = 200  # characters of the library's message
ADDRESS = re.compile(r"anon:0x[0-9a-f]+:")
MESSAGE = re.compile(r": '(.*)'\s*$", re.DOTALL)


def import_usd(module: str) -> Any:
    """Import one module of `pxr`.

    Args:
        module: e.g. "UsdGeom".

    Raises:
        MissingExtra: usd-core is not installed.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return import_extra(f"pxr.{module}", "usd-core", USD_HINT)


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turn errors of the library into refusals.

    Args:
        what: what is read, for the message.
    """
    error = import_usd("Tf").ErrorException
    try:
        yield
    except AssetRejected:
        raise
    except (error, RuntimeError, TypeError, ValueError) as err:
        words = MESSAGE.search(str(err))
        text = shorten_message(words[1] if words else str(err))
        raise make_unreadable_error(f"{what} is not read: {text}") from err


def shorten_message(text: str) -> str:
    """The library's words in one line, without addresses."""
    return strip_addresses(ADDRESS.sub("", " ".join(text.split())))[:MAX_WORDS]


def open_layer(data: bytes, name: str) -> Any:
    """Read the bytes of one layer into an `Sdf.Layer` without file.

    Args:
        data: text or binary.
        name: for messages.

    Raises:
        AssetRejected: truncated or unreadable.
        MissingExtra: usd-core is not installed.
    """
    require_isolation("USD")
    sdf = import_usd("Sdf")
    label = f"USD layer {name[:80]!r}"
    with translate_errors(label):
        layer = sdf.Layer.CreateAnonymous("layer.usda")
        if data.startswith(BINARY_MAGIC):
            _check_sections(data)
            binary = sdf.Layer.CreateAnonymous("layer.usdc")
            with lend_file(data, is_isolated()) as path:
                is_read = binary.Import(path)
                if is_read:
                    layer.TransferContent(binary)
                del binary
        elif data.startswith(TEXT_MAGIC):
            if b"\0" in data:
                raise make_unreadable_error(f"{label} has zero bytes in its text")
            is_read = layer.ImportFromString(data.decode("utf-8", "replace"))
        else:
            raise make_unreadable_error(f"{label} starts with {data[:8]!r}, as no USD does")
    if not is_read:
        raise make_unreadable_error(f"{label} is damaged")
    return layer


def _check_sections(data: bytes) -> None:
    """Compare the table of sections with the bytes that are there."""
    size = len(data)
    start = HEADER.unpack_from(data)[2] if size >= HEADER.size else size
    if not HEADER.size <= start <= size - 8:
        raise _make_truncated_error(f"its table of sections is at {start} of {size} bytes")
    (count,) = struct.unpack_from("<q", data, start)
    if not 0 < count <= MAX_SECTIONS:
        raise make_unreadable_error(f"the USD announces {count} sections")
    if start + 8 + count * SECTION.size > size:
        raise _make_truncated_error(f"{count} sections are announced at {start} of {size} bytes")
    for number in range(count):
        name, first, length = SECTION.unpack_from(data, start + 8 + number * SECTION.size)
        if first < 0 or length < 0 or first + length > size:
            label = name.rstrip(b"\0").decode("ascii", "replace")
            raise _make_truncated_error(f"section {label!r} ends at {first + length} of {size}")


def _make_truncated_error(what: str) -> AssetRejected:
    return AssetRejected("truncated", f"the USD is cut off: {what}; fetch it again")


def list_asset_names(layer: Any) -> list[str]:
    """All different names of other files in a layer, in its order."""
    found: dict[str, None] = {}

    def note(name: str) -> str:
        found[name] = None
        return name

    import_usd("UsdUtils").ModifyAssetPaths(layer, note)
    return [name for name in found if name]


def replace_tile(name: str) -> str:
    """The first tile of a texture that comes in tiles."""
    return name.replace("<UDIM>", "1001")
