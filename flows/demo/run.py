"""The whole loop on the local stack: raw meshes, proposals, a reviewer, shards.

Procedural meshes are put into the bucket, a worker runs `label_dataset`, and meanwhile a scripted
reviewer (or a person) works in Label Studio. Running it again changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment

from flows.console import show_access
from flows.demo import table
from flows.demo.assets import PREFIX, REJECTED, DemoObject, make_objects
from flows.runtime.label_studio import open_review_project
from infra.local import LocalStack
from segvigen_model.command.terminal import err, out, sanitize_text
from segvigen_model.errors import SegvigenError
from segvigen_model.types import IntArray
from tasks.review.scripted_reviewer import ScriptedReviewer
from tasks.storage.store import BlobConflict, Store
from tasks.workspace import Workspace, open_workspace

DEPLOYMENT = "label_dataset/gpu"
POLL_S = 1.0
INGEST_TIMEOUT_S = 300.0


class DemoFailed(SegvigenError):
    """The demo could not be completed."""


def run_demo(stack: LocalStack, reviewer: str, wait_s: float) -> bool:
    """Run the loop to its end.

    Args:
        stack: running, with workers and deployments.
        reviewer: "scripted" or "human".
        wait_s: how long the reviewer may take.

    Returns:
        True if every asset is accepted or parked, every label set valid, every shard readable.
    """
    started = time.monotonic()
    workspace = open_workspace(tag="demo")
    objects = make_objects()
    _fill_bucket(workspace, objects)
    run_id = _start_flow(wait_s)
    err.print(
        f"label_dataset runs; watch it at {get_stack_url(stack, 'prefect')}/runs/flow-run/{run_id}"
    )
    truth = _wait_for_ingest(workspace, objects, run_id)
    if reviewer == "scripted":
        with _run_reviewer(workspace, truth, _find_asset(workspace, objects, REJECTED)):
            _watch_run(workspace, run_id)
    else:
        show_access(stack)
        out.print(
            f"Your turn: open {open_review_project(workspace).url} and choose Label All Tasks."
        )
        _watch_run(workspace, run_id)
    table.show_rows(table.describe_objects(workspace, objects))
    wrong = table.find_problems(workspace, objects)
    for line in wrong:
        out.print(f"[bold red]problem:[/] {line}")
    show_access(stack)
    out.print(f"The annotations are in {open_review_project(workspace).url}", soft_wrap=True)
    out.print(f"{'Incomplete' if wrong else 'Complete'} in {time.monotonic() - started:.0f} s")
    return not wrong


def get_stack_url(stack: LocalStack, name: str) -> str:
    """URL of a running service of the stack."""
    return next((row.url or "" for row in stack.list_status() if row.name == name), "")


def _fill_bucket(workspace: Workspace, objects: list[DemoObject]) -> None:
    # The pipeline's own keys of the raw bucket may only read.
    store = workspace.settings.store
    raw = Store.from_settings(store.model_copy(update={"root_url": store.raw_url}))
    for item in objects:
        try:
            raw.put(item.key, item.data)
        except BlobConflict as error:
            raise DemoFailed(
                f"{item.key} in the raw bucket is of another version of the demo; "
                "use a fresh folder: segvigen demo --home .segvigen-new"
            ) from error


def _start_flow(wait_s: float) -> UUID:
    """Start `label_dataset` on the worker."""
    # Every asset is reviewed, also those that pass the gate.
    overrides = {"gate": {"audit_share": 1.0}}
    parameters = {"prefix": PREFIX, "review_wait_s": wait_s, "overrides": overrides}
    run = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False)
    return UUID(str(run.id))  # type: ignore[union-attr]


def _is_over(run_id: UUID) -> bool:
    """Return whether the flow run is completed; raises DemoFailed when it has failed."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    if state is None or not state.is_final():
        return False
    if not state.is_completed():
        raise DemoFailed(f"label_dataset ended as {state.name}: {state.message}")
    return True


def _wait_for_ingest(
    workspace: Workspace, objects: list[DemoObject], run_id: UUID
) -> Mapping[str, IntArray]:
    """Return true labels by asset id, as soon as every object is ingested."""
    deadline = time.monotonic() + INGEST_TIMEOUT_S
    labelled = {item.key: item.true_labels for item in objects if item.true_labels is not None}
    while time.monotonic() < deadline:
        found = {raw.key: raw.asset_id for raw in workspace.catalogue.raw.list_all()}
        if all(found.get(key) for key in labelled):
            return {str(found[key]): labels for key, labels in labelled.items()}
        _is_over(run_id)
        time.sleep(POLL_S)
    raise DemoFailed(f"nothing was ingested within {INGEST_TIMEOUT_S:.0f} s; is a worker running?")


def _find_asset(workspace: Workspace, objects: list[DemoObject], category: str) -> str:
    key = next(item.key for item in objects if item.name.startswith(f"{category}."))
    row = workspace.catalogue.raw.get(key)
    return str(row.asset_id) if row else ""


def _watch_run(workspace: Workspace, run_id: UUID) -> None:
    """Print the counts by state until the run is over."""
    last_line = ""
    while not _is_over(run_id):
        counts = {str(s): n for s, n in workspace.catalogue.count_assets().items() if n}
        line = ", ".join(f"{number} {state}" for state, number in counts.items())
        if line != last_line:
            err.print(line, highlight=False)
            last_line = line
        time.sleep(POLL_S)


@contextmanager
def _run_reviewer(
    workspace: Workspace, truth: Mapping[str, IntArray], reject: str
) -> Iterator[None]:
    """Let the scripted reviewer work in Label Studio while the block runs."""
    reviewer = ScriptedReviewer(
        open_review_project(workspace), workspace.store, truth, frozenset({reject})
    )
    stop = threading.Event()
    failed: list[Exception] = []

    def work() -> None:
        while not stop.wait(POLL_S):
            try:
                reviewer.step()
            except Exception as error:  # printed below: it would be lost with the thread
                failed.append(error)
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        for error in failed:
            err.print(f"[red]the scripted reviewer failed:[/] {sanitize_text(str(error))}")
