"""Compression of single .vxz streams, with the output size bounded before it is taken."""

from __future__ import annotations

import lzma
import zlib
from typing import Any

from segvigen_model.errors import MissingExtra, SegvigenError

COMPRESSIONS = ("lzma", "deflate", "zstd", "none")
LZMA_LEAST, LZMA_MOST = 1 << 12, 1 << 26  # smallest dictionary there is, and preset 9's
LEVELS = {"lzma": 9, "deflate": 9, "zstd": 22, "none": 0}  # official


class CorruptVxz(SegvigenError):
    """A .vxz file that cannot be read."""


def compress(data: bytes, compression: str, level: int) -> bytes:
    """Compress one stream; no container, as the format wants it."""
    if compression == "lzma":
        return lzma.compress(
            data, format=lzma.FORMAT_RAW, filters=_make_lzma_filters(level, len(data))
        )
    if compression == "deflate":
        deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
        return deflate.compress(data) + deflate.flush()
    if compression == "zstd":
        packed: bytes = _import_zstd().ZstdCompressor(level=level).compress(data)
        return packed
    return data


def decompress(data: bytes, compression: str, max_size: int) -> bytes:
    """Undo `compress`.

    Args:
        data: one stream.
        compression: one of COMPRESSIONS.
        max_size: more output than this is an error, found before it is allocated.

    Raises:
        CorruptVxz: bad data, or too much of it.
    """
    try:
        plain = _decompress_limited(data, compression, max_size)
    except (lzma.LZMAError, zlib.error, EOFError, ValueError) as err:
        raise CorruptVxz(f"a {compression} stream of {len(data)} bytes is damaged: {err}") from err
    if len(plain) > max_size:
        raise CorruptVxz(f"a {compression} stream holds more than the {max_size} bytes announced")
    return plain


def _make_lzma_filters(level: int, size: int) -> list[dict[str, int]]:
    # The preset's own dictionary costs hundreds of megabytes per stream, for streams of kilobytes;
    # one as long as the data finds the same matches.
    dictionary = min(max(size, LZMA_LEAST), LZMA_MOST)
    return [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary}]


def _decompress_limited(data: bytes, compression: str, max_size: int) -> bytes:
    if compression == "lzma":
        decoder = lzma.LZMADecompressor(
            format=lzma.FORMAT_RAW, filters=_make_lzma_filters(9, max_size)
        )
        return decoder.decompress(data, max_length=max_size + 1)
    if compression == "deflate":
        return zlib.decompressobj(-15).decompress(data, max_size + 1)
    if compression == "zstd":
        return _expand_zstd(data, max_size)
    return data


def _expand_zstd(data: bytes, max_size: int) -> bytes:
    zstd = _import_zstd()
    try:
        # The library takes the announced size at once, so it is checked first.
        announced = zstd.frame_content_size(data)
        if announced < 0 or announced > max_size:
            raise CorruptVxz(f"a zstd stream announces {announced} bytes, not up to {max_size}")
        plain: bytes = zstd.ZstdDecompressor().decompress(data)
    except zstd.ZstdError as err:
        raise CorruptVxz(f"a zstd stream of {len(data)} bytes is damaged: {err}") from err
    return plain


def _import_zstd() -> Any:
    try:
        import zstandard
    except ImportError as err:
        raise MissingExtra("zstandard", "pip install zstandard") from err
    return zstandard
