"""Compressed formats are refused outside a confined process, unless the caller allows it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.isolation import (
    NeedsIsolation,
    allow_decoding_here,
    require_isolation,
)

MARKED = """
from segvigen_model.mesh.formats.isolation import mark_isolated, require_isolation
mark_isolated()
require_isolation("Draco")
"""


def test_it_is_refused_here_and_names_the_way() -> None:
    with pytest.raises(AssetRejected, match=r"^needs_sandbox: Draco is decoded .* use load_mesh"):
        require_isolation("Draco")


def test_a_caller_may_allow_it_for_a_while() -> None:
    with allow_decoding_here():
        require_isolation("Draco")
    with pytest.raises(NeedsIsolation):
        require_isolation("Draco")


def test_a_confined_process_decodes() -> None:
    subprocess.run([sys.executable, "-c", MARKED], check=True, timeout=60)


def test_the_error_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(NeedsIsolation("KTX2")))
    assert (copy.reason, copy.what) == ("needs_sandbox", "KTX2")
