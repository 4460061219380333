"""A workspace is opened from settings and says who works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.settings import SettingsError
from tasks.workspace import open_workspace


def places(folder: Path) -> dict[str, dict[str, str]]:
    return {
        "store": {"root_url": f"file://{folder}/store", "raw_url": f"file://{folder}/raw"},
        "catalogue": {"url": f"sqlite:///{folder}/catalogue.db"},
    }


def test_settings_report_where_everything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = open_workspace(None, places(tmp_path), "encode")
    assert opened.store.root_url == f"file://{tmp_path}/store"
    assert opened.raw.root_url == f"file://{tmp_path}/raw"
    assert opened.catalogue.list_assets() == []
    assert opened.settings.store.root_url == opened.store.root_url
    assert opened.lease_owner == opened.worker
    assert opened.lease_owner.endswith("/encode")


def test_a_lease_needs_a_worker(pipeline) -> None:
    with pytest.raises(ValueError, match="holds no leases; open it with a worker's name"):
        _ = pipeline.workspace.lease_owner
    assert pipeline.with_settings(worker="w").lease_owner == "w"


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("store", "s3_secret_key"),
        ("store", "raw_s3_secret_key"),
        ("review", "api_key"),
        ("review", "webhook_token"),
        ("review", "live_password"),
        ("catalogue", "url"),
    ],
)
def test_parameters_of_a_flow_hold_no_secrets(section, field):
    with pytest.raises(SettingsError, match=rf"{section}\.{field} is a secret.*SEGVIGEN_") as found:
        open_workspace(None, {section: {field: "hush-hush"}})
    assert "hush" not in str(found.value)
