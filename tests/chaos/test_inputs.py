"""Every input of a chaos run is taken or refused by ingest as it says, in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalogue import Catalogue
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.settings import load_settings
from tasks.storage.store import Store
from tasks.workspace import Workspace
from tests.chaos.inputs import Fate, make_inputs


@pytest.mark.slow
def test_ingest_agrees_with_the_known_fates(tmp_path: Path):
    raw, store = Store(f"file://{tmp_path}/raw"), Store(f"file://{tmp_path}/store")
    catalogue = Catalogue(f"sqlite:///{tmp_path}/catalogue.db")
    inputs = {each.key: each for each in make_inputs(80, 1)}
    for each in inputs.values():
        raw.put(each.key, each.data)
    workspace = Workspace(store, raw, catalogue, load_settings())
    for info in scan_raw(workspace):
        result, wanted = ingest_object(workspace, info), inputs[info.key]
        reason = wanted.reason if wanted.fate is Fate.BROKEN else None
        assert result.reason == reason, f"{info.key}: {result}"
        if wanted.truth is not None:
            asset = catalogue.get_asset(result.asset_id)
            assert asset.num_faces == len(wanted.truth), info.key
