"""What a forked flow process does: one flow after another until the run is over.

A flow that fails ends the process, as a flow run ends; the conductor starts the next one.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.chaos.inputs import PREFIX
from tests.chaos.liar import CountingLiar
from tests.chaos.points import Points
from tests.faults import Lies

STOP_FILE = "stop"
PAUSE_S = 0.3
ENDED, FAILED, MISUSED = 0, 1, 3
STAGES = {
    "ingest": "flows.ingest",
    "encode": "flows.model_stages",
    "propose": "flows.model_stages",
    "push_review": "flows.push_review",
    "pull_review": "flows.pull_review",
    "refine": "flows.model_stages",
    "build_shards": "flows.build_shards",
}
MODULES = (
    "flows.label_dataset",
    "tasks.checkpoints",
    "segvigen_model.segmenter",
    "tasks.review.sdk",
    "s3fs",
)


def warm_up() -> None:
    """Import what flows import; no thread may be started here."""
    for name in MODULES:
        importlib.import_module(name)


def run(order: dict[str, Any], folder: Path) -> int:
    """Run flows until the stop file is there.

    Args:
        order: `role` ("label_dataset", "stages", or "once"), `seed`, `wait_s` of label_dataset,
            `lies`.
        folder: of the chaos run.

    Returns:
        Exit code.
    """
    CountingLiar(Lies(**order["lies"]), random.Random(order["seed"]), folder).install()
    try:
        Points(folder).install()
    except (AttributeError, ImportError):
        traceback.print_exc()
        return MISUSED
    rng = random.Random(order["seed"])
    while not (folder / STOP_FILE).exists():
        try:
            _run_flow(order, rng)
        except Exception:  # whatever it is, the next process goes on
            traceback.print_exc()
            return FAILED
        if order["role"] == "once":
            break
        sys.stdout.flush()
        time.sleep(PAUSE_S)
    return ENDED


def _run_flow(order: dict[str, Any], rng: random.Random) -> None:
    if order["role"] != "stages":
        from flows.label_dataset import label_dataset

        wait_s = 0.0 if order["role"] == "once" else order["wait_s"]
        label_dataset(prefix=PREFIX, review_wait_s=wait_s)
        return
    name = rng.choice(list(STAGES))
    flow = getattr(importlib.import_module(STAGES[name]), name)
    flow(**({"prefix": PREFIX} if name == "ingest" else {}))
