"""The queue's order, second looks and known tasks on the real Label Studio."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.quality.adjudication import settle
from tasks.quality.gate import gate_asset
from tasks.quality.queue import rank_waiting
from tasks.quality.statistics import reviewer_table
from tasks.quality.third_review import MARK
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.scripted_reviewer import annotation_for, wrong_spots
from tasks.settings import QualitySettings
from tasks.storage import keys

QUALITY = QualitySettings(double_share=1.0, exploration_share=0.0)


def with_quality(world, quality):
    settings = world.settings.model_copy(update={"quality": quality})
    return replace(world.workspace, settings=settings, worker=None)


def merge_parts(labels):
    return np.where(labels < labels.max() // 2, 0, labels)


def tasks_by_key(world):
    begin = "1970-01-01T00:00:00.000000Z"
    found = world.desk.client.tasks_updated_since(world.desk.project_id, begin)
    return {task.key: task for task in found}


def answer(world, asset_id, verdict, truth=None):
    """As a person does; with a truth, also click what is wrong."""
    asset = world.catalogue.asset(asset_id)
    (task_id,) = world.tasks_of(asset)
    row = world.catalogue.reviews.task(asset_id, asset.round)
    buffers = buffers_from_bytes(world.store.get(row.buffers_key))
    spots = [] if truth is None else wrong_spots(buffers, truth, 2)
    body = annotation_for(verdict, spots, "", buffers.size)
    world.desk.client.create_annotation(task_id, body)
    world.pull()
    found = settle(with_quality(world, QUALITY))
    return [(each.result, each.asset_id) for each in found]


def gated(world, asset, quality=QUALITY):
    gate_asset(with_quality(world, quality), asset.asset_id)
    return asset.asset_id


def test_tasks_reach_the_desk_in_the_queues_order(desk_world):
    world = desk_world
    confidences = (0.8, 0.2, 0.5)
    for number, confidence in enumerate(confidences):
        asset = world.proposed("mug", 40 + number)
        row = world.catalogue.proposal(asset.asset_id, 0)
        world.catalogue.add_proposal(type(row)(*row_fields(row, confidence=confidence)))
    rank_waiting(with_quality(world, QUALITY))
    world.push()
    tasks = sorted(tasks_by_key(world).values(), key=lambda task: task.task_id)
    assert [task.data["confidence"] for task in tasks] == [0.2, 0.5, 0.8]
    shown = [task.data["priority"] for task in tasks]
    assert shown == sorted(shown, reverse=True) and shown[0] == pytest.approx(0.64)


def row_fields(row, **changes):
    return [changes.get(name, getattr(row, name)) for name in row.__slots__]


def test_two_people_disagree_and_a_third_look_decides(desk_world):
    world = desk_world
    asset_id = gated(world, world.proposed("chair", 21))
    (copy,) = world.catalogue.quality.copies(CopyRole.SECOND)
    world.push()
    tasks = tasks_by_key(world)
    first, second = (tasks[keys.review_key(name, 0)] for name in (asset_id, copy.asset_id))
    assert first.data.keys() == second.data.keys() and first.data["title"] == second.data["title"]
    assert not any(asset_id in str(value) for value in second.data.values())

    truth = world.truth[asset_id]
    assert answer(world, asset_id, "accept") == []
    assert world.catalogue.asset(asset_id).state is AssetState.IN_REVIEW, "waits for the second"
    assert answer(world, copy.asset_id, "refine", merge_parts(truth)) == []
    assert world.catalogue.asset(copy.asset_id).state is AssetState.REFINING
    world.propose(world.catalogue.asset(copy.asset_id), merge_parts(truth), 1)
    world.push()
    assert answer(world, copy.asset_id, "accept") == [("third look", asset_id)]

    again = world.catalogue.asset(asset_id)
    assert (again.state, again.round) == (AssetState.PROPOSED, 1)
    world.push()
    task = tasks_by_key(world)[keys.review_key(asset_id, 1)]
    assert "third look" in task.data["title"]
    sheet = world.catalogue.reviews.task(asset_id, 1).sheet_key
    picture = np.array(Image.open(io.BytesIO(world.store.get(sheet))).convert("RGB"))
    assert (picture == MARK).all(axis=2).sum() > 50, "the disputed part is striped"
    answer(world, asset_id, "accept")
    assert world.catalogue.asset(asset_id).state is AssetState.ACCEPTED
    assert world.catalogue.asset(copy.asset_id).state is AssetState.ACCEPTED
    (row,) = reviewer_table(world.catalogue)
    assert row.answers == 4 and row.verdicts == {"accept": 3, "refine": 1}
    assert world.catalogue.quality.dataset_counts()[AssetState.ACCEPTED] == 1


def test_a_known_task_looks_like_any_other_and_scores_the_reviewer(desk_world):
    world = desk_world
    gold = world.proposed("hammer", 31)
    world.push()
    answer(world, gold.asset_id, "accept")
    world.catalogue.quality.add_gold(world.catalogue.labels.latest(gold.asset_id))
    only_known = QualitySettings(known_share=1.0)
    asset_id = gated(world, world.proposed("table", 32), only_known)
    (known,) = world.catalogue.quality.copies(CopyRole.KNOWN)
    world.push()
    tasks = tasks_by_key(world)
    real, planted = (tasks[keys.review_key(name, 0)] for name in (asset_id, known.asset_id))
    assert real.data.keys() == planted.data.keys()
    assert "quality" not in str(planted.data) and gold.asset_id not in str(planted.data)
    assert answer(world, known.asset_id, "accept") == []
    (found,) = world.catalogue.quality.findings(FindingKind.KNOWN)
    assert found.iou == pytest.approx(1.0) and found.reviewer == "reviewer@local.test"
    (row,) = reviewer_table(world.catalogue)
    assert (row.known_iou, row.num_known) == (1.0, 1)
