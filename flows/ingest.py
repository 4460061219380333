"""Flow: check new objects of the raw bucket, register the usable ones, record the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows.runtime.chunks import make_io_task
from flows.runtime.report import Outcome, Progress, publish_report
from tasks.ingest.ingest import ingest_object, list_raw, scan_raw
from tasks.ingest.listing import RawListing
from tasks.storage.store import ObjectInfo
from tasks.workspace import Overrides, Workspace, open_workspace


@flow(name="ingest", flow_run_name="ingest /{prefix}")
def ingest(
    prefix: str = "",
    limit: int | None = None,
    is_retrying: bool = False,
    settings_file: str | None = None,
    overrides: Overrides | None = None,
) -> dict[str, Any]:
    """Register what is new in the raw bucket.

    Args:
        prefix: folder of the raw bucket.
        limit: at most so many objects.
        is_retrying: also try objects again that were rejected.
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by outcome and seconds.
    """
    started = time.monotonic()
    workspace = open_workspace(settings_file, overrides, "ingest")
    workspace.raw.check_bucket()
    listing = list_raw(workspace, prefix)
    found = scan_raw(workspace, prefix, is_retrying=is_retrying, listing=listing)[:limit]
    progress = Progress("ingest", len(found))
    outcomes: list[Outcome] = []
    size = workspace.settings.work.chunk_size
    for first in range(0, len(found), size):
        outcomes += _ingest_chunk(workspace, listing, found[first : first + size], progress)
    return publish_report("ingest", outcomes, time.monotonic() - started).as_dict()


def _ingest_chunk(
    workspace: Workspace, listing: RawListing, objects: Sequence[ObjectInfo], progress: Progress
) -> list[Outcome]:
    """Ingest a chunk of raw objects in one Prefect task; a retry continues where it stopped."""
    done: list[Outcome] = []

    @make_io_task("ingest-chunk")
    def ingest_chunk(num_objects: int) -> None:
        for info in objects[len(done) : num_objects]:
            begin = time.monotonic()
            result = ingest_object(workspace, info, listing=listing)
            detail = f"{info.key} {result.reason or ''} {result.note}".strip()
            seconds = round(time.monotonic() - begin, 3)
            done.append(Outcome(result.asset_id, result.outcome, detail, seconds))
            progress.advance()

    ingest_chunk(len(objects))
    return done
