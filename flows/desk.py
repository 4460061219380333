"""The reviewers' desk as the flows use it: push a chunk, ask for answers once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.context import Context
from flows.report import Outcome


def push_to_desk(context: Context, asset_ids: Sequence[str]) -> Iterator[Outcome]:
    """Make the review tasks of leased, proposed assets; tells what became of each."""
    raise RuntimeError


def pull_from_desk(context: Context) -> list[Outcome]:
    """Ask the desk once; returns what each new answer led to."""
    raise RuntimeError
