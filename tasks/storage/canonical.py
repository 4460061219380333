"""JSON that is the same text for equal values: for hashing, comparing, and create-only writes."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from segvigen_model.errors import SegvigenError


class BadDocument(SegvigenError):
    """Stored JSON cannot be read, or is not of the form that its key requires."""


def canonical_json(value: Any) -> str:
    """One line: sorted keys, no spaces, ASCII; refuses NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_document(value: Any) -> bytes:
    """A file for people and programs: sorted keys, indented, ASCII, a line feed at the end."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def parse_json(data: bytes, name: str) -> Any:
    """Read JSON as these functions write it: UTF-8, no NaN.

    Args:
        data: the document.
        name: of the document, for the message.

    Raises:
        BadDocument: it is anything else.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise BadDocument(f"{name} is no JSON ({len(data)} bytes): {err}") from err


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
