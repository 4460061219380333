"""What killed processes leave behind, removed by age when a run begins.

Temporary files in the folder of a local store, uploads of several parts that never ended on a
server, and scratch folders of this project beside other programs' in the temporary folder. All are
invisible to readers; they only take room.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".tmp-"  # of files that become blobs, beside the place where they will be
# Folders that this project makes in the temporary folder, as `tempfile` names them.
_SCRATCH = re.compile(r"segvigen-(shards|demo|viewer|parser)-[a-z0-9_]{8}")
MIN_AGE_S = 24 * 3600.0  # what is younger may be in use
CHECK_EVERY_S = 6 * 3600.0  # a large folder takes seconds to walk
_MARK = f"{TEMPORARY_PREFIX}last-cleaned"


def clean_folder(root: Path, min_age_s: float = MIN_AGE_S) -> int:
    """Remove temporary files below a local store's root, every few hours; returns their number.

    Args:
        root: of the store; links are not followed.
        min_age_s: younger ones may be in use.
    """
    mark = root / _MARK
    if not root.is_dir() or _get_age(mark) < min(CHECK_EVERY_S, min_age_s):
        return 0
    mark.touch()
    num_removed = 0
    for place, folders, files in os.walk(root):
        left = [name for name in (*folders, *files) if name.startswith(TEMPORARY_PREFIX)]
        num_removed += sum(_remove_old(Path(place, name), min_age_s) for name in left)
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]
    if num_removed:
        log.info("store=%s leftovers=%d removed", root, num_removed)
    return num_removed


def clean_scratch(min_age_s: float = MIN_AGE_S, folder: Path | None = None) -> int:
    """Remove old scratch of this project; returns the number of folders.

    Args:
        min_age_s: younger ones may be in use.
        folder: where; None = the system's temporary folder.
    """
    place = folder or Path(tempfile.gettempdir())
    found = [path for path in place.glob("segvigen-*") if _SCRATCH.fullmatch(path.name)]
    return sum(_remove_old(path, min_age_s) for path in found)


def clean_bucket(fs: Any, root: str, min_age_s: float = MIN_AGE_S) -> int:
    """End unfinished uploads of several parts on an S3 server; returns their number.

    A server, or keys, that may not list uploads are left in peace.

    Args:
        fs: s3fs file system.
        root: of the store, bucket and prefix.
        min_age_s: younger ones may still end.
    """
    bucket, _, prefix = root.partition("/")
    latest = time.time() - min_age_s
    try:
        found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        old = [each for each in found.get("Uploads", ()) if each["Initiated"].timestamp() < latest]
        for each in old:
            place = {"Bucket": bucket, "Key": each["Key"], "UploadId": each["UploadId"]}
            fs.call_s3("abort_multipart_upload", **place)
    except OSError as err:
        log.info("bucket=%s uploads not ended: %r", bucket, err)
        return 0
    return len(old)


def is_temporary(key: str) -> bool:
    """Is it a key of ours that never was an object?"""
    return key.rpartition("/")[2].startswith(TEMPORARY_PREFIX) or key.startswith(".probe/")


def _get_age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove_old(path: Path, min_age_s: float) -> bool:
    try:
        if _get_age(path) < min_age_s or path.lstat().st_uid != os.getuid():
            return False
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as err:  # another run was faster
        log.warning("leftover=%s error=%r", path, err)
        return False
    return True
