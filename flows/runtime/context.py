"""What every flow works with: settings, the two stores, the catalogue, the model.

Built once at the start of a flow from its parameters; stage functions get plain arguments. The
model is loaded when a stage first asks for it and stays for the process's life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.catalogue import Catalogue, worker_id
from tasks.checkpoints import in_use
from tasks.settings import Settings, load_settings
from tasks.storage.store import Store

if TYPE_CHECKING:
    from segvigen_model.segmenter import Segmenter

# section -> field -> value. Stands in Prefect's database as a flow parameter: no secrets here.
Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Context:
    """The pipeline's world, as one flow run sees it.

    Attributes:
        settings: all of them.
        store: blobs of the pipeline.
        raw: the bucket of raw meshes, only read.
        catalogue: state of every asset.
        worker: this run's name on leases.
    """

    settings: Settings
    store: Store
    raw: Store
    catalogue: Catalogue
    worker: str

    def segmenter(self) -> Segmenter:
        """The model that the settings mean; loaded once a process, again when another is used."""
        return _segmenter(self.checkpoint(), self.settings.model.device)

    def checkpoint(self) -> str:
        """Path or name of that model's checkpoint, fetched when needed."""
        return in_use(self.settings.model, self.store, self.catalogue)


def open_context(
    settings_file: str | None = None, overrides: Overrides | None = None, tag: str = ""
) -> Context:
    """Open everything that the settings name.

    Args:
        settings_file: TOML file; None = the usual place.
        overrides: section -> field -> value, above file and environment.
        tag: told on leases, e.g. the flow's name.

    Raises:
        BucketUnusable: the store's bucket is not there.
    """
    settings = load_settings(Path(settings_file) if settings_file else None, overrides)
    store = Store.from_settings(settings.store)
    store.check_bucket()
    return Context(
        settings=settings,
        store=store,
        raw=Store.from_settings(settings.store, raw=True),
        catalogue=Catalogue(settings.catalogue.url.get_secret_value()),
        worker=worker_id(tag),
    )


@lru_cache(maxsize=1)
def _segmenter(checkpoint: str, device: str) -> Segmenter:
    from segvigen_model.segmenter import Segmenter

    # Every stage reads its meshes anew: only the present asset's geometry is asked for again.
    return Segmenter.from_checkpoint(checkpoint, device=device, num_kept=1)
