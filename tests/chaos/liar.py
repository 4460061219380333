"""The liar of `tests.faults` in a forked process, with counts that outlive it."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults import Lies, LyingStore, _install

FILE = "lies.txt"  # one line a lie


class CountingLiar(LyingStore):
    """Writes every lie down before it has an effect: the process may be killed at any time.

    Args:
        lies: how often.
        rng: of this process.
        folder: of the run.
    """

    def __init__(self, lies: Lies, rng: random.Random, folder: Path) -> None:
        super().__init__(lies, rng)
        self._file = folder / FILE

    def install(self) -> None:
        """Take the place of the liar that the nursery was started with."""
        _install(self)

    def answer(self, name: str, data: bytes) -> bytes:
        """As the base class."""
        before = self.num_lies.copy()
        try:
            return super().answer(name, data)
        finally:
            lines = "\n".join((self.num_lies - before).elements())
            if lines:
                with self._file.open("a") as file:
                    file.write(lines + "\n")


def count_lies(folder: Path) -> dict[str, int]:
    """Kind of lie -> how often flow processes got it."""
    path = folder / FILE
    lines = path.read_text().split() if path.exists() else []
    return {f"lies: {kind}": lines.count(kind) for kind in ("short", "flipped", "stale")}
