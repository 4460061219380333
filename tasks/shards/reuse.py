"""Samples that a new dataset version takes over from an earlier one, byte for byte.

A sample is made of immutable blobs, so an asset with the same label set, cut by the same settings,
has the same bytes in every version: they are copied by one ranged read instead of made again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tasks.labelling.taxonomy import Taxonomy
from tasks.shards.reader import check_manifest, read_index
from tasks.shards.samples import SAMPLE_SCHEMA
from tasks.storage.errors import BlobDamaged, BlobMissing
from tasks.workspace import Workspace

log = logging.getLogger(__name__)
_SIZES = {"max_shard_bytes"}  # where tars are cut, which no sample knows


class EarlierSamples:
    """What the newest comparable version of a dataset holds.

    Args:
        workspace: holds the versions; its settings are those of the new one.
        taxonomy: of the new version.
    """

    def __init__(self, workspace: Workspace, taxonomy: Taxonomy | None) -> None:
        store, settings = workspace.store, workspace.settings.shard
        self._store = store
        self._lines: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._shards: list[str] = []
        wanted = _describe_making(
            settings.model_dump(),
            SAMPLE_SCHEMA,
            [] if taxonomy is None else taxonomy.to_json(),
        )
        for row in reversed(workspace.catalogue.labels.list_shard_versions(settings.dataset)):
            try:
                manifest = check_manifest(store.get_json(row.manifest_key, row.sha256))
                recipe = (manifest["settings"], manifest["sample_schema"], manifest.get("taxonomy"))
                if _describe_making(*recipe) != wanted:
                    continue
                index = manifest["index"]
                lines = read_index(
                    store.get(index["key"], index["sha256"]), len(manifest["shards"])
                )
            except (BlobMissing, BlobDamaged, KeyError) as err:  # its samples are made again
                log.warning("stage=shards version=%s passed over: %s", row.version, err)
                continue
            self._lines = {(line["key"], line["label_id"]): line for line in lines}
            self._shards = [shard["key"] for shard in manifest["shards"]]
            break

    def find_sample(self, asset_id: str, label_id: str) -> bytes | None:
        """The tar blocks of an asset with a label set; None where they must be made."""
        line = self._lines.get((asset_id, label_id))
        if line is None:
            return None
        shard = self._shards[line["shard"]]
        where = (shard, line["offset"], line["size"])
        try:
            return self._store.get_range(*where, line["sha256"])
        except (BlobMissing, BlobDamaged) as err:
            log.warning("stage=shards asset=%s made again: %s", asset_id[:12], err)
            return None


def _describe_making(settings: Mapping[str, Any], schema: str, categories: Any) -> tuple[Any, ...]:
    """Everything but blobs that a sample's bytes depend on."""
    kept = {name: value for name, value in settings.items() if name not in _SIZES}
    return kept, schema, categories or []
