"""`segvigen devices`: GPUs that failed, and how to take one for well again."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console
from flows.cli.options import Config, Home, enter_stack
from infra.local import DEFAULT_HOME
from segvigen_model.command import terminal
from segvigen_model.command.options import handle_errors
from tasks.settings import load_settings
from tasks.workspace import open_catalogue

app = typer.Typer()


@app.command()
def devices(
    home: Home = DEFAULT_HOME,
    config: Config = None,
    clear: Annotated[str, typer.Option(help="Name of a device that is well again.")] = "",
) -> None:
    """Devices that are sick, with the asset that they failed on; stages leave them alone."""
    from dataclasses import asdict

    with handle_errors():
        enter_stack(home, config, needs_store=False)
        catalogue = open_catalogue(load_settings())
        if clear:
            is_changed = catalogue.devices.clear(clear)
            said = "is taken for well" if is_changed else "was not sick"
            terminal.out.print(f"{terminal.sanitize_text(clear)} {said}")
        rows = [asdict(row) for row in catalogue.devices.list_sick()]
    console.show_sick_devices(rows)
