"""The pipeline's part of the `segvigen` command: start the stack, run the flows, show the state.

Prefect is imported only by commands that run flows, after its settings are set.
"""

from __future__ import annotations

import typer

from segvigen_model.command import main as library
from segvigen_model.command.options import handle_errors
from segvigen_model.errors import MissingExtra

OURS = ("flows", "tasks", "infra", "deployments", "segvigen_model")


def make_app() -> typer.Typer:
    """Make the whole command, whatever is installed."""
    app = library.make_app()
    add_commands(app)
    return app


def add_commands(app: typer.Typer) -> None:
    """Add the pipeline's subcommands; entry point of the group `segvigen.commands`.

    Raises:
        MissingExtra: a package of the extra `pipeline` is not installed.
    """
    try:
        from flows.cli import (
            assets,
            db,
            devices,
            doctor,
            finetune,
            quality,
            quarantine,
            recovery,
            stack,
            stages,
        )
        from flows.cli.options import load_dotenv
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] in OURS:
            raise
        hint = "pip install -e '.[pipeline,review]' in the checkout"
        raise MissingExtra(err.name or "a package", hint) from err

    @app.callback()
    def begin() -> None:
        # Before the options of any command are read: SEGVIGEN_HOME may be set there.
        with handle_errors():
            load_dotenv()

    for group in (stack, stages, assets, quality, finetune, recovery, doctor, devices):
        app.add_typer(group.app)
    app.add_typer(db.app, name="db")
    app.add_typer(quarantine.app, name="quarantine")


def main() -> None:
    """Run the whole command without its script."""
    make_app()()


if __name__ == "__main__":
    main()
