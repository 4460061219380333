"""What every task works with: blobs, state, settings, and who works.

Built once at the start of a flow, a command or a service by `open_workspace`, then passed down as
one value. A function that needs only the store or only the catalogue takes that alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.catalogue import Catalogue, make_worker_id
from tasks.outages import wait_for
from tasks.settings import Settings, load_settings, refuse_secrets
from tasks.storage.leftovers import clean_scratch
from tasks.storage.store import Store

# section -> field -> value. Prefect stores it as a flow parameter: no secrets here.
Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Workspace:
    """One pipeline, as one run sees it.

    Attributes:
        store: blobs of the pipeline; compares what it reads with the catalogue's records.
        raw: the bucket of raw meshes, only read.
        catalogue: state of every asset.
        settings: all of them.
        worker: this run's name on leases; None works without leases, alone.
    """

    store: Store
    raw: Store
    catalogue: Catalogue
    settings: Settings
    worker: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings, tag: str = "") -> Workspace:
        """Open what settings name, without asking whether its bucket is there.

        Args:
            settings: all of them.
            tag: part of the worker's name.
        """
        catalogue = open_catalogue(settings)
        return cls(
            store=Store.from_settings(settings.store, hashes=catalogue.blobs),
            raw=Store.from_settings(settings.store, raw=True),
            catalogue=catalogue,
            settings=settings,
            worker=make_worker_id(tag),
        )

    @property
    def lease_owner(self) -> str:
        """The worker's name, for what needs a lease.

        Raises:
            ValueError: this workspace has no worker.
        """
        if self.worker is None:
            raise ValueError("this workspace holds no leases; open it with a worker's name")
        return self.worker


def open_workspace(
    settings_file: str | None = None, overrides: Overrides | None = None, tag: str = ""
) -> Workspace:
    """Open everything that the settings name; waits for a database or store that is down.

    What killed runs left behind, and is old, is removed.

    Args:
        settings_file: TOML file; None = the usual place.
        overrides: section -> field -> value, above file and environment.
        tag: part of the worker's name, e.g. the flow's name.

    Raises:
        BucketUnusable: the store's bucket is not there.
        SettingsError: an override is unknown, out of range or a secret.
        ServiceOutage: catalogue or store did not answer for SEGVIGEN_WORK_OUTAGE_WAIT_S.
    """
    refuse_secrets(overrides)
    settings = load_settings(Path(settings_file) if settings_file else None, overrides)
    wait_s = settings.work.outage_wait_s
    workspace = wait_for("the catalogue", lambda: Workspace.from_settings(settings, tag), wait_s)
    wait_for("the store", workspace.store.check_bucket, wait_s)
    workspace.store.remove_leftovers()
    clean_scratch()
    return workspace


def open_catalogue(settings: Settings) -> Catalogue:
    """The catalogue that settings name."""
    return Catalogue(settings.catalogue.url.get_secret_value())
