"""Colours of untrusted files as bytes, whatever type and range they were written in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.types import ByteArray, FloatArray

# Floats above this are no fractions that overshoot (a tone mapper's 1.05), but of 0-255.
MAX_FRACTION = 2.0
WIDE_RANGES = (255.0, 65535.0, 4294967295.0)


def scale_colors(channels: NDArray[Any], is_integer: bool) -> ByteArray:
    """Give colours as bytes.

    Args:
        channels: (N, 3) or (N, 4) of any number type: red, green, blue and perhaps alpha.
        is_integer: whether the file declares them as whole numbers.

    Returns:
        (N, 4) uint8. Floats are fractions when none is above 1. All others are of the smallest
        range 0-255, 0-65535 or 0-4294967295 that holds them. NaN is read as white, and no alpha
        as opaque.
    """
    colors: ByteArray = np.full((len(channels), 4), 255, dtype=np.uint8)
    values = channels.astype(np.float64)
    if is_integer:
        is_integer = not (values % 1.0).any()  # declared so, but written as fractions
        values = np.where((values < 0) & (values >= -128), values + 256, values)  # signed bytes
    whole = _find_range(values[:, :3], is_integer)
    colors[:, :3] = _to_bytes(values[:, :3], whole)
    if values.shape[1] > 3:
        own = _find_range(values[:, 3:], is_integer)
        # Alpha may be a fraction beside colours of 0-255, but has no wider range than they.
        colors[:, 3:] = _to_bytes(values[:, 3:], own if own == 1.0 else max(own, whole))
    return colors


def _find_range(values: FloatArray, is_integer: bool) -> float:
    finite = values[np.isfinite(values)]
    top = float(finite.max(initial=0.0))
    if not is_integer and (top <= 1.0 or (top <= MAX_FRACTION and (finite % 1.0).any())):
        return 1.0
    return next((whole for whole in WIDE_RANGES if top <= whole), top)


def _to_bytes(values: FloatArray, whole: float) -> ByteArray:
    scaled = np.nan_to_num(values / whole, nan=1.0)
    result: ByteArray = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    return result
