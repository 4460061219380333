"""One measurement of `bench_scale.py`, in a process of its own, with any checkout's modules.

`python tests/bench/scale_measures.py NAME ROWS`, with the checkout on PYTHONPATH and the catalogue
in SEGVIGEN_CATALOGUE_URL; prints one JSON object. Modules of version 0.1.0 (a4d9af9) have other
names for the same calls.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scale_rows import make_etag, make_id, make_key

from tasks.catalogue import Catalogue
from tasks.settings import load_settings

REPEATS = 3
CLAIM_SIZE, NUM_CLAIMS = 20, 25
NEW_EVERY = 100  # of the listed objects every so many-th is not in the catalogue


def call_first(*names: str) -> Callable[..., Any]:
    """Make a getter of the first of an object's attributes that is there."""
    return lambda thing: next(getattr(thing, name) for name in names if hasattr(thing, name))


def count(catalogue: Any, _rows: int) -> None:
    """Number of assets by state."""
    call_first("count_assets", "counts")(catalogue)()


def read_status(catalogue: Any, _rows: int) -> None:
    """Everything that `segvigen status --json` shows."""
    home = Path("/nonexistent")
    try:
        from flows.cli.assets import read_state

        read_state(catalogue, SimpleNamespace(home=home))
    except ModuleNotFoundError:
        from flows.cli_view import read_state as read_old_state

        read_old_state(load_settings(), home)


def show(catalogue: Any, rows: int) -> None:
    """Everything that `segvigen show ID` shows."""
    try:
        from flows.cli.assets import find_asset, read_asset
    except ModuleNotFoundError:
        from flows.cli_show import find_asset, read_asset
    read_asset(catalogue, find_asset(catalogue, make_id(rows // 2)[:12]))


def poll(catalogue: Any, _rows: int) -> None:
    """What a waiting run asks of the catalogue before it asks Label Studio."""
    call_first("get_cursor", "cursor")(catalogue.raw)("pull")
    call_first("list_uninterpreted", "uninterpreted")(catalogue.reviews)()
    if hasattr(catalogue, "overview"):
        catalogue.overview.has_assets(["registered", "encoded", "proposed", "refining"])
    else:
        call_first("count_assets", "counts")(catalogue)()


def plan_shards(catalogue: Any, _rows: int) -> None:
    """The entries of a dataset version."""
    try:
        from tasks.shards.entries import collect_entries
    except ModuleNotFoundError:
        from tasks.shards import _entries as collect_entries
    good, lost = collect_entries(catalogue)
    assert good and not lost


def scan(catalogue: Any, rows: int) -> None:
    """What is new in a listing of all keys that is in memory; listing them is not measured."""
    try:
        from tasks.ingest.ingest import scan_raw
        from tasks.ingest.listing import RawListing
        from tasks.storage.store import ObjectInfo
    except ModuleNotFoundError:
        from tasks.store import ObjectInfo

        from tasks.ingest import scan_raw

        RawListing = None
    infos = [ObjectInfo(make_key(n), 1, make_etag(n), 0.0) for n in range(rows)]
    infos += [ObjectInfo(f"new/{n}.glb", 1, "e", 0.0) for n in range(rows // NEW_EVERY)]
    begin = time.perf_counter()
    if RawListing is None:
        found = scan_raw(SimpleNamespace(list=lambda _prefix: infos), catalogue)
    else:
        raw = SimpleNamespace(is_local=False)
        settings = SimpleNamespace(ingest=SimpleNamespace(quiet_s=0.0))
        workspace = SimpleNamespace(catalogue=catalogue, raw=raw, settings=settings)
        found = scan_raw(workspace, listing=RawListing(infos))
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak_mib": read_peak()}))
    assert len(found) == rows // NEW_EVERY, len(found)


def claim(catalogue: Any, _rows: int) -> None:
    """Claims of 20, from the line on the standard input on; given back at the end."""
    worker, held, times = f"bench/{os.getpid()}", [], []
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(NUM_CLAIMS):
        begin = time.perf_counter()
        rows = catalogue.claim(["registered"], CLAIM_SIZE, worker)
        times.append(time.perf_counter() - begin)
        held += [row.asset_id for row in rows]
    print(json.dumps({"times": times, "ids": held, "peak_mib": read_peak()}), flush=True)
    sys.stdin.readline()  # the others are done, too
    catalogue.release(held, worker)


def read_peak() -> float:
    """Highest resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


MEASURES: dict[str, Callable[[Any, int], None]] = {
    "counts_s": count,
    "status_s": read_status,
    "show_s": show,
    "pull_poll_s": poll,
    "shard_plan_s": plan_shards,
}
ALONE: dict[str, Callable[[Any, int], None]] = {"scan_s": scan, "claim_s": claim}


def main() -> None:
    """Run one measurement; prints seconds (the median of some calls) and the peak of memory."""
    name, rows = sys.argv[1], int(sys.argv[2])
    catalogue = Catalogue(load_settings().catalogue.url.get_secret_value())
    if name in ALONE:
        ALONE[name](catalogue, rows)
        return
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        MEASURES[name](catalogue, rows)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": statistics.median(times), "peak_mib": read_peak()}))


if __name__ == "__main__":
    main()
