"""Scrub: read what the catalogue needs, compare size and hash, parse it, count orphans."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from segvigen_model.serialization import encoding_from_bytes, proposal_from_bytes
from tasks.labelling.label_sets import check_partition, label_set_from_bytes
from tasks.recovery.needs import BlobKind, Need, list_needs
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.storage.canonical import parse_json
from tasks.storage.store import BlobDamaged, BlobMissing, Store
from tasks.workspace import Workspace

NUM_READS = 3  # of a size or of a tar that is not right: one answer may lie


@dataclass(frozen=True, slots=True)
class Fault:
    """A needed blob that is not what was written.

    Attributes:
        fault: "missing", or what is wrong.
    """

    need: Need
    fault: str


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub found.

    Attributes:
        checked: blobs read, by kind.
        num_needed: blobs that the catalogue needs, checked or not.
        size_bytes: read.
        faults: by kind and key.
        num_orphans, orphan_bytes: objects that no row needs; None if they were not looked for.
    """

    checked: dict[str, int]
    num_needed: int
    size_bytes: int
    faults: tuple[Fault, ...]
    num_orphans: int | None = None
    orphan_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "checked": self.checked,
            "needed": self.num_needed,
            "size_bytes": self.size_bytes,
            "faults": [
                {"key": each.need.key, "kind": each.need.kind, "asset": each.need.asset_id}
                | {"fault": each.fault}
                for each in self.faults
            ],
            "orphans": self.num_orphans,
            "orphan_bytes": self.orphan_bytes,
        }


def scrub(
    workspace: Workspace,
    kinds: Collection[BlobKind] = (),
    sample: float = 1.0,
    seed: int = 0,
    on_blob: Callable[[], None] = lambda: None,
) -> ScrubReport:
    """Check the blobs that the catalogue needs.

    Args:
        workspace: store and catalogue; nothing is changed.
        kinds: only these; none given = all, and orphans are counted.
        sample: up to 1 a share of them, above it their number; drawn at random.
        seed: of the draw.
        on_blob: called after each blob.
    """
    needs = list_needs(workspace)
    chosen = [need for need in needs if not kinds or need.kind in kinds]
    chosen = _draw_sample(chosen, sample, seed)
    faults, size_bytes = [], 0
    for need in chosen:
        fault, size = find_fault(workspace.store, need)
        size_bytes += size
        if fault:
            faults.append(Fault(need, fault))
        on_blob()
    checked = dict(Counter(str(need.kind) for need in chosen))
    orphans: tuple[int | None, int | None] = (None, None)
    if not kinds:
        orphans = _count_orphans(workspace.store, {need.key for need in needs})
    return ScrubReport(checked, len(needs), size_bytes, tuple(faults), *orphans)


def find_faults(store: Store, needs: Sequence[Need]) -> list[Fault]:
    """Check some blobs; those that are wrong."""
    found = [(need, find_fault(store, need)[0]) for need in needs]
    return [Fault(need, fault) for need, fault in found if fault]


def find_fault(store: Store, need: Need) -> tuple[str, int]:
    """What is wrong with one blob, "" if nothing; and the bytes read."""
    for _ in range(NUM_READS):
        held = store.get_size(need.key)
        if held is not None and need.size in (None, held):
            break
    if held is None:
        return "missing", 0
    if need.size not in (None, held):
        return f"{held} bytes instead of {need.size}", 0
    try:
        if need.key.endswith(".tar"):
            is_right = any(store.compute_sha256(need.key) == need.sha256 for _ in range(NUM_READS))
            return ("" if is_right else "other bytes than were written"), held
        data = store.get(need.key, need.sha256)
    except BlobMissing:
        return "missing", held
    except BlobDamaged:
        return "other bytes than were written", held
    return _find_parse_error(need, data), held


def _find_parse_error(need: Need, data: bytes) -> str:
    """Why bytes cannot be read as what they are; "" if they can."""
    try:
        if need.kind is BlobKind.ENCODING:
            encoding_from_bytes(data)
        elif need.kind is BlobKind.PROPOSAL:
            proposal = proposal_from_bytes(data)
            check_partition(proposal.face_labels, len(proposal.face_labels), proposal.num_parts)
        elif need.kind is BlobKind.LABEL_SET:
            label_set_from_bytes(data, {"clicks": []}, "")
        elif need.key.endswith(".json"):
            parse_json(data, need.key)
        elif need.key.endswith("buffers.npz"):
            buffers_from_bytes(data)
    except Exception as err:  # whatever a parser says of bytes that are not its own
        return f"unreadable: {type(err).__name__}: {err}"
    return ""


def _draw_sample(needs: list[Need], sample: float, seed: int) -> list[Need]:
    if sample == 1.0:
        return needs
    number = round(sample * len(needs)) if sample < 1 else int(sample)
    number = min(len(needs), max(1, number))
    picked = set(random.Random(seed).sample(range(len(needs)), number)) if needs else set()
    return [need for place, need in enumerate(needs) if place in picked]


def _count_orphans(store: Store, needed: set[str]) -> tuple[int, int]:
    """Objects that no row needs, and their bytes: of killed runs, of rounds that were replaced."""
    sizes = [info.size for info in store.list() if info.key not in needed]
    return len(sizes), sum(sizes)
