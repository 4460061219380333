"""What a dataset version is made of: the label sets that count now, and the hash that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from tasks.catalogue import Catalogue
from tasks.labelling.taxonomy import Taxonomy
from tasks.settings import ShardSettings
from tasks.shards.samples import SAMPLE_SCHEMA
from tasks.storage.canonical import canonical_json

MANIFEST_SCHEMA = "segvigen-shards/2"  # /1 had no taxonomy; it is still read
VERSION_CHARS = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One asset of the dataset; its rows are read when its sample is made.

    Attributes:
        asset_id, licence: of the asset.
        label_id, labels_sha256, num_parts, num_clicks, decided_by: of its label set.
        round, proposal_key, proposal_sha256, checkpoint: of the proposal that was accepted.
    """

    asset_id: str
    licence: str
    label_id: str
    labels_sha256: str
    num_parts: int
    num_clicks: int
    decided_by: str
    round: int
    proposal_key: str
    proposal_sha256: str
    checkpoint: str

    @property
    def recipe(self) -> list[str]:
        """All that a sample's bytes depend on, besides settings."""
        return [self.asset_id, self.label_id, self.labels_sha256, self.proposal_sha256]


def collect_entries(catalogue: Catalogue) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Assets with a label set that counts, by id; and those whose rows do not fit together.

    Copies made for quality control are no assets of a dataset.
    """
    rows = catalogue.plan.list_current()
    reason = "no label set, or its proposal is not in the catalogue"
    lost = [(row.asset_id, reason) for row in rows if row.proposal_key is None]
    return _make_entries(rows), sorted(lost)


def collect_members(catalogue: Catalogue, dataset: str, version: str) -> list[Entry]:
    """The entries of a recorded version, by id; those whose rows are lost are left out."""
    return _make_entries(catalogue.plan.list_of_version(dataset, version))


def _make_entries(rows: Sequence[Row[Any]]) -> list[Entry]:
    """Entries by id; of rounds that share a proposal's key the last one counts."""
    found: dict[str, Entry] = {}
    for row in rows:
        held = found.get(row.asset_id)
        if row.proposal_key is not None and (held is None or held.round < row.round):
            found[row.asset_id] = Entry(**row._mapping)
    return [found[asset_id] for asset_id in sorted(found)]


def compute_version(
    entries: list[Entry], settings: ShardSettings, taxonomy: Taxonomy | None
) -> str:
    """Name of the version that holds exactly these entries."""
    made_of = [MANIFEST_SCHEMA, SAMPLE_SCHEMA, settings.model_dump(), list_categories(taxonomy)]
    text = canonical_json([*made_of, [entry.recipe for entry in entries]])
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_CHARS]


def list_categories(taxonomy: Taxonomy | None) -> list[dict[str, str]]:
    """The taxonomy as the manifest holds it; a category's place is its semantic id."""
    return [] if taxonomy is None else taxonomy.to_json()
