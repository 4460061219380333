"""A scan that looks up pages of keys finds what one that holds the whole catalogue would find."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasks.catalogue import RawRow
from tasks.ingest import ingest
from tasks.ingest.ingest import LACKING, MISSING_EXTRA, NOT_READABLE, scan_raw
from tasks.ingest.listing import RawListing, is_candidate
from tasks.storage.keys import escape_key
from tasks.storage.store import ObjectInfo

SUFFIXES = (".glb", ".obj", ".png", " \x01.ply")  # the last is escaped in the catalogue
REASONS = (None, None, None, "no_faces", NOT_READABLE, MISSING_EXTRA, LACKING)


def _expected(catalogue: Any, listing: RawListing, is_retrying: bool) -> list[str]:
    """What the scan of version 0.2.0 found: sets of all keys, in memory."""
    seen, awaited = catalogue.raw.list_etags(), catalogue.raw.list_awaited()
    rows = catalogue.raw.list_all()
    again = {row.key for row in rows if row.reason in (NOT_READABLE, MISSING_EXTRA)}
    again |= {row.key for row in rows if row.reason == LACKING} - awaited.keys()
    again |= {row.key for row in rows if row.reason and is_retrying}
    again |= {key for key, files in awaited.items() if listing.has_any(key, files)}
    return [
        info.key
        for info in listing
        if is_candidate(info.key)
        and (seen.get(escape_key(info.key)) != info.etag or escape_key(info.key) in again)
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_retrying", [False, True])
def test_pages_find_what_the_whole_table_would(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, seed: int, is_retrying: bool
) -> None:
    monkeypatch.setattr(ingest, "PAGE_SIZE", 7)
    rng, objects = random.Random(seed), []
    with pipeline.catalogue.transaction():
        for number in range(60):
            name = f"f{number % 5}/{number:02d}{rng.choice(SUFFIXES)}"
            objects.append(ObjectInfo(name, 1, "now", 0.0))
            if rng.random() < 0.7:
                reason, etag = rng.choice(REASONS), rng.choice(["now", "now", "older"])
                lacks = [f"f{number % 5}/{rng.choice(['t.png', 'gone.png'])}"]
                awaited = rng.choice([None, lacks])
                row = RawRow(escape_key(name), etag, 1, reason=reason)
                pipeline.catalogue.raw.record(row, awaited)
    objects += [ObjectInfo(f"f{number}/t.png", 1, "now", 0.0) for number in range(2)]
    listing = RawListing(sorted(objects, key=lambda info: info.key))
    expected = _expected(pipeline.catalogue, listing, is_retrying)
    found = scan_raw(pipeline.workspace, is_retrying=is_retrying, listing=listing)
    assert [info.key for info in found] == expected
    assert 0 < len(expected) < sum(is_candidate(info.key) for info in listing)
