"""Push and pull against the real Label Studio and a real S3 server."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.catalogue import AssetState
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review import client as client_module
from tasks.review.project import open_project
from tasks.review.scripted_reviewer import ScriptedReviewer, find_wrong_spots, make_annotation


def change_annotation(client, number, changes):
    client.request("PATCH", f"/api/annotations/{number}/", body=changes)


def merge_parts(labels):
    """Part 1 shown as a piece of part 0."""
    return np.where(labels == 1, 0, labels)


def test_opening_the_project_twice_changes_nothing(review_env):
    environment = review_env
    again = open_project(environment.settings.review, environment.settings.store)
    assert again.project_id == environment.project.project_id
    params = {"project": again.project_id}
    storages = again.client.request("GET", "/api/storages/s3/", params=params)
    assert [row["presign"] for row in storages] == [False]


def test_webhook_follows_a_new_address_and_token(review_env):
    environment = review_env
    for url, token in (("http://127.0.0.1:9/a", "one"), ("http://127.0.0.1:9/b", "two")) * 2:
        review = environment.settings.review.model_copy(
            update={
                "webhook_url": url,
                "webhook_token": type(environment.settings.review.api_key)(token),
            }
        )
        open_project(review, environment.settings.store)
    params = {"project": environment.project.project_id}
    hooks = environment.project.client.request("GET", "/api/webhooks/", params=params)
    assert [(row["url"], row["headers"]) for row in hooks] == [
        ("http://127.0.0.1:9/b", {"X-Segvigen-Token": "two"})
    ]


def test_push_twice_makes_one_task_with_a_sheet_that_label_studio_serves(review_env):
    environment = review_env
    asset = environment.add_proposed("chair", 1)
    (result,) = environment.push()
    assert result.is_done, result
    assert environment.push() == []
    environment.catalogue.move(
        asset.asset_id, AssetState.PROPOSED
    )  # as if the record had been lost
    (again,) = environment.push()
    assert again.is_done
    (task_id,) = environment.list_task_ids(asset)
    assert environment.catalogue.reviews.get_task(asset.asset_id, 0).task_id == task_id
    data = environment.project.client.request("GET", f"/api/tasks/{task_id}/")["data"]
    client = environment.project.client
    sheet = client._http.get(data["sheet"], headers=client._get_authorization())
    assert sheet.status_code == 200 and sheet.content.startswith(b"\x89PNG")


def test_push_killed_between_import_and_record_leaves_one_task(review_env, monkeypatch):
    environment = review_env
    asset = environment.add_proposed("table", 2)

    class Killed(BaseException):
        pass

    def die(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(environment.catalogue.reviews, "add_task", die)
        with pytest.raises(Killed):
            environment.push()
    assert environment.get_state(asset) is AssetState.PROPOSED
    environment.catalogue.release([asset.asset_id], "tester")
    # A reviewer may answer before the push is done again: the answer waits.
    (task_id,) = environment.list_task_ids(asset)
    environment.project.client.create_annotation(
        task_id, make_annotation("accept", [], "", (768, 512))
    )
    assert environment.pull() == []
    environment.push()
    assert environment.list_task_ids(asset) == [task_id]
    (reply,) = environment.pull()
    assert reply.state is AssetState.ACCEPTED


def test_duplicate_tasks_are_repaired_and_the_answered_one_kept(review_env):
    environment = review_env
    asset = environment.add_proposed("lamp", 3)
    environment.push()
    (task_id,) = environment.list_task_ids(asset)
    data = environment.project.client.request(
        "GET", f"/api/tasks/{task_id}/", params={"resolve_uri": "false"}
    )["data"]
    (copy,) = environment.project.client.import_tasks(
        environment.project.project_id, [{"data": data}]
    )
    environment.project.client.create_annotation(
        copy, make_annotation("reject", [], "no", (768, 512))
    )
    environment.catalogue.move(asset.asset_id, AssetState.PROPOSED)
    environment.push()
    assert environment.list_task_ids(asset) == [copy]


def test_refine_brings_clicks_on_the_right_faces_and_pull_is_idempotent(review_env):
    environment = review_env
    asset = environment.add_proposed("chair", 4, merge_parts)
    environment.push()
    buffers = buffers_from_bytes(
        environment.store.get(environment.catalogue.reviews.get_task(asset.asset_id, 0).buffers_key)
    )
    truth = environment.truth[asset.asset_id]
    spots = find_wrong_spots(buffers, truth, 3)
    assert spots
    (task_id,) = environment.list_task_ids(asset)
    annotation = make_annotation("refine", spots, "part 1 is missing", buffers.size)
    stored = environment.project.client.create_annotation(task_id, annotation)
    (reply,) = environment.pull()
    assert (reply.verdict, reply.state, reply.num_clicks) == (
        "refine",
        AssetState.REFINING,
        len(spots),
    )
    assert environment.pull() == []
    clicks = environment.catalogue.reviews.list_clicks(asset.asset_id, 0)
    for spot, click in zip(spots, clicks, strict=True):
        assert click.face == buffers.face[spot.row, spot.column]
        assert click.label == spot.label
    (row,) = environment.catalogue.reviews.list_annotations(asset.asset_id)
    assert row.reviewer == "reviewer@local.test" and row.note == "part 1 is missing"
    assert row.raw["result"] == stored["result"]

    # The reviewer thinks again while the answer waits for the model: the newer version counts.
    changed = make_annotation("accept", [], "", buffers.size)
    change_annotation(environment.project.client, stored["id"], {"result": changed["result"]})
    (second,) = environment.pull()
    assert second.state is AssetState.ACCEPTED
    assert environment.catalogue.reviews.list_clicks(asset.asset_id, 0) == []


def test_an_edit_between_pages_hides_no_other_task(review_env, monkeypatch):
    client, project = review_env.project.client, review_env.project.project_id
    data = [{"data": {"key": f"{n}:0", "sheet": "x", "title": "t"}} for n in range(7)]
    parts = {"parts": [], "viewer": "v"}
    ids = client.import_tasks(project, [{"data": {**row["data"], **parts}} for row in data])
    monkeypatch.setattr(client_module, "PAGE_SIZE", 2)
    found = []
    for task in client.list_tasks_updated_since(project, "1970-01-01T00:00:00Z"):
        found.append(task.task_id)
        if len(found) == 1:  # its page is read, the next one is not
            client.create_annotation(task.task_id, make_annotation("accept", [], "", (768, 512)))
    assert set(found) == set(ids)
    assert found.count(found[0]) == 2, "the edited one is seen again, with its answer"


def test_skip_reject_and_change_of_mind(review_env):
    environment = review_env
    skipped, rejected = environment.add_proposed("mug", 5), environment.add_proposed("hammer", 6)
    environment.push()
    client = environment.project.client
    client.create_annotation(
        environment.list_task_ids(skipped)[0], {"result": [], "was_cancelled": True}
    )
    no = make_annotation("reject", [], "broken", (768, 512))
    stored = client.create_annotation(environment.list_task_ids(rejected)[0], no)
    environment.pull()
    assert environment.get_state(skipped) is AssetState.SKIPPED
    parked = environment.catalogue.get_asset(rejected.asset_id)
    assert (parked.state, parked.reason, parked.detail) == (
        AssetState.REJECTED,
        "reviewer_rejected",
        "broken",
    )
    yes = make_annotation("accept", [], "", (768, 512))
    change_annotation(client, stored["id"], {"result": yes["result"]})
    environment.pull()
    assert environment.get_state(rejected) is AssetState.PROPOSED
    environment.push()
    environment.pull()
    assert environment.get_state(rejected) is AssetState.ACCEPTED


def test_what_is_tried_again_is_requested_again(review_env):
    environment = review_env
    skipped, rejected = environment.add_proposed("mug", 15), environment.add_proposed("hammer", 16)
    environment.push()
    client = environment.project.client
    client.create_annotation(
        environment.list_task_ids(skipped)[0], {"result": [], "was_cancelled": True}
    )
    no = make_annotation("reject", [], "broken", (768, 512))
    client.create_annotation(environment.list_task_ids(rejected)[0], no)
    environment.pull()
    assert client.list_open_tasks(environment.project.project_id) == []
    for asset in (skipped, rejected):
        environment.catalogue.retry(asset.asset_id)
    environment.push()
    opened = [task.task_id for task in client.list_open_tasks(environment.project.project_id)]
    assert sorted(opened) == sorted(
        environment.list_task_ids(skipped) + environment.list_task_ids(rejected)
    )
    assert environment.pull() == []
    for asset in (skipped, rejected):
        (task_id,) = environment.list_task_ids(asset)
        client.create_annotation(task_id, make_annotation("accept", [], "", (768, 512)))
    environment.pull()
    assert {environment.get_state(skipped), environment.get_state(rejected)} == {
        AssetState.ACCEPTED
    }


def test_refine_without_clicks_is_requested_again(review_env):
    environment = review_env
    asset = environment.add_proposed("bottle", 7)
    environment.push()
    (task_id,) = environment.list_task_ids(asset)
    empty = make_annotation("refine", [], "", (768, 512))
    environment.project.client.create_annotation(task_id, empty)
    (reply,) = environment.pull()
    assert (reply.state, reply.note) == (
        AssetState.IN_REVIEW,
        "no usable click or verb; asked again",
    )
    open_ids = [
        task.task_id
        for task in environment.project.client.list_open_tasks(environment.project.project_id)
    ]
    assert open_ids == [task_id]
    assert environment.pull() == []


def test_no_round_is_left_after_the_last(review_env):
    environment = review_env
    asset = environment.add_proposed("chair", 8, merge_parts)
    last = environment.settings.review.max_rounds - 1
    environment.catalogue.move(asset.asset_id, AssetState.IN_REVIEW)
    asset = environment.propose(asset, merge_parts(environment.truth[asset.asset_id]), last)
    environment.push()
    buffers = buffers_from_bytes(
        environment.store.get(
            environment.catalogue.reviews.get_task(asset.asset_id, last).buffers_key
        )
    )
    spots = find_wrong_spots(buffers, environment.truth[asset.asset_id], 2)
    annotation = make_annotation("refine", spots, "", buffers.size)
    (task,) = environment.project.client.list_open_tasks(environment.project.project_id)
    assert "last round" in task.data["title"]
    stored = environment.project.client.create_annotation(task.task_id, annotation)
    environment.pull()
    parked = environment.catalogue.get_asset(asset.asset_id)
    assert (parked.state, parked.reason) == (AssetState.REJECTED, "max_rounds")
    yes = make_annotation("accept", [], "", buffers.size)
    change_annotation(environment.project.client, stored["id"], {"result": yes["result"]})
    environment.pull()
    environment.push()
    environment.pull()
    assert environment.get_state(asset) is AssetState.ACCEPTED


def test_scripted_reviewer_accepts_refines_and_rejects(review_env):
    environment = review_env
    good, bad = (
        environment.add_proposed("table", 9),
        environment.add_proposed("chair", 10, merge_parts),
    )
    unwanted = environment.add_proposed("mug", 11)
    environment.push()
    reviewer = ScriptedReviewer(
        environment.project,
        environment.store,
        environment.truth,
        reject=frozenset({unwanted.asset_id}),
    )
    assert reviewer.step() == 3
    assert reviewer.step() == 0
    environment.pull()
    states = [environment.get_state(asset) for asset in (good, bad, unwanted)]
    assert states == [AssetState.ACCEPTED, AssetState.REFINING, AssetState.REJECTED]
    assert 0 < len(environment.catalogue.reviews.list_clicks(bad.asset_id)) <= 4
