"""A click comes in, a mask over all views goes out: the same again, and never a 500."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from label_studio_sdk.converter.brush import decode_rle

from deployments.refine_service.app import create_app
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import PartTable
from tasks.catalogue import AssetState, EditCommandRow
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.labelling.rounds import ReviewerInstructions, make_next_proposal
from tasks.live.session import make_model_click, parse_instructions
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.pixel_buffers import buffers_to_bytes
from tasks.storage.store import Store

LOGIN, STRANGER = ("label-studio", "live-secret"), ("label-studio", "wrong")


def request_preview(client, body) -> dict:
    """The one result of a request that must succeed."""
    got = client.post("/predict", json=body)
    assert got.status_code == 200, got.text
    (result,) = got.json()["results"]
    return result


def decode_faces(environment, about) -> np.ndarray:
    """Part ids as the viewer rebuilds them from a suggestion's meta."""
    labels = environment.shown.copy()
    for part, runs in about["parts"].items():
        end = 0
        for gap, length in zip(runs[::2], runs[1::2], strict=True):
            labels[end + gap : end + gap + length] = int(part)
            end += gap + length
    return labels


def test_a_click_lights_the_part_in_every_view(live_client, live_env):
    environment = live_env
    click = environment.make_keypoint("part 0", 1)
    result = request_preview(live_client, environment.make_body(click))
    brush, echo = result["result"]
    about = brush["meta"]["preview"]
    after = decode_faces(environment, about)
    width, height = environment.buffers.size
    pixels = np.array(decode_rle(brush["value"]["rle"])).reshape(height, width, 4)
    mask = pixels[:, :, 3] > 0
    wanted = (environment.buffers.face >= 0) & (after[environment.buffers.face] == about["part"])
    assert (mask == wanted).all()
    assert len(np.unique(environment.buffers.view[mask])) > 1, "seen in one view only"
    column, row = click["value"]["x"] / 100 * width, click["value"]["y"] / 100 * height
    assert mask[int(row), int(column)] and about["part"] == 0
    assert (brush["from_name"], brush["to_name"]) == ("preview", "sheet")
    assert 0 <= result["score"] <= 1
    assert echo["id"] != click["id"] and echo["value"]["keypointlabels"] == ["part 0"]
    assert (after != environment.shown).any()


def test_the_same_clicks_give_the_same_answer_from_memory(live_client, live_env):
    body = live_env.make_body(live_env.make_keypoint("new part", 2, name="same"))
    first = live_client.post("/predict", json=body)
    hits = read_metric(live_client, "segvigen_live_cache_hits_total")
    assert live_client.post("/predict", json=body).content == first.content
    assert read_metric(live_client, "segvigen_live_cache_hits_total") == hits + 1


def test_alt_click_takes_the_point_away_and_its_echo_remembers_that(live_client, live_env):
    environment = live_env
    click = environment.make_keypoint("part 1", 1, name="alt", is_positive=False)
    brush, echo = request_preview(live_client, environment.make_body(click))["result"]
    about = brush["meta"]["preview"]
    point = json.loads(echo["meta"]["text"][0])
    assert about["is_positive"] is False and point["is_positive"] is False
    after = decode_faces(environment, about)
    assert after[point["face"]] != about["part"], "the point still belongs to the part"


def test_earlier_clicks_of_the_draft_count(live_client, live_env):
    environment = live_env
    other = environment.make_keypoint("new part 2", 2, name="before")
    body = environment.make_body(environment.make_keypoint("part 0", 1, name="now"), saved=(other,))
    about = request_preview(live_client, body)["result"][0]["meta"]["preview"]
    num_shown = int(environment.shown.max()) + 1
    assert str(num_shown) in about["parts"], "the new part of the draft is not there"


def make_lines(*texts: str) -> dict:
    """Command lines as the draft holds them."""
    ends = {"from_name": "verbs", "to_name": "sheet", "type": "textarea"}
    return {"id": "lines", **ends, "value": {"text": list(texts)}}


