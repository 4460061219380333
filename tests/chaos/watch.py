"""What the conductor knows of the run: the catalogue, read from outside, through outages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from segvigen_model.types import IntArray
from tasks.catalogue.engine import open_engine
from tasks.settings import Settings, load_settings
from tests.chaos.inputs import Fate, Input

STAYS = frozenset({"sharded", "rejected", "failed", "skipped"})


class Watch:
    """Reads the catalogue.

    Args:
        url: of the catalogue.
        inputs: of the run.
    """

    def __init__(self, url: str, inputs: list[Input]) -> None:
        self._engine = open_engine(url)
        self._inputs = {each.key: each for each in inputs}
        self.truth: dict[str, IntArray] = {}
        self.thrown: set[str] = set()
        self.passed: set[str] = set()
        self.num_events = 0
        self.counts: Counter[str] = Counter()
        self._keys: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Is every input seen, and every asset in a state in which it stays?"""
        return self._keys == set(self._inputs) and set(self.counts) <= STAYS

    def look(self) -> None:
        """Read what has changed; an outage changes nothing."""
        try:
            with self._engine.connect().execution_options(is_reading=True) as connection:
                self._read(connection)
        except sa.exc.SQLAlchemyError:
            self._engine.dispose()

    def _read(self, connection: sa.Connection) -> None:
        found = connection.execute(sa.text("select max(event_id) from events")).scalar()
        if not found or found == self.num_events:
            return
        states = connection.execute(sa.text("select state, count(*) from assets group by state"))
        self.counts = Counter({str(state): int(number) for state, number in states})
        for key, asset_id in connection.execute(sa.text("select key, asset_id from raw_objects")):
            self._keys.add(key)
            self._learn(self._inputs.get(key), asset_id)
        self.num_events = int(found)

    def _learn(self, item: Input | None, asset_id: str | None) -> None:
        if item is None or item.truth is None or not asset_id:
            return
        if item.fate is Fate.THROWN:
            self.thrown.add(asset_id)
        elif item.fate is Fate.PASSED:
            self.passed.add(asset_id)
        self.truth[asset_id] = item.truth

    @staticmethod
    def settings_of(env: Mapping[str, str]) -> Settings:
        """The settings that these variables make."""
        with environment(env):
            return load_settings()


@contextmanager
def environment(env: Mapping[str, str]) -> Iterator[None]:
    """Exactly these SEGVIGEN_ variables for the block."""
    held = {name: text for name, text in os.environ.items() if name.startswith("SEGVIGEN_")}
    for name in held:
        del os.environ[name]
    os.environ.update({name: text for name, text in env.items() if name.startswith("SEGVIGEN_")})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("SEGVIGEN_")]:
            del os.environ[name]
        os.environ.update(held)
