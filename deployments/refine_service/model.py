"""Loads what the model thread needs, and runs it once.

Compiled loops and thread pools are ready then: no reviewer waits for a first time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from segvigen_model.types import Click
from tasks.checkpoints import checkpoint_in_use
from tasks.labelling.segmenter import Segmenter
from tasks.live.session import LiveDesk
from tasks.settings import Settings
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

WARM_UP_CATEGORY, WARM_UP_SEED = "chair", 0


def desk_opener(settings: Settings) -> Callable[[], LiveDesk]:
    """A function that loads the settings' model and stores."""

    def open_desk() -> LiveDesk:
        from segvigen_model.segmenter import Segmenter as Loaded

        begin = time.perf_counter()
        workspace = Workspace.from_settings(settings, "refine_service")
        segmenter = Loaded.from_checkpoint(
            checkpoint_in_use(workspace),
            settings.model.device,
            num_kept=settings.live.max_assets,
        )
        warm_up(segmenter)
        log.info("service=refine model_seconds=%.1f", time.perf_counter() - begin)
        return LiveDesk(workspace.store, workspace.catalogue, segmenter, settings.model)

    return open_desk


def warm_up(segmenter: Segmenter) -> None:
    """Go the whole way once: compiled loops and thread pools are ready then."""
    from segvigen_model.datasets.procedural import make_asset

    made = make_asset(WARM_UP_CATEGORY, WARM_UP_SEED, textured=False)
    encoding = segmenter.encode(made.mesh)
    click = Click(face=0, xyz=made.mesh.triangles[0].mean(axis=0), part=0)
    segmenter.refine(made.mesh, encoding, made.face_labels, [click])
