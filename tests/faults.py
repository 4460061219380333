"""Reads that lie: short, bit-flipped and stale answers of the store, drawn by a seed.

`LyingStore` sits between `Store` and the file system that it really uses (a folder or an S3
server): every read goes through, and some answers are changed on their way back.

- short: the object's first bytes, of a random length; as if a connection had ended early.
- flipped: one bit is another.
- stale: the answer to an earlier read of another object, or "not there" where there was none yet;
  as a cache or a replica that lags would give.

In a unit test: `with lying_reads(Lies(seed=1, short=0.3)): ...` changes every `Store` of this
process. In other processes: start them with `SEGVIGEN_TEST_LIES` set to the same, as JSON, e.g.
`{"seed": 1, "short": 0.02, "flipped": 0.02, "stale": 0.02}`, and with `tests/faults_site` in front
of PYTHONPATH: its `sitecustomize.py` calls `install_from_environment` in every Python process that
can import `tasks`. `lying_environment(lies)` gives these variables. Nothing in the product reads
them. Each process draws from (seed, its pid), so that a retry elsewhere meets other lies.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.storage.errors import BlobMissing
from tasks.storage.store import Store

VARIABLE = "SEGVIGEN_TEST_LIES"
SITE_FOLDER = Path(__file__).parent / "faults_site"
NUM_REMEMBERED = 8  # earlier answers, of which a stale one is taken


@dataclass(frozen=True)
class Lies:
    """How often a read lies: probabilities of each kind, 0..1, together at most 1."""

    seed: int = 0
    short: float = 0.0
    flipped: float = 0.0
    stale: float = 0.0


class LyingStore:
    """The liar: changes answers of `Store._fetch`, counts its lies in `num_lies`.

    Args:
        lies: how often.
        rng: None = seeded by `lies.seed`.
    """

    def __init__(self, lies: Lies, rng: random.Random | None = None) -> None:
        self.lies = lies
        self.num_lies: Counter[str] = Counter()
        self._rng = rng or random.Random(lies.seed)
        self._earlier: deque[tuple[str, bytes]] = deque(maxlen=NUM_REMEMBERED)
        self._lock = threading.Lock()

    def answer(self, name: str, data: bytes) -> bytes:
        """The true answer to a read of `name`, or a lie in its place."""
        with self._lock:
            others = [earlier for other, earlier in self._earlier if other != name]
            self._earlier.append((name, data))
            lies = self.lies
            kinds, weights = ("short", "flipped", "stale"), (lies.short, lies.flipped, lies.stale)
            kind = self._rng.choices((*kinds, ""), (*weights, max(0.0, 1 - sum(weights))))[0]
            if not kind or (kind != "stale" and not data):
                return data
            self.num_lies[kind] += 1
            if kind == "short":
                return data[: self._rng.randrange(len(data))]
            if kind == "flipped":
                changed = bytearray(data)
                changed[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
                return bytes(changed)
            if others:
                return self._rng.choice(others)
        raise BlobMissing(f"no object {name}, says a replica that lags")


@contextmanager
def lying_reads(lies: Lies) -> Iterator[LyingStore]:
    """Let every store of this process lie inside the block; gives the liar, with its counts."""
    liar, true_fetch = LyingStore(lies), Store._fetch
    _install(liar)
    try:
        yield liar
    finally:
        Store._fetch = true_fetch  # type: ignore[method-assign]


def lying_environment(lies: Lies) -> dict[str, str]:
    """Variables that make a child process lie; add them to its environment."""
    path = os.pathsep.join(filter(None, [str(SITE_FOLDER), os.environ.get("PYTHONPATH", "")]))
    return {VARIABLE: json.dumps(asdict(lies)), "PYTHONPATH": path}


def install_from_environment() -> None:
    """Lie from now on in this process, if `SEGVIGEN_TEST_LIES` says so."""
    text = os.environ.get(VARIABLE)
    if text:
        lies = Lies(**json.loads(text))
        _install(LyingStore(lies, random.Random(f"{lies.seed}:{os.getpid()}")))


def _install(liar: LyingStore) -> None:
    true_fetch = Store._fetch

    def fetch(self: Store, key: str, *where: Any, **named: Any) -> bytes:
        return liar.answer(self.get_uri(key), true_fetch(self, key, *where, **named))

    Store._fetch = fetch  # type: ignore[method-assign]
