"""Read shards by byte range: random access, a true shuffle, and a place to resume from.

The order of an epoch is a sort by hash of (seed, epoch, key): the same on every machine and with
every library version. Needs nothing but the store; `webdataset` reads the same tars as streams.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from segvigen_model.errors import SegvigenError
from tasks.shards.samples import TrainingSample, decode_sample
from tasks.storage import keys
from tasks.storage.store import Store


class CorruptShard(SegvigenError):
    """A shard's bytes do not match its index."""


@dataclass(frozen=True, slots=True)
class ReaderState:
    """Position of a reader: `position` samples of this rank's share of `epoch` are done."""

    seed: int = 0
    epoch: int = 0
    position: int = 0


class ShardReader:
    """Samples of one dataset version.

    Args:
        store: where the version is.
        dataset, version: which; versions are in the catalogue and in manifests.
        state: where to (re)start.
        rank, world_size: this reader's share among several.
        is_verifying: check every sample's sha256.
        keep: index line -> is it wanted, e.g. by fold or licence.
    """

    # Where the version is, by position; how this rank reads it, by name.
    def __init__(
        self,
        store: Store,
        dataset: str,
        version: str,
        *,
        state: ReaderState | None = None,
        rank: int = 0,
        world_size: int = 1,
        is_verifying: bool = True,
        keep: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:  # more than five parameters: options of a reader, as those of torch's DataLoader
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not below world_size {world_size}")
        self._store = store
        self.manifest = read_manifest(store, dataset, version)
        index = store.get(self.manifest["index"]["key"])
        if hashlib.sha256(index).hexdigest() != self.manifest["index"]["sha256"]:
            raise CorruptShard(f"index of {dataset}/{version} has changed; fetch it again")
        lines = [json.loads(line) for line in index.splitlines()]
        self._lines = [line for line in lines if keep is None or keep(line)]
        self._share = (rank, world_size)
        self._is_verifying = is_verifying
        self.state = state or ReaderState()

    def __len__(self) -> int:
        """All samples that are kept, for any rank: the range of sample numbers."""
        return len(self._lines)

    def __getitem__(self, number: int) -> TrainingSample:
        return decode_sample(self.read_members(number))

    def get_key(self, number: int) -> str:
        """Asset id of a sample."""
        return str(self._lines[number]["key"])

    def get_line(self, number: int) -> Mapping[str, Any]:
        """Index line of a sample."""
        line: Mapping[str, Any] = self._lines[number]
        return line

    def read_members(self, number: int) -> dict[str, bytes]:
        """Member name -> bytes of a sample, by one ranged read."""
        line = self._lines[number]
        shard = self.manifest["shards"][line["shard"]]["key"]
        data = self._store.get_range(shard, line["offset"], line["size"])
        if self._is_verifying and hashlib.sha256(data).hexdigest() != line["sha256"]:
            raise CorruptShard(f"sample {line['key'][:12]} in {shard} has changed; fetch it again")
        prefix = f"{line['key']}."
        with tarfile.open(fileobj=io.BytesIO(data + b"\0" * 1024)) as archive:
            found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name.removeprefix(prefix): file.read() for name, file in found.items() if file}

    def compute_order(self, epoch: int) -> list[int]:
        """This rank's sample numbers in the order of one epoch.

        Every rank has as many, so that none waits for another at the end: where they do not
        divide, the epoch's first samples come once more.
        """
        salt = f"{self.state.seed}:{epoch}:"

        def rank_sample(number: int) -> bytes:
            return hashlib.sha256((salt + self.get_key(number)).encode()).digest()

        rank, world_size = self._share
        whole = sorted(range(len(self._lines)), key=rank_sample)
        whole += [whole[i % len(whole)] for i in range(-len(whole) % world_size)]
        return whole[rank::world_size]

    def __iter__(self) -> Iterator[TrainingSample]:
        """The rest of the present epoch; `state` afterwards is the next epoch's start.

        `state` always stands behind the samples already given: store it, pass it to a new
        reader, and that one goes on with the next sample.
        """
        epoch = self.state.epoch
        order = self.compute_order(epoch)
        for position in range(self.state.position, len(order)):
            self.state = replace(self.state, position=position + 1)
            yield self[order[position]]
        self.state = replace(self.state, epoch=epoch + 1, position=0)


def read_manifest(store: Store, dataset: str, version: str) -> dict[str, Any]:
    """The manifest of one dataset version."""
    manifest: dict[str, Any] = store.get_json(keys.make_shard_manifest_key(dataset, version))
    return manifest
