"""Checkpoints that were tuned here: kept in the store, named in the catalogue, one of them in use.

`checkpoints/{version}/` is written once, its verdict last; the version is the hash of the patch
network's weights. The alias `current` names the one in use; without it the shipped one is used.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segvigen_model.checkpoints.native import CONFIG_FILE, WEIGHTS_FILE
from segvigen_model.config.threads import limit_threads
from segvigen_model.interactive.patch_network import PATCHES_FILE
from tasks.catalogue import Catalogue, CheckpointRow
from tasks.errors import StageError
from tasks.storage import keys
from tasks.storage.canonical import parse_json
from tasks.storage.store import Store
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from segvigen_model.segmenter import Segmenter

log = logging.getLogger(__name__)

CURRENT = "current"
SHIPPED = "default"
VERSION_CHARS = 16
VERDICT_FILE = "verdict.json"
FILES = (WEIGHTS_FILE, PATCHES_FILE, CONFIG_FILE)


def publish_checkpoint(
    workspace: Workspace, folder: Path, verdict: Mapping[str, Any]
) -> CheckpointRow:
    """Keep a tuned checkpoint; the same weights again change nothing.

    Args:
        workspace: its store gets the files, its catalogue a row whose alias is the version.
        folder: of the checkpoint.
        verdict: JSON-able; shown beside the version.
    """
    store, catalogue = workspace.store, workspace.catalogue
    sha256 = hashlib.sha256((folder / PATCHES_FILE).read_bytes()).hexdigest()
    version = sha256[:VERSION_CHARS]
    held = catalogue.labels.get_checkpoint(version)
    if held is not None:
        return held
    for name in FILES:
        store.put(keys.make_checkpoint_file_key(version, name), (folder / name).read_bytes())
    store.put_json(keys.make_checkpoint_file_key(version, VERDICT_FILE), verdict)
    row = CheckpointRow(version, keys.make_checkpoint_folder(version), sha256, dict(verdict))
    catalogue.labels.set_checkpoint(row)
    log.info("stage=finetune version=%s published", version)
    return row


def use_checkpoint(catalogue: Catalogue, version: str) -> CheckpointRow:
    """Let a version work from now on; runs that have begun end with what they have.

    Args:
        catalogue: gets the alias.
        version: of a published checkpoint, or its beginning; "default" = the shipped one.

    Raises:
        StageError: no such version, or several begin so.
    """
    if version == SHIPPED:
        row = CheckpointRow(CURRENT, SHIPPED, "", {})
    else:
        found = [each for each in list_published(catalogue) if each.alias.startswith(version)]
        if len(found) != 1:
            known = ", ".join(each.alias for each in list_published(catalogue))
            raise StageError(
                f"{len(found)} checkpoints begin with {version[:64]!r}; "
                f"there are: {known or 'none'}, and {SHIPPED}"
            )
        row = CheckpointRow(CURRENT, found[0].location, found[0].sha256, found[0].detail)
    catalogue.labels.set_checkpoint(row)
    return row


def list_published(catalogue: Catalogue) -> list[CheckpointRow]:
    """All versions, oldest first."""
    return [row for row in catalogue.labels.list_checkpoints() if row.alias != CURRENT]


def load_segmenter(workspace: Workspace) -> Segmenter:
    """The model that the settings name; loaded once a process, again when another is used."""
    limit_threads(workspace.settings.work.num_threads)
    return _segmenter(checkpoint_in_use(workspace), workspace.settings.model.device)


def checkpoint_in_use(workspace: Workspace) -> str:
    """Path or name of the checkpoint that the settings name, on this machine.

    `checkpoint` of the settings is a shipped one, a folder, or "current": the published one in use,
    which is fetched once a machine into `checkpoint_cache`.

    Raises:
        StageError: the published checkpoint names no hash of its weights.
        BlobDamaged: the store gives other bytes than were published.
    """
    settings = workspace.settings.model
    if settings.checkpoint != CURRENT:
        return settings.checkpoint
    row = workspace.catalogue.labels.get_checkpoint(CURRENT)
    if row is None or row.location == SHIPPED:
        return SHIPPED
    version = row.location.rpartition("/")[2]
    folder = settings.checkpoint_cache.absolute() / version
    if not folder.is_dir():
        _fetch_checkpoint(workspace.store, version, row.sha256, folder)
    return str(folder)


@lru_cache(maxsize=1)
def _segmenter(checkpoint: str, device: str) -> Segmenter:
    from segvigen_model.segmenter import Segmenter

    return Segmenter.from_checkpoint(checkpoint, device=device)


def _fetch_checkpoint(store: Store, version: str, sha256: str, folder: Path) -> None:
    """Copy a published checkpoint to this machine, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as name:
        partial = Path(name) / version
        partial.mkdir()
        config = store.get(keys.make_checkpoint_file_key(version, CONFIG_FILE))
        hashes = {PATCHES_FILE: sha256, WEIGHTS_FILE: _read_weights_hash(config, version)}
        (partial / CONFIG_FILE).write_bytes(config)
        for file, known in hashes.items():
            data = store.get(keys.make_checkpoint_file_key(version, file), known)
            (partial / file).write_bytes(data)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster otherwise
                raise


def _read_weights_hash(config: bytes, version: str) -> str:
    header = parse_json(config, f"{CONFIG_FILE} of checkpoint {version}")
    found = header.get("sha256") if isinstance(header, dict) else None
    if not isinstance(found, str):
        raise StageError(
            f"checkpoint {version} names no hash of its weights; "
            f"publish it again or run `segvigen use {SHIPPED}`"
        )
    return found
