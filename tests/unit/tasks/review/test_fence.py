"""The fence around messages of Label Studio: what passes can be stored, the rest is reported."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.review.fence import (
    MAX_DEPTH,
    Unreadable,
    check_json,
    decode_json,
    dump_raw,
    read_id,
    read_mapping,
    read_seconds,
    read_time,
    split_key,
)

ASSET = "a" * 64


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"text": "a\0b"}, "NUL character at place 1"),
        (["x\ud800"], "half a surrogate pair"),
        ({"\udfff": 1}, "half a surrogate pair"),
        ({"x": math.nan}, "a number is nan"),
        ({"x": -math.inf}, "a number is -inf"),
        (nest(MAX_DEPTH + 1), "nested deeper"),
        (nest(100_000), "nested deeper"),
        (["x" * 2**22, "y"], "more than 4194304 characters"),
        ([0] * 200_001, "more than 200000 values"),
        ({1: 2}, "a name is int"),
        ({"x": {1, 2}}, "a value is set"),
    ],
)
def test_what_no_database_can_hold_is_refused(value: Any, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        check_json(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(ANYTHING)
@settings(max_examples=200, deadline=None)
def test_what_passes_is_strict_json_in_utf8(value: Any) -> None:
    try:
        check_json(value)
    except Unreadable:
        return
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    assert b"\0" not in text.encode() and json.loads(text) == value


@given(ANYTHING)
@settings(max_examples=100, deadline=None)
def test_the_quarantined_form_is_short_ascii(value: Any) -> None:
    shown = dump_raw(value, 50)
    assert shown.isascii() and "\0" not in shown and len(shown) < 100


def test_the_quarantined_form_of_what_has_none() -> None:
    assert dump_raw(nest(100_000), 99).startswith("<list that cannot")
    assert dump_raw({"x": {1}}, 99) == '{"x": "<set>"}'


@pytest.mark.parametrize(
    "key",
    [
        *("", ":", ":0", "0", f"{ASSET}:", f"{ASSET}:-1", f"{ASSET}:01", f"{ASSET}:1.0"),
        *(f"{ASSET}:²", f"{ASSET}:٣", f"{ASSET}:{10**30}", f"{ASSET}:{'9' * 5000}", f"{ASSET}:0\n"),
        *(f"{ASSET}:10000", f" {ASSET}:0", f"{'A' * 64}:0", f"{ASSET}a:0", "x\0y:0", "\ud800:0"),
        *(None, 7, ["a"], {}),
    ],
)
def test_odd_keys_are_none_of_ours(key: Any) -> None:
    with pytest.raises(Unreadable, match=r"not of this pipeline|round") as caught:
        split_key(key)
    assert str(caught.value).isascii()


def test_our_keys_are_read() -> None:
    assert split_key(f"{ASSET}:0") == (ASSET, 0)
    assert split_key(f"{ASSET}:9999") == (ASSET, 9999)


@pytest.mark.parametrize(
    "value", [None, "7", 1.0, True, -1, 2**31, 10**5000, []], ids=lambda each: type(each).__name__
)
def test_ids_that_no_column_holds(value: Any) -> None:
    with pytest.raises(Unreadable, match="id is"):
        read_id({"id": value})


@pytest.mark.parametrize(
    "value",
    [None, 1, "", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00 ", "9" * 41],
)
def test_times_that_are_none(value: Any) -> None:
    with pytest.raises(Unreadable, match=r"at is .*, not a time"):
        read_time({"at": value}, "at")


@pytest.mark.parametrize("value", ["abc", math.nan, math.inf, -1, True, 10**400, [1]])
def test_durations_that_are_none(value: Any) -> None:
    with pytest.raises(Unreadable, match="lead_time is"):
        read_seconds({"lead_time": value}, "lead_time")


def test_plain_values_are_read() -> None:
    assert read_seconds({}, "x") == 0.0 and read_seconds({"x": 2}, "x") == 2.0
    stamp = "2026-11-23T10:00:00.000000Z"
    assert read_time({"at": stamp}, "at") == stamp
    with pytest.raises(Unreadable, match="the task is list, not an object"):
        read_mapping([], "the task")


def test_a_number_of_absurd_length_spoils_no_page() -> None:
    page = decode_json('{"tasks": [1, ' + "9" * 5000 + "]}")
    assert page == {"tasks": [1, math.inf]}
    with pytest.raises(ValueError, match="nested too deep"):
        decode_json("[" * 200_000)
