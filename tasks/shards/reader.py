"""Read shards by byte range: random access, a true shuffle, and a place to resume from.

The order of an epoch is a sort by hash of (seed, epoch, key): the same on every machine and with
every library version. Needs nothing but the store; `webdataset` reads the same tars as streams.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from segvigen_model.archives import parse_json
from segvigen_model.errors import CorruptBlob, SegvigenError
from tasks.shards.samples import TrainingSample, decode_sample
from tasks.storage import keys
from tasks.storage.store import Store

MAX_SHARDS = 100_000
MAX_MEMBERS = 64  # of a sample
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CorruptShard(SegvigenError):
    """A manifest, an index or a sample is not of the form that it must have."""


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
        keep: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:  # more than five parameters: options of a reader, as those of torch's DataLoader
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not below world_size {world_size}")
        self._store = store
        self.manifest = read_manifest(store, dataset, version)
        index = self.manifest["index"]
        lines = read_index(store.get(index["key"], index["sha256"]), len(self.manifest["shards"]))
        self._lines = [line for line in lines if keep is None or keep(line)]
        self._share = (rank, world_size)
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
        data = self._store.get_range(shard, line["offset"], line["size"], line["sha256"])
        return unpack_tar(data, str(line["key"]))

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
    """The manifest of one dataset version.

    Raises:
        BadDocument, CorruptShard: it is no manifest.
    """
    return check_manifest(store.get_json(keys.make_shard_manifest_key(dataset, version)))


def check_manifest(document: Any) -> dict[str, Any]:
    """Check the entries of a manifest that readers use; raises CorruptShard."""
    try:
        places = [document["index"], *document["shards"]]
        is_sound = len(document["shards"]) <= MAX_SHARDS and all(
            isinstance(place["key"], str) and _SHA256.fullmatch(place["sha256"]) for place in places
        )
    except (KeyError, TypeError) as err:
        raise CorruptShard(f"a dataset's manifest lacks {err}; build the shards again") from err
    if not is_sound:
        raise CorruptShard("a dataset's manifest names an object badly; build the shards again")
    manifest: dict[str, Any] = document
    return manifest


def read_index(data: bytes, num_shards: int) -> list[dict[str, Any]]:
    """The lines of an index, one per sample; raises CorruptShard."""
    lines = []
    try:
        for text in data.splitlines():
            line = parse_json(text, "a line of an index")
            numbers = [line["shard"], line["offset"], line["size"]]
            if not all(type(each) is int and each >= 0 for each in numbers):
                raise ValueError(f"{numbers} are no shard, offset and size")
            if line["shard"] >= num_shards or not isinstance(line["key"], str):
                raise ValueError(f"shard {line['shard']} is none of {num_shards}, or a bad key")
            if not _SHA256.fullmatch(line["sha256"]):
                raise ValueError(f"{line['sha256']!r:.20} is no hash")
            lines.append(line)
    except (KeyError, TypeError, ValueError, CorruptBlob) as err:
        raise CorruptShard(f"line {len(lines) + 1} of an index is damaged: {err!r}") from err
    return lines


def unpack_tar(data: bytes, key: str) -> dict[str, bytes]:
    """Member name -> bytes of one sample's tar blocks; raises CorruptShard.

    Args:
        data: blocks without the end mark.
        key: the sample's, which begins every name in the tar.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data + b"\0" * 1024), mode="r:") as archive:
            for entry in archive:
                name = entry.name.removeprefix(f"{key}.")
                content = archive.extractfile(entry) if entry.isreg() and not entry.sparse else None
                if content is None or name == entry.name or name in found:
                    raise CorruptShard(f"{entry.name[:80]!r} is no member of sample {key[:12]}")
                found[name] = content.read()
                if len(found[name]) != entry.size or len(found) > MAX_MEMBERS:
                    raise CorruptShard(f"sample {key[:12]} is cut, or has too many members")
    except (tarfile.TarError, ValueError, EOFError, OSError, OverflowError) as err:
        raise CorruptShard(f"sample {key[:12]} is no tar ({len(data)} bytes): {err}") from err
    return found
