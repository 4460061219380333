"""The fence around everything that comes from Label Studio: what is not plain JSON stays outside.

A message is checked before anything acts on it or stores it. What PostgreSQL cannot hold (NUL,
half a surrogate pair, NaN), what is nested or large beyond use, and what has the wrong type is
`Unreadable`, with a reason for people. One such message never stops the others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from segvigen_model.errors import SegvigenError

MAX_DEPTH = 32  # an annotation of the editor has 5 levels
MAX_TEXT_CHARS = 4 * 2**20  # of all texts of a message together
MAX_ITEMS = 200_000  # values of a message; 100 clicks have about 3,000
MAX_INT32 = 2**31 - 1
MAX_INT_DIGITS = 4000  # Python refuses to print more than 4,300
MAX_TIME_CHARS = 40  # as the catalogue's columns
MAX_ROUND = 9999
KEY = re.compile(r"[0-9a-f]{64}:(?:0|[1-9][0-9]{0,8})\Z", re.ASCII)
_BAD_TEXT = re.compile("[\x00\ud800-\udfff]")


class Unreadable(SegvigenError):
    """A message that cannot be used; the text says why."""


def check_json(value: Any) -> None:
    """Raise Unreadable unless a decoded JSON value can be stored and read everywhere."""
    num_items, num_chars = 0, 0
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        num_items += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels")
        if num_items > MAX_ITEMS:
            raise Unreadable(f"more than {MAX_ITEMS} values")
        if isinstance(each, str):
            num_chars += len(each)
            _check_text(each)
        elif isinstance(each, Mapping):
            for name in each:
                if not isinstance(name, str):
                    raise Unreadable(f"a name is {type(name).__name__}, not text")
                num_chars += len(name)
                _check_text(name)
            waiting.extend((inner, depth + 1) for inner in each.values())
        elif isinstance(each, list):
            waiting.extend((inner, depth + 1) for inner in each)
        elif isinstance(each, float):
            if not math.isfinite(each):
                raise Unreadable(f"a number is {each}")
        elif each is not None and not isinstance(each, (bool, int)):
            raise Unreadable(f"a value is {type(each).__name__}, which is no JSON")
        if num_chars > MAX_TEXT_CHARS:
            raise Unreadable(f"more than {MAX_TEXT_CHARS} characters")


def split_key(key: Any) -> tuple[str, int]:
    """Asset id and round of a task's `data.key`; Unreadable if it is none of the pipeline's."""
    if not isinstance(key, str) or not KEY.match(key):
        shown = str(key)[:40] if isinstance(key, str) else type(key).__name__
        raise Unreadable(f"key {shown!a} is not of this pipeline")
    asset_id, _, number = key.partition(":")
    if int(number) > MAX_ROUND:
        raise Unreadable(f"round {number} > {MAX_ROUND}")
    return asset_id, int(number)


def read_id(fields: Mapping[str, Any], name: str = "id") -> int:
    """A positive number that fits the catalogue's columns."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INT32:
        raise Unreadable(f"{name} is {_show(value)}, not a number up to {MAX_INT32}")
    return value


def read_time(fields: Mapping[str, Any], name: str) -> str:
    """A time as Label Studio writes it (ISO 8601), unchanged."""
    value = fields.get(name)
    try:
        if not isinstance(value, str) or len(value) > MAX_TIME_CHARS or not value.isascii():
            raise ValueError(name)
        datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError) as err:
        raise Unreadable(f"{name} is {_show(value)}, not a time") from err
    return value


def read_seconds(fields: Mapping[str, Any], name: str) -> float:
    """A duration; absent means 0."""
    value = fields.get(name)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unreadable(f"{name} is {_show(value)}, not seconds")
    if not 0 <= value < MAX_INT32:  # False for NaN
        raise Unreadable(f"{name} is {_show(value)}, not seconds")
    return float(value)


def read_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """An object; Unreadable for anything else."""
    if not isinstance(value, Mapping):
        raise Unreadable(f"{what} is {type(value).__name__}, not an object")
    return value


def decode_json(data: bytes | str) -> Any:
    """Decode JSON text; numbers of absurd length become infinite, which the fence refuses.

    Raises:
        ValueError: it is no JSON, or nested too deep for the decoder.
    """
    try:
        return json.loads(data, parse_int=_parse_int)
    except RecursionError as err:
        raise ValueError("nested too deep to be decoded") from err


def dump_raw(value: Any, max_chars: int) -> str:
    """A message as ASCII text for people, cut; never fails."""
    try:
        text = json.dumps(value, default=lambda other: f"<{type(other).__name__}>")
    except (ValueError, TypeError, RecursionError):
        text = f"<{type(value).__name__} that cannot be written as JSON>"
    if len(text) > max_chars:
        return f"{text[:max_chars]}... ({len(text)} characters)"
    return text


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) <= MAX_INT_DIGITS else math.inf


def _check_text(text: str) -> None:
    found = _BAD_TEXT.search(text)
    if found is not None:
        name = "a NUL character" if found.group() == "\x00" else "half a surrogate pair"
        raise Unreadable(f"a text has {name} at place {found.start()}")


def _show(value: Any) -> str:
    """A value in a reason: short and ASCII."""
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    return ascii(value)[:40] if isinstance(value, (str, int, float)) else type(value).__name__