def test_merges_and_splits_of_the_draft_count_as_in_the_next_round(
    live_client, live_env, open_live_session
):
    environment = live_env
    click = environment.make_keypoint("new part", 1, name="after verbs")
    message = make_lines("merge 3 2", "nonsense 4", "split 0 into 2", "name 3 legs")
    brush = request_preview(live_client, environment.make_body(click, saved=(message,)))["result"][
        0
    ]
    live = decode_faces(environment, brush["meta"]["preview"])
    merged = np.isin(environment.shown, (2, 3))
    assert set(live[merged]) == {3}, "merged parts go by the first that was named"
    assert len(np.unique(live[environment.shown == 0])) == 2, "the split is not there"

    session = open_live_session()
    asset = session.load(environment.key)
    reply = parse_instructions(asset, [click], [message], 100)
    rows = [
        EditCommandRow(
            "u", "t", v.number, asset.asset.asset_id, 0, "r", v.kind, v.parts, v.text, v.count
        )
        for v in reply.commands
    ]
    after = make_next_proposal(
        asset.shown,
        ReviewerInstructions(tuple(make_model_click(point) for point in reply.clicks), tuple(rows)),
        asset.mesh,
        session=session.segmenter.open(asset.mesh),
        seed=environment.settings.model.seed,
    )
    pairs = np.unique(np.stack([live, after.face_labels]), axis=1)
    assert pairs.shape[1] == after.num_parts == len(np.unique(live)), "another partition"


def test_without_a_context_nothing_is_stored(live_client, live_env):
    task = {"id": 1, "data": {"key": live_env.key}}
    for context in (None, {}):
        body = {"tasks": [task, task][:1], "params": {"context": context}}
        assert live_client.post("/predict", json=body).json()["results"] == []
    assert live_client.post("/predict", json={"tasks": [{}, {}]}).json()["results"] == []


def test_the_last_click_taken_back_shows_nothing(live_client, live_env):
    assert request_preview(live_client, live_env.make_body())["result"] == []


NAN = b'{"params": {"context": {"result": [NaN]}}, "tasks": [{}]}'


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "no JSON"),
        (b"[1]", 400, "send an object"),
        (NAN, 400, "NaN is no number"),
        (NAN.replace(b"NaN", b"1e999"), 400, "1e999 is no number"),
        (b'{"a":' * 100_000, 400, "no JSON"),
        (b'{"params": {"context": 3}, "tasks": [{}]}', 400, "params.context is int"),
        (b'{"params": {"context": {"a": 1}}, "tasks": []}', 400, "send exactly one"),
        (b'{"params": {"context": {"a": 1}}, "tasks": [7]}', 400, "the task is int"),
        (b'{"params": {"context": {"a": 1}}, "tasks": [{}]}', 400, "result is missing"),
        (b'{"params": {"context": {"result": [1]}}, "tasks": [{}]}', 400, "no clicks"),
        (b'{"params": {"context": {"result": []}}, "tasks": [{}]}', 404, "no data.key"),
    ],
)
def test_hostile_bodies_are_refused_with_a_reason(live_client, content, status, message):
    got = live_client.post("/predict", content=content)
    assert (got.status_code, message in got.json()["error"]) == (status, True), got.text


def test_too_much_is_refused(live_client, live_env):
    many = [live_env.make_keypoint("part 0", 1, name=f"m{number}") for number in range(101)]
    got = live_client.post("/predict", json=live_env.make_body(*many))
    assert got.status_code == 400 and "101 clicks > 100" in got.text
    got = live_client.post("/predict", content=b" " * (16 * 2**20 + 1))
    assert got.status_code == 413 and "too large" in got.text


@pytest.mark.parametrize(
    "change",
    [
        {"x": None},
        {"x": 10**400},
        {"y": -5},
        {"x": "12"},
        {"keypointlabels": ["part 999"]},
        {"x": 0.01, "y": 0.01},
    ],
)
def test_clicks_without_sense_are_reported(live_client, live_env, change):
    click = live_env.make_keypoint("part 0", 1, name=f"odd {change}")
    click["value"].update(change)
    got = live_client.post("/predict", json=live_env.make_body(click, key=live_env.key))
    # Earlier clicks of this task may still be good: then the odd one only has no answer.
    assert got.status_code in (200, 422), got.text
    if got.status_code == 200:
        assert got.json()["results"][0]["result"] == []
    else:
        assert "dropped" in got.json()["error"]


def test_foreign_and_finished_tasks_are_refused(live_client, live_env):
    click = live_env.make_keypoint("part 0", 1, name="foreign")
    unknown = f"{live_env.asset.asset_id}:7"
    for key in ("nonsense", "a:b", "../../etc:0", f"{'0' * 64}:0", unknown, "x:" + "9" * 5000):
        got = live_client.post("/predict", json=live_env.make_body(click, key=key))
        assert got.status_code == 404, (key[:20], got.text)


def is_ready(client):
    client.auth = LOGIN
    for _ in range(600):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError(client.get("/readyz").text)


