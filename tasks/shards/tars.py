"""Tar files of samples: of bounded size, with an index; the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tasks.shards.entries import Entry

NUM_FOLDS = 10  # for splits by asset: fold = hash of the asset id


class TarWriter:
    """Cuts samples into tar files of bounded size in a local folder, and keeps the index.

    Attributes:
        files: the tars, in order.
        index: one line per sample, in order.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self.files: list[Path] = []
        self.index: list[dict[str, Any]] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close the last tar at the end, also after an error."""
        try:
            yield
        finally:
            self._close_shard()

    def add(self, entry: Entry, data: bytes) -> None:
        """Append a sample's blocks; a new tar begins where the old one would grow too large."""
        if self._file is None or self._file.tell() + len(data) > self._max_bytes:
            self._begin_shard()
        assert self._file is not None
        line = {
            "key": entry.asset_id,
            "label_id": entry.label_id,
            "shard": len(self.files) - 1,
            "offset": self._file.tell(),
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_parts": entry.num_parts,
            "num_clicks": entry.num_clicks,
            "licence": entry.licence,
            "fold": int(entry.asset_id[:8], 16) % NUM_FOLDS,
        }
        self._file.write(data)
        self.index.append(line)

    def _begin_shard(self) -> None:
        self._close_shard()
        path = self._folder / f"{len(self.files):06d}.tar"
        self._file = path.open("wb")
        self.files.append(path)

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.write(b"\0" * 1024)  # a tar ends with two empty blocks
            self._file.close()
            self._file = None


def pack_tar(asset_id: str, members: Mapping[str, bytes]) -> bytes:
    """A sample's tar blocks without the end mark; sorted, no times, no owners."""
    blocks = []
    for name in sorted(members):
        data = members[name]
        entry = tarfile.TarInfo(f"{asset_id}.{name}")
        entry.size, entry.mtime, entry.mode = len(data), 0, 0o644
        blocks += [entry.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % 512)]
    return b"".join(blocks)
