"""A poisoned task beside good ones in the real Label Studio: the pull takes the good ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.local import LabelStudioEndpoint
from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.review.client import LabelStudioClient
from tasks.review.inbox import store_new_annotations
from tasks.review.label_config import LABEL_CONFIG
from tasks.review.project import ReviewProject
from tasks.review.scripted_reviewer import make_annotation

ASSETS = ("a" * 64, "c" * 64)
BAD_KEYS = (f"{ASSETS[0]}:²", f"{ASSETS[0]}:{10**30}", f"{'b' * 64}:0", "a text of somebody else")


@pytest.fixture(scope="module")
def project(label_studio: LabelStudioEndpoint) -> ReviewProject:
    """An empty project with the label config of ours; no store is needed."""
    settings = label_studio.make_environment()
    client = LabelStudioClient(settings["SEGVIGEN_REVIEW_URL"], settings["SEGVIGEN_REVIEW_API_KEY"])
    body = {"title": f"poison {uuid4().hex[:8]}", "label_config": LABEL_CONFIG}
    return ReviewProject(client, int(client.request("POST", "/api/projects/", body=body)["id"]))


def _import(project: ReviewProject, key: str) -> int:
    data = {"key": key, "title": "t", "sheet": "x", "viewer": "x", "parts": [{"value": "part 0"}]}
    (task_id,) = project.client.import_tasks(project.project_id, [{"data": data}])
    return task_id


def _answer(project: ReviewProject, task_id: int, note: str = "") -> dict[str, Any]:
    return project.client.create_annotation(
        task_id, make_annotation("accept", [], note, (100, 100))
    )


@pytest.mark.slow
def test_poison_beside_good_answers(project: ReviewProject, tmp_path: Path) -> None:
    catalogue = Catalogue(f"sqlite:///{tmp_path}/c.db")
    for asset_id in ASSETS:
        catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, source_key="k"))
    good = [_answer(project, _import(project, f"{ASSETS[0]}:0"))]
    for key in BAD_KEYS:
        _answer(project, _import(project, key))
    poisoned = _import(project, f"{ASSETS[1]}:0")
    hostile = _answer(project, poisoned, "x" * (2**22 + 1))
    good.append(_answer(project, poisoned))
    store_new_annotations(catalogue, project)
    stored = [row for name in ASSETS for row in catalogue.reviews.list_annotations(name)]
    assert [row.annotation_id for row in stored] == [answer["id"] for answer in good]
    assert catalogue.quarantine.count_by_kind() == {"task": len(BAD_KEYS), "annotation": 1}

    num_events = len(catalogue.list_events())
    store_new_annotations(catalogue, project)
    assert len(catalogue.list_events()) == num_events, "nothing changed, nothing is written"

    path = f"/api/annotations/{hostile['id']}/"
    mended = make_annotation("accept", [], "short", (100, 100))
    project.client.request("PATCH", path, body={"result": mended["result"]})
    catalogue.register(AssetRow("b" * 64, AssetState.REGISTERED, source_key="k"))
    (unknown,) = [
        row for row in catalogue.quarantine.list_all() if "not in this catalogue" in row.reason
    ]
    catalogue.quarantine.request_retry(unknown.message_id)
    store_new_annotations(catalogue, project)
    assert catalogue.quarantine.count_by_kind() == {"task": len(BAD_KEYS) - 1}
    assert hostile["id"] in [
        row.annotation_id for row in catalogue.reviews.list_annotations(ASSETS[1])
    ]
    assert len(catalogue.reviews.list_annotations("b" * 64)) == 1
