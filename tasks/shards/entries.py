"""What a dataset version is made of: the label sets that count now, and the hash that names it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tasks.catalogue import DONE, AssetRow, Catalogue, LabelSetRow, ProposalRow
from tasks.labelling.taxonomy import Taxonomy
from tasks.settings import ShardSettings
from tasks.shards.samples import SAMPLE_SCHEMA
from tasks.storage.canonical import canonical_json

MANIFEST_SCHEMA = "segvigen-shards/2"  # /1 had no taxonomy; it is still read
VERSION_CHARS = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One asset of the dataset: its rows."""

    asset: AssetRow
    labels: LabelSetRow
    proposal: ProposalRow

    @property
    def recipe(self) -> list[str]:
        """All that a sample's bytes depend on, besides settings."""
        return [self.asset.asset_id, self.labels.label_id, self.labels.sha256, self.proposal.sha256]


def collect_entries(catalogue: Catalogue) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Assets with a label set that counts, by id; and those whose rows do not fit together.

    Copies made for quality control are no assets of a dataset.
    """
    copies = catalogue.quality.list_copy_ids()
    done = [asset for state in DONE for asset in catalogue.list_assets(state)]
    assets = {asset.asset_id: asset for asset in done if asset.asset_id not in copies}
    good, lost = [], []
    for asset_id, asset in sorted(assets.items()):
        labels = catalogue.labels.get_latest(asset_id)
        proposals = {row.key: row for row in catalogue.list_proposals(asset_id)}
        if labels is None or labels.proposal_key not in proposals:
            lost.append((asset_id, "no label set, or its proposal is not in the catalogue"))
        else:
            good.append(Entry(asset, labels, proposals[labels.proposal_key]))
    return good, lost


def collect_members(catalogue: Catalogue, dataset: str, version: str) -> list[Entry]:
    """The entries of a recorded version, by id; those whose rows are lost are left out."""
    found = []
    for member in catalogue.labels.list_shard_members(dataset, version):
        rows = catalogue.labels.list_all(member.asset_id)
        labels = next((row for row in rows if row.label_id == member.label_id), None)
        proposals = {row.key: row for row in catalogue.list_proposals(member.asset_id)}
        if labels is not None and labels.proposal_key in proposals:
            asset = catalogue.get_asset(member.asset_id)
            found.append(Entry(asset, labels, proposals[labels.proposal_key]))
    return found


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
