"""The `segvigen` command: subcommands of the library, and those of installed additions.

An addition is an entry point of the group `segvigen.commands`: a function that takes the command's
`typer.Typer` and adds to it. A subcommand of a name that is there already replaces it. The wheel
names the pipeline's addition too, although it holds the library alone: whoever has a checkout
beside it gets the whole command.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec

import typer

from segvigen_model.command import doctor, evaluate, parity, segment, terminal, weights
from segvigen_model.config.threads import set_thread_variables
from segvigen_model.errors import MissingExtra

ADDITIONS = "segvigen.commands"


def make_app() -> typer.Typer:
    """Make the command with the library's own subcommands."""
    app = typer.Typer(
        name="segvigen",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Raw 3D meshes in, part labels out.\n\n"
        "Exit codes: 0 done, 1 it went wrong, 2 wrong usage, 3 something is missing or stopped.",
    )
    app.command()(segment.segment)
    app.command()(evaluate.evaluate)
    app.command()(parity.parity)
    app.command()(doctor.doctor)
    app.add_typer(weights.app, name="weights")
    return app


def load_additions(app: typer.Typer) -> None:
    """Add the subcommands of every addition that is installed."""
    for entry in entry_points(group=ADDITIONS):
        if not is_installed(entry.module):
            continue
        try:
            entry.load()(app)
        except MissingExtra as err:
            terminal.print_error(f"subcommands of {entry.name} left out", err)


def is_installed(module: str) -> bool:
    """Return whether a module can be found; its packages are imported, the module is not."""
    names = module.split(".")
    for number in range(1, len(names) + 1):
        spec = find_spec(".".join(names[:number]))
        if spec is None or (number < len(names) and spec.submodule_search_locations is None):
            return False
    return True


def main() -> None:
    """Entry point of the `segvigen` command."""
    set_thread_variables(os.environ)
    app = make_app()
    load_additions(app)
    app()
