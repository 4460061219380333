"""Flow: fetch the reviewers' annotations and act on them.

Polling is authoritative; a webhook only makes the next poll come earlier.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow

from flows.runtime.chunks import make_io_task
from flows.runtime.label_studio import pull_from_review
from flows.runtime.report import Outcome, publish_report, publish_table
from tasks.quality.statistics import build_quality_state, render_markdown
from tasks.workspace import Overrides, Workspace, open_workspace

WAKE_UP = "webhook"  # cursor that the refine service sets on a webhook of Label Studio


@flow(name="pull_review")
def pull_review(
    settings_file: str | None = None, overrides: Overrides | None = None
) -> dict[str, Any]:
    """Store new annotations as they are, then interpret them.

    Args:
        settings_file: TOML file of settings.
        overrides: section -> field -> value; no secrets.

    Returns:
        Counts by verdict and seconds.
    """
    started = time.monotonic()
    workspace = open_workspace(settings_file, overrides, "pull_review")

    @make_io_task("pull-answers")
    def pull() -> list[Outcome]:
        return pull_from_review(workspace)

    report = publish_report("pull_review", pull(), time.monotonic() - started)
    publish_reviewers(workspace)
    return report.as_dict()


def publish_reviewers(workspace: Workspace) -> None:
    """Write the table of reviewers as an artifact of the run."""
    state = build_quality_state(workspace)
    rows = state["reviewers"]
    if rows:
        publish_table("reviewers", rows, f"## Reviewers\n\n{render_markdown(rows)}")
