"""What must be true at the end of a chaos run, looked at from outside.

The checks read rows, Label Studio and blobs, and compare them with the inputs and with what the
scripted reviewer wrote down. Only the scrub asks the pipeline itself, beside our own hashes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.catalogue import AssetRow, LabelSetRow
from tasks.recovery.scrub import scrub
from tasks.workspace import open_workspace
from tests.chaos.evidence import (
    Evidence,
    count_twice,
    expected_states,
    load_arrays,
    read_token,
    sha256,
)
from tests.chaos.history import check_history
from tests.chaos.inputs import Fate, Input
from tests.chaos.watch import environment

PARKED = ("rejected", "failed", "skipped")


@dataclass
class Finding:
    """One check: how much it looked at, and what is wrong."""

    name: str
    looked_at: int = 0
    problems: list[str] = field(default_factory=list)


def judge(env: Mapping[str, str], inputs: list[Input], folder: Path) -> list[Finding]:
    """Run every check.

    Args:
        env: settings variables of the run.
        inputs: what came into the raw bucket.
        folder: of the run, with the reviewer's diary.
    """
    checks: dict[str, Callable[[Evidence], Iterator[str | None]]] = {
        "lost": _find_lost,
        "parked without fault": _find_parked,
        "doubled": _find_doubled,
        "leases left": _find_leases,
        "partition violated": _find_bad_partitions,
        "labels that nobody accepted": _find_false_labels,
        "hashes wrong": _find_wrong_hashes,
        "faults that `segvigen verify` finds": _find_faults,
        "newest version incomplete": _find_missing_members,
        "history not allowed": _find_bad_histories,
    }
    with environment(env):
        evidence = Evidence(open_workspace(tag="judge"), inputs, folder)
        return [_run(name, check(evidence)) for name, check in checks.items()]


def _run(name: str, lines: Iterator[str | None]) -> Finding:
    """A check yields None for each thing that is right, or what is wrong with it."""
    finding = Finding(name)
    for line in lines:
        finding.looked_at += 1
        if line is not None:
            finding.problems.append(line)
    return finding


def _find_lost(evidence: Evidence) -> Iterator[str | None]:
    states = expected_states()
    for item in evidence.inputs:
        row = evidence.raw.get(item.key)
        asset = evidence.assets.get(row.asset_id or "") if row is not None else None
        if asset is None:
            yield f"{item.key} is not in the catalogue"
            continue
        state, reason = states[item.fate]
        reason = item.reason if reason is None else reason
        held = (str(asset.state), asset.reason or "")
        yield (
            None
            if held == (state, reason)
            else f"{_name(item, asset)}: {held}, not {state} {reason}"
        )


def _find_parked(evidence: Evidence) -> Iterator[str | None]:
    """Parked assets whose input is good and wanted."""
    for asset in evidence.assets.values():
        item = evidence.input_of.get(asset.asset_id)
        if str(asset.state) not in PARKED:
            yield None
        elif item is None:
            yield f"{asset.asset_id[:12]} {asset.name}: {asset.state}, and no input holds it"
        elif item.fate is Fate.SHARDED:
            why = f"{asset.reason}: {asset.last_error or asset.detail}"
            yield f"{_name(item, asset)}: {asset.state} {why}"
        else:
            yield None


def _find_doubled(evidence: Evidence) -> Iterator[str | None]:
    catalogue = evidence.workspace.catalogue
    contents = {sha256(item.data) if item.data else item.key for item in evidence.inputs}
    same = len(evidence.assets) == len(contents)
    yield None if same else f"{len(evidence.assets)} assets of {len(contents)} different contents"
    yield from _twice("review tasks in Label Studio", [task.key for task in evidence.desk])
    for task in evidence.desk:
        yield None if task.num_annotations <= 1 else f"{task.key}: {task.num_annotations} answers"
    yield from _twice("label sets of", [row.asset_id for row in evidence.label_sets])
    rounds = [key.rpartition("-")[0] for key in evidence.list_keys("proposals")]
    yield from _twice("proposals of", rounds)
    versions = catalogue.labels.list_shard_versions()
    yield from _twice("versions of one content", [row.sha256 for row in versions])
    for version in versions:
        manifest = _read_json(evidence, version.manifest_key)
        index = (evidence.read(manifest["index"]["key"]) or b"").splitlines()
        names = [json.loads(line)["key"] for line in index]
        yield from _twice(f"members of version {version.version}:", names)


def _find_leases(evidence: Evidence) -> Iterator[str | None]:
    for asset in evidence.assets.values():
        owner = asset.lease_owner
        yield None if owner is None else f"{asset.asset_id[:12]} is leased to {owner}"


def _find_bad_partitions(evidence: Evidence) -> Iterator[str | None]:
    for row in evidence.label_sets:
        item, data = evidence.input_of.get(row.asset_id), evidence.read(row.key)
        if item is None or item.truth is None or data is None:
            yield f"{row.label_id}: no such input, or no such blob"
            continue
        labels = load_arrays(data)["face_labels"]
        wrong = _describe_partition(labels, len(item.truth), row.num_parts)
        yield None if wrong is None else f"{row.label_id} of {item.key}: {wrong}"


def _describe_partition(labels: Any, num_faces: int, num_parts: int) -> str | None:
    """What is wrong with a partition of a mesh of `num_faces` faces, or None."""
    if labels.shape != (num_faces,) or labels.dtype.kind != "i":
        return f"{labels.dtype}{labels.shape} for {num_faces} faces"
    if sorted(set(labels.tolist())) != list(range(num_parts)):
        return f"ids {sorted(set(labels.tolist()))} for {num_parts} parts"
    return None


def _find_false_labels(evidence: Evidence) -> Iterator[str | None]:
    """Label sets that differ from what their reviewer saw when accepting, on every seen face."""
    for row in evidence.label_sets:
        wrong = _describe_labels(evidence, row)
        yield None if wrong is None else f"{row.label_id} of {row.asset_id[:12]}: {wrong}"


def _describe_labels(evidence: Evidence, row: LabelSetRow) -> str | None:
    data = evidence.read(row.key)
    if data is None:
        return f"no blob {row.key}"
    labels = load_arrays(data)["face_labels"]
    if row.decided_by == "gate":
        return _describe_gate_labels(evidence, row, labels)
    answer = evidence.accepting(evidence.assets[row.asset_id])
    seen = evidence.diary.get(read_token(answer.raw)) if answer is not None else None
    if seen is None:
        return "no answer of the reviewer accepted it"
    if (seen.asset_id, seen.verdict) != (row.asset_id, "accept"):
        return f"the reviewer said {seen.verdict} of {seen.asset_id[:12]} in answer {seen.token}"
    faces = np.array(list(seen.labels))
    if faces.max() >= len(labels):
        return f"has {len(labels)} faces, and the reviewer saw face {faces.max()}"
    num_wrong = int((labels[faces] != np.array(list(seen.labels.values()))).sum())
    return f"{num_wrong} of {len(faces)} seen faces differ" if num_wrong else None


def _describe_gate_labels(evidence: Evidence, row: LabelSetRow, labels: Any) -> str | None:
    first = [
        each for each in evidence.proposals if (each.asset_id, each.round) == (row.asset_id, 0)
    ]
    data = evidence.read(first[0].key) if first else None
    if data is None:
        return "the gate accepted a proposal that is not there"
    same = np.array_equal(load_arrays(data)["face_labels"], labels)
    return None if same else "differs from the proposal that the gate accepted"


def _find_wrong_hashes(evidence: Evidence) -> Iterator[str | None]:
    """Blobs that rows and manifests name, against the hash or the input that they must equal."""
    for asset_id, item in evidence.input_of.items():
        asset = evidence.assets[asset_id]
        if asset.source_key is not None:
            yield _compare(evidence, asset.source_key, sha256(item.data))
        if asset.encoding_key is not None:
            yield None if evidence.read(asset.encoding_key) else f"no blob {asset.encoding_key}"
    for proposal in evidence.proposals:
        yield _compare(evidence, proposal.key, proposal.sha256)
    for row in evidence.label_sets:
        yield _compare(evidence, row.key, row.sha256)
        about = _read_json(evidence, row.provenance_key)
        same = about.get("labels_sha256") == row.sha256
        yield None if same else f"{row.provenance_key} is of other labels"
    for version in evidence.workspace.catalogue.labels.list_shard_versions():
        yield _compare(evidence, version.manifest_key, version.sha256)
        manifest = _read_json(evidence, version.manifest_key)
        for part in (manifest["index"], *manifest["shards"]):
            yield _compare(evidence, part["key"], part["sha256"])
        yield from _check_samples(evidence, manifest)
    yield from _check_sheets(evidence)


def _check_samples(evidence: Evidence, manifest: Mapping[str, Any]) -> Iterator[str | None]:
    for text in (evidence.read(manifest["index"]["key"]) or b"").splitlines():
        line = json.loads(text)
        tar = evidence.read(manifest["shards"][line["shard"]]["key"]) or b""
        found = sha256(tar[line["offset"] : line["offset"] + line["size"]])
        same = found == line["sha256"]
        yield None if same else f"sample {line['key'][:12]} of {manifest['version']} is damaged"


def _check_sheets(evidence: Evidence) -> Iterator[str | None]:
    proposals = {(row.asset_id, row.round): row for row in evidence.proposals}
    for task in evidence.workspace.catalogue.reviews.list_tasks():
        buffers = evidence.read(task.buffers_key)
        meta = json.loads(str(load_arrays(buffers)["meta"])) if buffers else {}
        shown = meta.get("proposal_sha256")
        same = shown == proposals[task.asset_id, task.round].sha256
        yield None if same else f"{task.buffers_key} shows proposal {shown}"
        for key in (task.sheet_key, task.viewer_key or task.sheet_key):
            yield None if evidence.read(key) else f"no blob {key}"


def _find_faults(evidence: Evidence) -> Iterator[str | None]:
    report = scrub(evidence.workspace)
    yield from (f"{each.need.key}: {each.fault}" for each in report.faults)
    yield from [None] * (sum(report.checked.values()) - len(report.faults))


def _find_missing_members(evidence: Evidence) -> Iterator[str | None]:
    """The newest version must hold every sharded asset with the label set that counts."""
    labels = evidence.workspace.catalogue.labels
    versions = labels.list_shard_versions()
    members: dict[str, str] = {}
    if versions:
        newest = versions[-1]
        rows = labels.list_shard_members(newest.dataset, newest.version)
        members = {row.asset_id: row.label_id for row in rows}
    counting = {row.asset_id: row.label_id for row in evidence.label_sets}
    for asset in evidence.assets.values():
        if str(asset.state) == "sharded":
            held, wanted = members.get(asset.asset_id), counting.get(asset.asset_id)
            same = held is not None and held == wanted
            yield (
                None
                if same
                else f"{asset.asset_id[:12]}: {held} in the newest version, not {wanted}"
            )


def _find_bad_histories(evidence: Evidence) -> Iterator[str | None]:
    catalogue = evidence.workspace.catalogue
    events = catalogue.list_events()
    problems = check_history(events, evidence.assets.values())
    yield from problems
    yield from [None] * max(0, len(events) - len(problems))


def _compare(evidence: Evidence, key: str, wanted: str) -> str | None:
    data = evidence.read(key)
    if data is None:
        return f"no blob {key}"
    found = sha256(data)
    return None if found == wanted else f"{key} has {len(data)} bytes of sha256 {found[:12]}"


def _read_json(evidence: Evidence, key: str) -> Any:
    return json.loads(evidence.read(key) or b"{}")


def _twice(what: str, items: list[Any]) -> Iterator[str | None]:
    twice = count_twice(items)
    yield from (f"{number} {what} {item}" for item, number in twice.items())
    yield from [None] * (len(set(items)) - len(twice))


def _name(item: Input, asset: AssetRow) -> str:
    return f"{item.key} ({asset.asset_id[:12]})"
