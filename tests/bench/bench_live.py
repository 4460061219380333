"""Click -> preview: the live service in a process of its own, with the default checkpoint.

`python tests/bench/bench_live.py [--clicks 40] [--reviewers 20]` prints a table: one reviewer
clicking round several assets, then many at once who come again when asked to.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from infra.home import read_record
from infra.local import start_refine, stop_service
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_to_glb
from segvigen_model.serialization import proposal_to_bytes
from segvigen_model.types import Proposal
from tasks.catalogue import AssetState, ProposalRow, ReviewTaskRow
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.labelling.loading import load_asset_mesh
from tasks.rendering.contact_sheet import render_sheet
from tasks.rendering.pixel_buffers import Buffers, buffers_to_bytes
from tasks.settings import load_settings
from tasks.storage import keys
from tasks.workspace import Workspace

CATEGORIES = ("chair", "robot", "table", "lamp")
LOGIN = ("label-studio", "bench")
SHEET_PIXELS = 1536
MAX_TRIES = 60


@dataclass
class Shown:
    """An open review task."""

    key: str
    name: str
    num_faces: int
    buffers: Buffers


@dataclass
class Tally:
    """What one reviewer lived through."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    lost: int = 0


def push() -> list[Shown]:
    """Put the assets into review without any desk."""
    workspace = Workspace.from_settings(load_settings())
    store, catalogue = workspace.store, workspace.catalogue
    shown = []
    for seed, category in enumerate(CATEGORIES):
        made = make_asset(category, 100 + seed, textured=False)
        workspace.raw.put(f"{category}.glb", mesh_to_glb(made.mesh))
        known = {asset.asset_id for asset in catalogue.list_assets()}
        for info in scan_raw(workspace):
            ingest_object(workspace, info)
        (asset,) = [row for row in catalogue.list_assets() if row.asset_id not in known]
        labels = np.unique(made.face_labels, return_inverse=True)[1].astype(np.int32)
        num_parts = int(labels.max()) + 1
        proposal = Proposal(labels, np.zeros(1, np.int32), np.ones(num_parts, np.float32), 0.5)
        key = keys.make_proposal_key(asset.asset_id, 0, "hand")
        sha = store.put(key, proposal_to_bytes(proposal)).sha256
        catalogue.move(asset.asset_id, AssetState.ENCODED)
        catalogue.add_proposal(ProposalRow(asset.asset_id, 0, key, sha, num_parts, 0.5, "hand"))
        mesh = load_asset_mesh(store, asset)
        buffers = render_sheet(mesh, labels, width=SHEET_PIXELS, meta={}).buffers
        place = f"review/{category}.npz"
        store.put(place, buffers_to_bytes(buffers))
        catalogue.move(asset.asset_id, AssetState.PROPOSED, round=0)
        catalogue.reviews.add_task(ReviewTaskRow(asset.asset_id, 0, 1, seed, key, "s", place))
        catalogue.move(asset.asset_id, AssetState.IN_REVIEW)
        task = keys.make_review_key(asset.asset_id, 0)
        shown.append(Shown(task, category, mesh.num_faces, buffers))
    return shown


def make_body(task: Shown, user: str, number: int, rng: np.random.Generator) -> dict:
    """A click on a random pixel of the object, in a request as Label Studio sends it."""
    rows, columns = np.nonzero(task.buffers.part >= 0)
    pick = int(rng.integers(len(rows)))
    width, height = task.buffers.size
    parts = int(task.buffers.part.max()) + 1
    label = ["new part", f"part {int(rng.integers(parts))}"][number % 2]
    x, y = (columns[pick] + 0.5) / width * 100, (rows[pick] + 0.5) / height * 100
    value = {"x": float(x), "y": float(y), "width": 0.9, "keypointlabels": [label]}
    click = {"id": f"{user}-{number}", "from_name": "click", "value": value, "is_positive": True}
    draft = {"user": user, "updated_at": "2026-01-01T00:00:00Z", "result": []}
    data = {"id": 1, "data": {"key": task.key}, "drafts": [draft]}
    return {"tasks": [data], "params": {"context": {"result": [click]}}}


