"""The queue's order, double annotations and gold tasks on the real Label Studio."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.quality.adjudication import adjudicate
from tasks.quality.gate import gate_asset
from tasks.quality.queue import rank_waiting
from tasks.quality.statistics import build_quality_state
from tasks.quality.third_review import MARK_COLOR
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.scripted_reviewer import find_wrong_spots, make_annotation
from tasks.settings import QualitySettings
from tasks.storage import keys

QUALITY = QualitySettings(double_share=1.0, exploration_share=0.0)


def with_quality(environment, quality):
    settings = environment.settings.model_copy(update={"quality": quality})
    return replace(environment.workspace, settings=settings, worker=None)


def merge_parts(labels):
    return np.where(labels < labels.max() // 2, 0, labels)


def tasks_by_key(environment):
    begin = "1970-01-01T00:00:00.000000Z"
    found = environment.project.client.list_tasks_updated_since(
        environment.project.project_id, begin
    )
    return {task.key: task for task in found}


def submit_annotation(environment, asset_id, verdict, truth=None):
    """As a person does; with a truth, also click what is wrong."""
    asset = environment.catalogue.get_asset(asset_id)
    (task_id,) = environment.list_task_ids(asset)
    row = environment.catalogue.reviews.get_task(asset_id, asset.round)
    buffers = buffers_from_bytes(environment.store.get(row.buffers_key))
    spots = [] if truth is None else find_wrong_spots(buffers, truth, 2)
    body = make_annotation(verdict, spots, "", buffers.size)
    environment.project.client.create_annotation(task_id, body)
    environment.pull()
    found = adjudicate(with_quality(environment, QUALITY))
    return [(each.result, each.asset_id) for each in found]


def gate_asset_now(environment, asset, quality=QUALITY):
    gate_asset(with_quality(environment, quality), asset.asset_id)
    return asset.asset_id


def test_tasks_reach_the_project_in_the_queues_order(review_env):
    environment = review_env
    confidences = (0.8, 0.2, 0.5)
    for number, confidence in enumerate(confidences):
        asset = environment.add_proposed("mug", 40 + number)
        row = environment.catalogue.get_proposal(asset.asset_id, 0)
        environment.catalogue.add_proposal(replace(row, confidence=confidence))
    rank_waiting(with_quality(environment, QUALITY))
    environment.push()
    tasks = sorted(tasks_by_key(environment).values(), key=lambda task: task.task_id)
    assert [task.data["confidence"] for task in tasks] == [0.2, 0.5, 0.8]
    shown = [task.data["priority"] for task in tasks]
    assert shown == sorted(shown, reverse=True) and shown[0] == pytest.approx(0.64)


def test_two_people_disagree_and_a_third_review_decides(review_env):
    environment = review_env
    asset_id = gate_asset_now(environment, environment.add_proposed("chair", 21))
    (copy,) = environment.catalogue.quality.list_copies(CopyRole.DOUBLE)
    environment.push()
    tasks = tasks_by_key(environment)
    first, second = (tasks[keys.make_review_key(name, 0)] for name in (asset_id, copy.asset_id))
    assert first.data.keys() == second.data.keys() and first.data["title"] == second.data["title"]
    assert not any(asset_id in str(value) for value in second.data.values())

    truth = environment.truth[asset_id]
    assert submit_annotation(environment, asset_id, "accept") == []
    assert environment.catalogue.get_asset(asset_id).state is AssetState.IN_REVIEW, (
        "waits for the second"
    )
    assert submit_annotation(environment, copy.asset_id, "refine", merge_parts(truth)) == []
    assert environment.catalogue.get_asset(copy.asset_id).state is AssetState.REFINING
    environment.propose(environment.catalogue.get_asset(copy.asset_id), merge_parts(truth), 1)
    environment.push()
    assert submit_annotation(environment, copy.asset_id, "accept") == [("third review", asset_id)]

    again = environment.catalogue.get_asset(asset_id)
    assert (again.state, again.round) == (AssetState.PROPOSED, 1)
    environment.push()
    task = tasks_by_key(environment)[keys.make_review_key(asset_id, 1)]
    assert "third review" in task.data["title"]
    sheet = environment.catalogue.reviews.get_task(asset_id, 1).sheet_key
    picture = np.array(Image.open(io.BytesIO(environment.store.get(sheet))).convert("RGB"))
    assert (picture == MARK_COLOR).all(axis=2).sum() > 50, "the disputed part is striped"
    submit_annotation(environment, asset_id, "accept")
    assert environment.catalogue.get_asset(asset_id).state is AssetState.ACCEPTED
    assert environment.catalogue.get_asset(copy.asset_id).state is AssetState.ACCEPTED
    (row,) = build_quality_state(environment.workspace)["reviewers"]
    assert row["annotations"] == 4 and row["verdicts"] == {"accept": 3, "refine": 1}
    assert environment.catalogue.quality.count_dataset_assets()[AssetState.ACCEPTED] == 1


def test_a_gold_task_is_displayed_like_any_other_and_scores_the_reviewer(review_env):
    environment = review_env
    gold = environment.add_proposed("hammer", 31)
    environment.push()
    submit_annotation(environment, gold.asset_id, "accept")
    environment.catalogue.quality.add_gold(environment.catalogue.labels.get_latest(gold.asset_id))
    only_known = QualitySettings(gold_share=1.0)
    asset_id = gate_asset_now(environment, environment.add_proposed("table", 32), only_known)
    (known,) = environment.catalogue.quality.list_copies(CopyRole.GOLD)
    environment.push()
    tasks = tasks_by_key(environment)
    real, planted = (tasks[keys.make_review_key(name, 0)] for name in (asset_id, known.asset_id))
    assert real.data.keys() == planted.data.keys()
    assert "quality" not in str(planted.data) and gold.asset_id not in str(planted.data)
    assert submit_annotation(environment, known.asset_id, "accept") == []
    (found,) = environment.catalogue.quality.list_findings(FindingKind.GOLD)
    assert found.iou == pytest.approx(1.0) and found.reviewer == "reviewer@local.test"
    (row,) = build_quality_state(environment.workspace)["reviewers"]
    assert (row["gold_iou"], row["num_gold"]) == (1.0, 1)
