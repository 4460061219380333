"""`segvigen db`: the schema of the catalogue."""

from __future__ import annotations

import typer

from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import handle_errors
from tasks.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Maintain the catalogue's database.")


@app.callback()
def _group() -> None:
    """Keep `upgrade` a subcommand, although it is the only one."""


@app.command()
def upgrade(home: Home = DEFAULT_HOME, config: Config = None) -> None:
    """Bring the catalogue to the newest schema; stop its workers first.

    A SQLite file is copied first, into a file beside it. PostgreSQL is upgraded in one
    transaction: make a backup with pg_dump first.
    """
    from tasks.catalogue import upgrade_catalogue

    with handle_errors():
        enter_stack(home, config, needs_store=False)
        done = upgrade_catalogue(load_settings().catalogue.url.get_secret_value())
    if done.before is None:
        terminal.out.print(f"made a new catalogue, schema {done.after}")
    elif done.before == done.after:
        terminal.out.print(f"the catalogue has the newest schema, {done.after}")
    else:
        terminal.out.print(f"upgraded the catalogue from schema {done.before} to {done.after}")
    if done.backup is not None:
        terminal.out.print(f"backup: {terminal.sanitize_text(str(done.backup))}")
