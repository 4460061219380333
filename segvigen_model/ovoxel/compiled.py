"""The compiler for this folder's kernels: native code, cached on disk.

numba's cache only looks at the file that holds a kernel, while these kernels call each other
across files: after a change of one file, callers in the others would go on with the old code. The
stamp of every cache here is therefore made of all the folder's sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


def compile_jit(function: Callable[..., Any]) -> Any:
    """Compile a function for its argument types on first use; it runs without the GIL."""
    kernel = numba.njit(cache=True, nogil=True)(function)
    # No public way exists; where numba changes this, caching falls back to its own stamp.
    cache_file = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        cache_file._source_stamp = _hash_sources()
    return kernel


@cache
def _hash_sources() -> str:
    """Hash of the folder's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
