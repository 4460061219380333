"""What every subcommand prints with: two consoles, tables of one style, errors on one line."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console()
err = Console(stderr=True)


def sanitize_text(text: str) -> str:
    """Escape untrusted text: it brings neither markup nor control characters."""
    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))


def print_error(kind: str, error: Exception) -> None:
    """Print an error on one line of standard error."""
    err.print(f"[bold red]{kind}:[/] {sanitize_text(str(error))}", soft_wrap=True)


def make_table(title: str, *columns: str) -> Table:
    """Make an empty table."""
    made = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=number == 0, overflow="fold")
    return made
