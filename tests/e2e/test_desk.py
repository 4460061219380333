"""Push and pull against the real Label Studio and a real S3 server."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.catalogue import AssetState
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.project import open_desk
from tasks.review.scripted_reviewer import ScriptedReviewer, annotation_for, wrong_spots


def merge_parts(labels):
    """Part 1 shown as a piece of part 0."""
    return np.where(labels == 1, 0, labels)


def test_opening_the_desk_twice_changes_nothing(desk_world):
    world = desk_world
    again = open_desk(world.settings.review, world.settings.store)
    assert again.project_id == world.desk.project_id
    params = {"project": again.project_id}
    storages = again.client.request("GET", "/api/storages/s3/", params=params)
    assert [row["presign"] for row in storages] == [False]


def test_webhook_follows_a_new_address_and_token(desk_world):
    world = desk_world
    for url, token in (("http://127.0.0.1:9/a", "one"), ("http://127.0.0.1:9/b", "two")) * 2:
        review = world.settings.review.model_copy(
            update={"webhook_url": url, "webhook_token": type(world.settings.review.api_key)(token)}
        )
        open_desk(review, world.settings.store)
    params = {"project": world.desk.project_id}
    hooks = world.desk.client.request("GET", "/api/webhooks/", params=params)
    assert [(row["url"], row["headers"]) for row in hooks] == [
        ("http://127.0.0.1:9/b", {"X-Segvigen-Token": "two"})
    ]


def test_push_twice_makes_one_task_with_a_sheet_that_label_studio_serves(desk_world):
    world = desk_world
    asset = world.proposed("chair", 1)
    (result,) = world.push()
    assert result.is_done, result
    assert world.push() == []
    world.catalogue.move(asset.asset_id, AssetState.PROPOSED)  # as if the record had been lost
    (again,) = world.push()
    assert again.is_done
    (task_id,) = world.tasks_of(asset)
    assert world.catalogue.reviews.task(asset.asset_id, 0).task_id == task_id
    data = world.desk.client.request("GET", f"/api/tasks/{task_id}/")["data"]
    client = world.desk.client
    sheet = client._http.get(data["sheet"], headers=client._authorization())
    assert sheet.status_code == 200 and sheet.content.startswith(b"\x89PNG")


def test_push_killed_between_import_and_record_leaves_one_task(desk_world, monkeypatch):
    world = desk_world
    asset = world.proposed("table", 2)

    class Killed(BaseException):
        pass

    def die(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(world.catalogue.reviews, "add_task", die)
        with pytest.raises(Killed):
            world.push()
    assert world.state(asset) is AssetState.PROPOSED
    world.catalogue.release([asset.asset_id], "tester")
    # A reviewer may answer before the push is done again: the answer waits.
    (task_id,) = world.tasks_of(asset)
    world.desk.client.create_annotation(task_id, annotation_for("accept", [], "", (768, 512)))
    assert world.pull() == []
    world.push()
    assert world.tasks_of(asset) == [task_id]
    (reply,) = world.pull()
    assert reply.state is AssetState.ACCEPTED


def test_duplicate_tasks_are_repaired_and_the_answered_one_kept(desk_world):
    world = desk_world
    asset = world.proposed("lamp", 3)
    world.push()
    (task_id,) = world.tasks_of(asset)
    data = world.desk.client.request(
        "GET", f"/api/tasks/{task_id}/", params={"resolve_uri": "false"}
    )["data"]
    (copy,) = world.desk.client.import_tasks(world.desk.project_id, [{"data": data}])
    world.desk.client.create_annotation(copy, annotation_for("reject", [], "no", (768, 512)))
    world.catalogue.move(asset.asset_id, AssetState.PROPOSED)
    world.push()
    assert world.tasks_of(asset) == [copy]


def test_refine_brings_clicks_on_the_right_faces_and_pull_is_idempotent(desk_world):
    world = desk_world
    asset = world.proposed("chair", 4, merge_parts)
    world.push()
    buffers = buffers_from_bytes(
        world.store.get(world.catalogue.reviews.task(asset.asset_id, 0).buffers_key)
    )
    truth = world.truth[asset.asset_id]
    spots = wrong_spots(buffers, truth, 3)
    assert spots
    (task_id,) = world.tasks_of(asset)
    answer = annotation_for("refine", spots, "part 1 is missing", buffers.size)
    stored = world.desk.client.create_annotation(task_id, answer)
    (reply,) = world.pull()
    assert (reply.verdict, reply.state, reply.num_clicks) == (
        "refine",
        AssetState.REFINING,
        len(spots),
    )
    assert world.pull() == []
    clicks = world.catalogue.reviews.clicks(asset.asset_id, 0)
    for spot, click in zip(spots, clicks, strict=True):
        assert click.face == buffers.face[spot.row, spot.column]
        assert click.label == spot.label
    (row,) = world.catalogue.reviews.annotations(asset.asset_id)
    assert row.reviewer == "reviewer@local.test" and row.note == "part 1 is missing"
    assert row.raw["result"] == stored["result"]

    # The reviewer thinks again while the answer waits for the model: the newer version counts.
    changed = annotation_for("accept", [], "", buffers.size)
    world.desk.client.update_annotation(stored["id"], {"result": changed["result"]})
    (second,) = world.pull()
    assert second.state is AssetState.ACCEPTED
    assert world.catalogue.reviews.clicks(asset.asset_id, 0) == []


def test_an_edit_between_pages_hides_no_other_task(desk_world, monkeypatch):
    client, project = desk_world.desk.client, desk_world.desk.project_id
    data = [{"data": {"key": f"{n}:0", "sheet": "x", "title": "t"}} for n in range(7)]
    parts = {"parts": [], "viewer": "v"}
    ids = client.import_tasks(project, [{"data": {**row["data"], **parts}} for row in data])
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    found = []
    for task in client.tasks_updated_since(project, "1970-01-01T00:00:00Z"):
        found.append(task.task_id)
        if len(found) == 1:  # its page is read, the next one is not
            client.create_annotation(task.task_id, annotation_for("accept", [], "", (768, 512)))
    assert set(found) == set(ids)
    assert found.count(found[0]) == 2, "the edited one is seen again, with its answer"


def test_skip_reject_and_change_of_mind(desk_world):
    world = desk_world
    skipped, rejected = world.proposed("mug", 5), world.proposed("hammer", 6)
    world.push()
    client = world.desk.client
    client.create_annotation(world.tasks_of(skipped)[0], {"result": [], "was_cancelled": True})
    no = annotation_for("reject", [], "broken", (768, 512))
    stored = client.create_annotation(world.tasks_of(rejected)[0], no)
    world.pull()
    assert world.state(skipped) is AssetState.SKIPPED
    parked = world.catalogue.asset(rejected.asset_id)
    assert (parked.state, parked.reason, parked.detail) == (
        AssetState.REJECTED,
        "reviewer_rejected",
        "broken",
    )
    yes = annotation_for("accept", [], "", (768, 512))
    client.update_annotation(stored["id"], {"result": yes["result"]})
    world.pull()
    assert world.state(rejected) is AssetState.PROPOSED
    world.push()
    world.pull()
    assert world.state(rejected) is AssetState.ACCEPTED


def test_what_is_tried_again_is_asked_anew(desk_world):
    world = desk_world
    skipped, rejected = world.proposed("mug", 15), world.proposed("hammer", 16)
    world.push()
    client = world.desk.client
    client.create_annotation(world.tasks_of(skipped)[0], {"result": [], "was_cancelled": True})
    no = annotation_for("reject", [], "broken", (768, 512))
    client.create_annotation(world.tasks_of(rejected)[0], no)
    world.pull()
    assert client.open_tasks(world.desk.project_id) == []
    for asset in (skipped, rejected):
        world.catalogue.retry(asset.asset_id)
    world.push()
    opened = [task.task_id for task in client.open_tasks(world.desk.project_id)]
    assert sorted(opened) == sorted(world.tasks_of(skipped) + world.tasks_of(rejected))
    assert world.pull() == []
    for asset in (skipped, rejected):
        (task_id,) = world.tasks_of(asset)
        client.create_annotation(task_id, annotation_for("accept", [], "", (768, 512)))
    world.pull()
    assert {world.state(skipped), world.state(rejected)} == {AssetState.ACCEPTED}


def test_refine_without_clicks_is_asked_again(desk_world):
    world = desk_world
    asset = world.proposed("bottle", 7)
    world.push()
    (task_id,) = world.tasks_of(asset)
    empty = annotation_for("refine", [], "", (768, 512))
    world.desk.client.create_annotation(task_id, empty)
    (reply,) = world.pull()
    assert (reply.state, reply.note) == (
        AssetState.IN_REVIEW,
        "no usable click or verb; asked again",
    )
    open_ids = [task.task_id for task in world.desk.client.open_tasks(world.desk.project_id)]
    assert open_ids == [task_id]
    assert world.pull() == []


def test_no_round_is_left_after_the_last(desk_world):
    world = desk_world
    asset = world.proposed("chair", 8, merge_parts)
    last = world.settings.review.max_rounds - 1
    world.catalogue.move(asset.asset_id, AssetState.IN_REVIEW)
    asset = world.propose(asset, merge_parts(world.truth[asset.asset_id]), last)
    world.push()
    buffers = buffers_from_bytes(
        world.store.get(world.catalogue.reviews.task(asset.asset_id, last).buffers_key)
    )
    spots = wrong_spots(buffers, world.truth[asset.asset_id], 2)
    answer = annotation_for("refine", spots, "", buffers.size)
    (task,) = world.desk.client.open_tasks(world.desk.project_id)
    assert "last round" in task.data["title"]
    stored = world.desk.client.create_annotation(task.task_id, answer)
    world.pull()
    parked = world.catalogue.asset(asset.asset_id)
    assert (parked.state, parked.reason) == (AssetState.REJECTED, "max_rounds")
    yes = annotation_for("accept", [], "", buffers.size)
    world.desk.client.update_annotation(stored["id"], {"result": yes["result"]})
    world.pull()
    world.push()
    world.pull()
    assert world.state(asset) is AssetState.ACCEPTED


def test_scripted_reviewer_accepts_refines_and_rejects(desk_world):
    world = desk_world
    good, bad = world.proposed("table", 9), world.proposed("chair", 10, merge_parts)
    unwanted = world.proposed("mug", 11)
    world.push()
    reviewer = ScriptedReviewer(
        world.desk, world.store, world.truth, reject=frozenset({unwanted.asset_id})
    )
    assert reviewer.step() == 3
    assert reviewer.step() == 0
    world.pull()
    states = [world.state(asset) for asset in (good, bad, unwanted)]
    assert states == [AssetState.ACCEPTED, AssetState.REFINING, AssetState.REJECTED]
    assert 0 < len(world.catalogue.reviews.clicks(bad.asset_id)) <= 4
