"""The scripted reviewer of a chaos run: keeps answering through outages and keeps what it saw.

What it saw and said stands in a file of its own, so that the end can be compared with it and not
with what the pipeline believes that the reviewer said.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from botocore.exceptions import BotoCoreError

from segvigen_model.errors import SegvigenError
from segvigen_model.types import IntArray
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.client import LabelStudioError, LabelStudioTask
from tasks.review.project import ReviewProject, open_project
from tasks.review.scripted_reviewer import ReviewRules, ScriptedReviewer, make_annotation
from tasks.settings import Settings
from tasks.storage import keys
from tasks.storage.store import Store

log = logging.getLogger(__name__)
PAUSE_S = 0.5
# Accepts whatever is shown once its rounds are used up: every good mesh has one known fate.
RULES = ReviewRules(tolerable_iou=0.0, max_rounds=3, clicks_per_round=2)
OUTAGES = (SegvigenError, OSError, BotoCoreError, httpx.HTTPError)


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer that was sent. It may not have arrived, where the server died.

    Attributes:
        token: the answer's note ends with it.
        labels: face id -> part, as the sheet showed it.
    """

    token: str
    asset_id: str
    round: int
    verdict: str
    labels: Mapping[int, int]


@dataclass(slots=True)
class ChaosReviewer(ScriptedReviewer):
    """Answers one task after another; an outage ends the step, and the next one goes on.

    Attributes:
        passed: assets to skip.
        diary: file of what was seen and said.
        live: previews of clicks that were shown, or refused.
    """

    passed: frozenset[str] = frozenset()
    diary: Path = Path("diary.jsonl")
    live: Counter[str] = field(default_factory=Counter)
    _number: int = 0

    def submit_annotation(self, task: LabelStudioTask) -> dict[str, Any]:
        """Judge one task, write it down, then send it."""
        asset_id, round_ = str(task.data["asset_id"]), int(task.data["round"])
        key = keys.make_review_buffers_key(asset_id, round_, str(task.data["proposal_sha256"]))
        buffers = buffers_from_bytes(self.store.get(key))
        if asset_id in self.passed:
            verdict, spots, note = "skip", [], ""
        else:
            verdict, spots, note = self._judge_sheet(asset_id, round_, buffers)
        self._number += 1
        token = f"#{self._number}"
        hit = buffers.face >= 0
        pairs = np.unique(np.stack([buffers.face[hit], buffers.part[hit]], axis=1), axis=0)
        self._write(Seen(token, asset_id, round_, verdict, dict(map(tuple, pairs.tolist()))))
        said = "accept" if verdict == "skip" else verdict
        annotation = make_annotation(said, spots, f"{note} {token}", buffers.size)
        annotation["was_cancelled"] = verdict == "skip"
        if verdict == "refine":
            self._click_live(task, annotation["result"][0])
        stored = self.project.client.create_annotation(task.task_id, annotation)
        self._clicks[asset_id] = self._clicks.get(asset_id, 0) + len(spots)
        return stored

    def _click_live(self, task: LabelStudioTask, click: dict[str, Any]) -> None:
        """Ask for the live preview of a click, as the editor does; it may be refused."""
        client = self.project.client
        try:
            found = client.request("GET", "/api/ml/", params={"project": self.project.project_id})
            for backend in found[:1]:
                body = {
                    "task": task.task_id,
                    "context": {"result": [click | {"is_positive": True}]},
                }
                path = f"/api/ml/{backend['id']}/interactive-annotating"
                reply = client.request("POST", path, body=body)
                has_preview = bool((reply.get("data") or {}).get("result"))
                self.live["shown" if has_preview else "refused"] += 1
        except (LabelStudioError, OSError):
            self.live["refused"] += 1

    def _write(self, seen: Seen) -> None:
        line = {
            "token": seen.token,
            "asset_id": seen.asset_id,
            "round": seen.round,
            "verdict": seen.verdict,
            "labels": {str(face): int(part) for face, part in seen.labels.items()},
        }
        with self.diary.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_diary(path: Path) -> dict[str, Seen]:
    """Token -> what was seen and said."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        held = json.loads(line)
        labels = {int(face): part for face, part in held.pop("labels").items()}
        found[held["token"]] = Seen(**held, labels=labels)
    return found


@dataclass
class ReviewerThread:
    """The reviewer at work beside the run.

    Attributes:
        settings: of the run.
        truth: asset id -> (F,) true part of each face; grows as assets are registered.
        thrown, passed: assets to reject, and to skip.
        diary: see `ChaosReviewer`.
    """

    settings: Settings
    truth: dict[str, IntArray]
    thrown: set[str]
    passed: set[str]
    diary: Path
    num_answers: int = 0
    num_outages: int = 0
    live: Counter[str] = field(default_factory=Counter)
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._work, name="reviewer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the answer that is being given."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)

    def _work(self) -> None:
        reviewer: ChaosReviewer | None = None
        while not self._stop.wait(PAUSE_S):
            try:
                reviewer = reviewer or self._open()
                reviewer.reject, reviewer.passed = frozenset(self.thrown), frozenset(self.passed)
                self.num_answers += reviewer.step()
            except OUTAGES as err:
                self.num_outages += 1
                log.info("reviewer=waiting error=%r", err)
            except BaseException as err:  # a fault of the harness: the conductor reports it
                self.error = err
                raise

    def _open(self) -> ChaosReviewer:
        project: ReviewProject = open_project(self.settings.review, self.settings.store)
        store = Store.from_settings(self.settings.store)
        return ChaosReviewer(
            project, store, self.truth, rules=RULES, diary=self.diary, live=self.live
        )
