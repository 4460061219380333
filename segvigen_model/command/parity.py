"""`segvigen parity`: compare with recorded results of the official code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def parity(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder with golden sets.")
    ],
) -> None:
    """Compare with golden sets of the official code; 1 = a quantity is off, 2 = no set found."""
    from segvigen_model.parity.__main__ import main

    raise typer.Exit(main([str(folder)]))