def test_a_closed_task_gets_no_answer_from_memory(fresh_env, open_fresh_session):
    environment = fresh_env
    body = environment.make_body(environment.make_keypoint("part 0", 1))
    with TestClient(create_app(environment.settings, open_fresh_session)) as client:
        is_ready(client)
        assert request_preview(client, body)["result"]
        environment.open_catalogue().move(environment.asset.asset_id, AssetState.REFINING)
        got = client.post("/predict", json=body)
        assert (got.status_code, "round 0 is over" in got.text) == (409, True), got.text


def test_a_round_that_is_proposed_again_is_answered_anew(fresh_env, open_fresh_session):
    """Part 1 is joined to part 0: a click that joins it changes nothing any more."""
    environment = fresh_env
    catalogue, store = environment.open_catalogue(), Store.from_settings(environment.settings.store)
    old = catalogue.get_proposal(environment.asset.asset_id, 0)
    body = environment.make_body(environment.make_keypoint("part 0", 1))
    with TestClient(create_app(environment.settings, open_fresh_session)) as client:
        is_ready(client)
        before = request_preview(client, body)["result"][0]["meta"]["preview"]
        merged = np.where(environment.shown == 1, 0, environment.shown)
        merged = np.unique(merged, return_inverse=True)[1].astype(np.int32)
        proposal = load_proposal(store, old)
        count = int(merged.max()) + 1
        again = replace(
            proposal,
            face_labels=merged,
            part_confidence=np.ones(count, np.float32),
            parts=PartTable.plain(count),
        )
        blob = store.put("again.npz", proposal_to_bytes(again))
        sheet = render_sheet(load_asset_mesh(store, environment.asset), merged, width=512, meta={})
        store.put("review/again.npz", buffers_to_bytes(sheet.buffers))
        task = catalogue.reviews.get_task(environment.asset.asset_id, 0)
        catalogue.move(environment.asset.asset_id, AssetState.PROPOSED, round=0)
        row = replace(old, key=blob.key, sha256=blob.sha256, num_parts=count)
        catalogue.add_proposal(row)
        catalogue.reviews.add_task(replace(task, buffers_key="review/again.npz"))
        catalogue.move(environment.asset.asset_id, AssetState.IN_REVIEW)
        after = request_preview(client, body)["result"][0]["meta"]["preview"]
        assert after != before, "the old proposal was shown"
        assert read_metric(client, "segvigen_live_asset_loads_total") == 2

        def request_again(sha256):
            body["tasks"][0]["data"]["proposal_sha256"] = sha256
            return client.post("/predict", json=body)

        assert request_again(row.sha256).status_code == 200
        stale = request_again(old.sha256)
        assert (stale.status_code, "proposed again" in stale.text) == (409, True)


def test_more_clicks_than_count_are_cut_as_the_pull_cuts_them(fresh_env, open_fresh_session):
    environment = fresh_env
    review = environment.settings.review.model_copy(update={"max_clicks": 2})
    settings = environment.settings.model_copy(update={"review": review})
    a, b = (
        environment.make_keypoint("part 0", 1, name="a"),
        environment.make_keypoint("new part", 2, name="b"),
    )
    late = environment.make_keypoint("new part 2", 3, name="c")
    late.pop("is_positive")  # stands in the draft, after the others
    with TestClient(create_app(settings, open_fresh_session)) as client:
        is_ready(client)
        two = request_preview(client, environment.make_body(b, saved=(a,)))["result"][0]["meta"][
            "preview"
        ]
        three = request_preview(client, environment.make_body(late, saved=(a, b)))
        assert three["result"] == [], "the newest is cut, so it has no answer"
        again = request_preview(client, environment.make_body(b, saved=(a, b)))["result"][0][
            "meta"
        ]["preview"]
        assert again["parts"] == two["parts"], "a click that does not count moved faces"


def test_unauthorized_callers_learn_nothing(live_client, live_env):
    body = live_env.make_body(live_env.make_keypoint("part 0", 1))
    for path in ("/predict", "/setup"):
        assert live_client.post(path, json=body, auth=STRANGER).status_code == 401
        odd = {"Authorization": "Basic %%%"}
        live_client.auth, kept = None, live_client.auth
        try:
            assert live_client.post(path, json=body, headers=odd).status_code == 401
            assert live_client.post(path, json=body).status_code == 401
        finally:
            live_client.auth = kept


def read_metric(client, name: str) -> float:
    """Value of a metric without labels."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
