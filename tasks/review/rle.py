"""Masks in Label Studio's brush encoding: run lengths of RGBA bytes, packed bit by bit.

Only what a preview needs: every run is written as a run (never as literal bytes) with one width,
so that packing is a few array operations.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.types import BoolArray, ByteArray, IntArray

CHANNELS = 4
WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)  # widths that the header offers for run lengths
MAX_RUN = 2 ** RUN_BITS[-1]  # bytes in one run
OPAQUE = 255


def mask_to_rle(mask: BoolArray) -> list[int]:
    """Encode a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        Bytes as Label Studio stores them in `value.rle`; the mask is the alpha channel.
    """
    values, lengths = _find_runs(mask.reshape(-1))
    head = [_to_bits(np.array([mask.size * CHANNELS]), 32), _to_bits(np.array([WORD_BITS - 1]), 5)]
    head += [_to_bits(np.array([width - 1]), 4) for width in RUN_BITS]
    rows = [
        _to_bits(np.ones(len(values), np.int64), 1),
        _to_bits(np.full(len(values), len(RUN_BITS) - 1), 2),
        _to_bits(lengths - 1, RUN_BITS[-1]),
        _to_bits(np.where(values, OPAQUE, 0), WORD_BITS),
    ]
    stream = np.concatenate([*(bits.reshape(-1) for bits in head), np.hstack(rows).reshape(-1)])
    return [int(byte) for byte in np.packbits(stream)]


def rle_to_mask(rle: list[int], height: int, width: int) -> BoolArray:
    """Decode a mask that any program wrote in this encoding.

    Returns:
        (height, width) bool: the alpha channel is not zero.

    Raises:
        ValueError: the bytes do not hold a mask of this size.
    """
    bits = np.unpackbits(np.array(rle, np.uint8))
    count, place = _read_number(bits, 0, 32), 32
    word, place = _read_number(bits, place, 5) + 1, place + 5
    widths = [_read_number(bits, place + 4 * index, 4) + 1 for index in range(4)]
    place += 16
    if count != height * width * CHANNELS or word != WORD_BITS:
        raise ValueError(f"mask has {count} values of {word} bits, wanted {height}x{width}x4 of 8")
    out = np.zeros(count, np.uint8)
    filled = 0
    while filled < count:
        if place + 3 >= len(bits):
            raise ValueError(f"mask ends after {filled} of {count} values")
        is_run, size = bool(bits[place]), widths[_read_number(bits, place + 1, 2)]
        length = _read_number(bits, place + 3, size) + 1
        place += 3 + size
        used = WORD_BITS if is_run else WORD_BITS * length
        data = np.packbits(bits[place : place + used])
        out[filled : filled + length] = data[0] if is_run else data
        place, filled = place + used, filled + length
    alpha: BoolArray = out.reshape(height, width, CHANNELS)[:, :, 3] > 0
    return alpha


def _find_runs(flat: BoolArray) -> tuple[BoolArray, IntArray]:
    """Values and lengths (in bytes of all channels, at most MAX_RUN) of equal stretches."""
    starts: IntArray = np.append(0, np.flatnonzero(np.diff(flat)) + 1)
    ends = np.append(starts[1:], len(flat))
    lengths = (ends - starts) * CHANNELS
    pieces = -(-lengths // MAX_RUN)
    values = np.repeat(flat[starts], pieces)
    cut = np.full(int(pieces.sum()), MAX_RUN, np.int64)
    cut[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * MAX_RUN
    return values, cut


def _to_bits(numbers: IntArray, width: int) -> ByteArray:
    """(N, width) uint8 of 0 and 1, highest bit first."""
    shifts = np.arange(width - 1, -1, -1)
    bits: ByteArray = ((numbers.astype(np.int64)[:, None] >> shifts) & 1).astype(np.uint8)
    return bits


def _read_number(bits: ByteArray, start: int, width: int) -> int:
    value = 0
    for bit in bits[start : start + width]:
        value = value * 2 + int(bit)
    return value
