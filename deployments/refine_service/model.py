"""Load what the model thread needs, and open one sample asset with it.

This compiles loops and starts thread pools before the first reviewer clicks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tasks.checkpoints import load_segmenter
from tasks.labelling.segmenter import Segmenter
from tasks.live.session import LiveSession
from tasks.settings import Settings
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

SAMPLE_CATEGORY, SAMPLE_SEED = "chair", 0


def make_session_opener(settings: Settings) -> Callable[[], LiveSession]:
    """Make a function that loads model and stores by the settings."""

    def open_session() -> LiveSession:
        begin = time.perf_counter()
        workspace = Workspace.from_settings(settings, "refine_service")
        segmenter = load_segmenter(workspace)
        open_sample(segmenter)
        log.info("service=refine model_seconds=%.1f", time.perf_counter() - begin)
        return LiveSession(workspace, segmenter)

    return open_session


def open_sample(segmenter: Segmenter) -> None:
    """Open a small procedural asset, to compile loops and start thread pools."""
    from segvigen_model.datasets.procedural import make_asset

    made = make_asset(SAMPLE_CATEGORY, SAMPLE_SEED, textured=False)
    segmenter.open(made.mesh).prepare()
