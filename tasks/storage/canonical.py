"""JSON that is the same text for equal values: for hashing, comparing, and create-only writes."""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """One line: sorted keys, no spaces, ASCII; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_document(value: Any) -> bytes:
    """A file for people and programs: sorted keys, indented, ASCII, a line feed at the end."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
