"""Hostile bodies to the refine service: refused with a status of its own, never a 500."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LOGIN = ("label-studio", "live-secret")
HEADER = {"X-Segvigen-Token": "0123456789abcdef", "Content-Type": "application/json"}
ODD = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
ODD |= st.sampled_from(["\0", "\ud800", "²", 10**400, 1e308, -1, [[]], ["part 0"], {"id": 1}])


@pytest.mark.parametrize(
    "key",
    ["x\0y:0", "\ud800:0", ":0", "a:²", "a" * 199 + ":0", f"{'a' * 64}:{'9' * 150}", "", "a" * 64],
)
def test_odd_keys_are_unknown_or_refused(live_client, live_env, key):
    body = live_env.make_body(live_env.make_keypoint("part 0", 1))
    body["tasks"][0]["data"]["key"] = key
    got = live_client.post("/predict", content=json.dumps(body), headers=HEADER)
    assert got.status_code in (400, 404), got.text
    assert live_client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        "[" * 200_000,
        '{"a":' * 40 + "1" + "}" * 40,
        '{"a":' + "9" * 6000 + "}",
        '{"a": NaN}',
        '{"a": "\\ud800"}',
        "<html>Log in</html>",
        b"\xff\xfe",
        '{"tasks": [{"data": {"key": "a:0"}}], "params": []}',
    ],
)
def test_odd_bodies_are_refused_or_empty(live_client, content):
    got = live_client.post("/predict", content=content, headers=HEADER)
    assert got.status_code in (200, 400), got.text
    woken = live_client.post("/webhook", content=content, headers=HEADER)
    assert woken.status_code == 200, "a webhook is a hint whatever it holds"


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_broken_request_is_never_an_error_of_the_service(live_client, live_env, data):
    body: Any = copy.deepcopy(live_env.make_body(live_env.make_keypoint("part 0", 1)))
    for _ in range(data.draw(st.integers(1, 2))):
        *path, name = data.draw(st.sampled_from(_list_places(body)))
        where: Any = body
        for step in path:
            where = where[step]
        where[name] = data.draw(ODD)
    got = live_client.post("/predict", content=json.dumps(body), headers=HEADER)
    assert got.status_code < 500 or got.status_code == 503, got.text


def _list_places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((*place, name))
        if isinstance(each, (dict, list)):
            found += _list_places(each, (*place, name))
    return found


def test_a_webhook_during_an_outage_of_the_catalogue_is_reported(live_client, monkeypatch):
    def refuse(*_args: Any) -> None:
        raise ConnectionError("server closed the connection")

    monkeypatch.setattr(live_client.app.state.catalogue.raw, "set_cursor", refuse)
    got = live_client.post("/webhook", json={"action": "ANNOTATION_CREATED"}, headers=HEADER)
    assert got.status_code == 503 and "catalogue" in got.text
