"""What a chaos run left behind, read once: catalogue rows, Label Studio's tasks, blobs."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flows.runtime.label_studio import open_review_project
from tasks.catalogue import AnnotationRow, AssetRow, LabelSetRow, ProposalRow, RawRow
from tasks.review.client import LabelStudioTask
from tasks.workspace import Workspace
from tests.chaos.inputs import Fate, Input
from tests.chaos.reviewer import Seen, read_diary

BEGINNING = "1970-01-01T00:00:00.000000Z"


@dataclass
class Evidence:
    """Rows and tasks of one run."""

    workspace: Workspace
    inputs: list[Input]
    folder: Path
    _blobs: dict[str, bytes | None] = field(default_factory=dict)

    @cached_property
    def assets(self) -> dict[str, AssetRow]:
        return {row.asset_id: row for row in self.workspace.catalogue.list_assets()}

    @cached_property
    def raw(self) -> dict[str, RawRow]:
        return {row.key: row for row in self.workspace.catalogue.raw.list_all()}

    @cached_property
    def proposals(self) -> list[ProposalRow]:
        catalogue = self.workspace.catalogue
        return [row for name in self.assets for row in catalogue.list_proposals(name)]

    @cached_property
    def label_sets(self) -> list[LabelSetRow]:
        return self.workspace.catalogue.labels.list_all()

    @cached_property
    def desk(self) -> list[LabelStudioTask]:
        """Every task of the project, with its answers."""
        project = open_review_project(self.workspace)
        return list(project.client.list_tasks_updated_since(project.project_id, BEGINNING))

    @cached_property
    def diary(self) -> dict[str, Seen]:
        return read_diary(self.folder / "diary.jsonl")

    @cached_property
    def input_of(self) -> dict[str, Input]:
        """Asset id -> the first input that holds it."""
        found: dict[str, Input] = {}
        for item in self.inputs:
            row = self.raw.get(item.key)
            if row is not None and row.asset_id:
                found.setdefault(row.asset_id, item)
        return found

    def read(self, key: str) -> bytes | None:
        """A blob, or None when it is missing. Not checked: that is what the caller does."""
        if key not in self._blobs:
            path = self.workspace.store._make_path(key)
            try:
                self._blobs[key] = bytes(self.workspace.store._fs.cat_file(path))
            except FileNotFoundError:
                self._blobs[key] = None
        return self._blobs[key]

    def list_keys(self, folder: str) -> list[str]:
        """Keys of all blobs below a folder."""
        return [info.key for info in self.workspace.store.list(folder)]

    def accepting(self, asset: AssetRow) -> AnnotationRow | None:
        """The stored answer that accepted an asset's present round."""
        rows = self.workspace.catalogue.reviews.list_annotations(asset.asset_id, asset.round)
        found = [row for row in rows if row.verdict == "accept" and not row.is_late]
        return found[-1] if found else None


def load_arrays(data: bytes) -> Mapping[str, Any]:
    """The arrays of an npz file."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def read_token(raw: Mapping[str, Any]) -> str:
    """The token that the reviewer wrote into an answer's note; "" without one."""
    text = json.dumps(raw.get("result", []))
    found = [word.strip('"]}, ') for word in text.split() if word.startswith("#")]
    return found[-1] if found else ""


def count_twice(items: list[Any]) -> dict[Any, int]:
    """What stands there more than once."""
    return {item: number for item, number in Counter(items).items() if number > 1}


def expected_states() -> dict[Fate, tuple[str, str | None]]:
    """Fate -> state and reason at the end; None = the input's own reason."""
    return {
        Fate.SHARDED: ("sharded", ""),
        Fate.THROWN: ("rejected", "reviewer_rejected"),
        Fate.PASSED: ("skipped", "reviewer_skipped"),
        Fate.BROKEN: ("rejected", None),
    }