def send_request(client: httpx.Client, url: str, sent: dict, tally: Tally) -> None:
    """Send one click, and again whenever the service says so."""
    begin = time.perf_counter()
    for _ in range(MAX_TRIES):
        got = client.post(f"{url}/predict", json=sent)
        if got.status_code != 503:
            break
        tally.refused += 1
        time.sleep(float(got.headers["Retry-After"]))
    if got.status_code == 200:
        tally.seconds.append(time.perf_counter() - begin)
    else:
        tally.lost += 1


def run_review(url: str, tasks: list[Shown], user: str, seed: int, num: int, tally: Tally) -> None:
    """One reviewer: some clicks on one task after the other."""
    rng = np.random.default_rng(seed)
    with httpx.Client(auth=LOGIN, timeout=120, trust_env=False) as client:
        for number in range(num):
            task = tasks[(seed + number // 3) % len(tasks)]
            send_request(client, url, make_body(task, f"{user}@{task.name}", number, rng), tally)


def cpu_seconds(folder: Path) -> float:
    """Processor time that the service has used: what a busy machine cannot hide."""
    record = read_record(folder, "refine")
    fields = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def format_row(name: str, tallies: list[Tally], cpu_s: float) -> str:
    """A line of the table."""
    seconds = np.concatenate([tally.seconds for tally in tallies])
    p50, p95 = np.percentile(seconds, [50, 95])
    refused, lost = sum(t.refused for t in tallies), sum(t.lost for t in tallies)
    timing = (f"{p50:.2f}", f"{p95:.2f}", f"{seconds.max():.2f}", f"{cpu_s / len(seconds):.2f}")
    cells = (name, len(seconds), *timing, refused, lost)
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--reviewers", type=int, default=20)
    parser.add_argument("--clicks-each", type=int, default=3)
    parser.add_argument("--max-waiting", type=int, default=8)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {
            "SEGVIGEN_STORE_ROOT_URL": f"file://{folder}/store",
            "SEGVIGEN_STORE_RAW_URL": f"file://{folder}/raw",
            "SEGVIGEN_CATALOGUE_URL": f"sqlite:///{folder}/catalogue.db",
            "SEGVIGEN_REVIEW_LIVE_PASSWORD": LOGIN[1],
            "SEGVIGEN_LIVE_IS_OPEN": "true",
            "SEGVIGEN_LIVE_MAX_WAITING": str(chosen.max_waiting),
        }
        os.environ.update(env)
        tasks = push()
        begin = time.perf_counter()
        url = start_refine(folder, env)
        try:
            while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
                time.sleep(0.2)
            print(f"ready after {time.perf_counter() - begin:.1f} s; load {os.getloadavg()[0]:.1f}")
            measure(url, folder, tasks, chosen)
        finally:
            stop_service(folder, "refine")


def measure(url: str, folder: Path, tasks: list[Shown], chosen: argparse.Namespace) -> None:
    """Print the table."""
    print("faces: " + ", ".join(f"{task.name} {task.num_faces}" for task in tasks))
    print("| | clicks | p50 s | p95 s | worst s | CPU s each | sent away | lost |")
    print("|" + "---|" * 8)
    before = cpu_seconds(folder)

    def spent() -> float:
        nonlocal before
        before, last = cpu_seconds(folder), before
        return before - last

    cold = Tally()
    with httpx.Client(auth=LOGIN, timeout=120, trust_env=False) as client:
        for task in tasks:
            send_request(client, url, make_body(task, "cold", 0, np.random.default_rng(7)), cold)
    print(format_row("first click on an asset nobody opened", [cold], spent()))
    warm = Tally()
    run_review(url, tasks, "one", 1, chosen.clicks, warm)
    print(format_row("one reviewer, assets warm", [warm], spent()))
    tallies = [Tally() for _ in range(chosen.reviewers)]
    threads = [
        threading.Thread(
            target=run_review, args=(url, tasks, f"r{n}", n, chosen.clicks_each, tally)
        )
        for n, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(format_row(f"{chosen.reviewers} reviewers at once", tallies, spent()))


if __name__ == "__main__":
    main()
