"""Where the `segvigen` command begins: tells in one line what to install when it cannot.

`pip install .` brings the library alone, and this command with it.
"""

from __future__ import annotations

import sys

NOT_READY = 3  # as in cli_options, which cannot be imported then
OURS = ("flows", "tasks", "infra", "deployments", "segvigen_model")


def main() -> None:
    """Run the command line."""
    try:
        from flows.cli.main import main as run
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] in OURS:
            raise
        sys.stderr.write(
            f"not ready: the command needs {err.name}; "
            "pip install 'segvigen-pipeline[pipeline,review]' (in a clone: '.[pipeline,review]')\n"
        )
        raise SystemExit(NOT_READY) from None
    run()
