"""`segvigen status` and `segvigen retry`."""

from __future__ import annotations

import json

from segvigen_model.command import options
from tasks.catalogue import AssetRow, AssetState, Catalogue, ShardVersionRow


def test_status_of_an_empty_catalogue(run):
    response = run("status", "--json")
    assert response.exit_code == 0
    state = json.loads(response.output)
    assert state["total"] == 0 and state["shards"] == []
    assert set(state["assets"]) == {str(name) for name in AssetState}


def test_status_counts_assets_and_lists_shards_and_reasons(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    for number in range(3):
        catalogue.register(AssetRow(f"{number:064x}", AssetState.REGISTERED, name=f"{number}.glb"))
    catalogue.move(f"{0:064x}", AssetState.REJECTED, reason="no_faces")
    version = ShardVersionRow("parts", "abc", "shards/parts/abc/manifest.json", "0" * 64, 7, 1234)
    catalogue.labels.add_shards(version, [])
    state = json.loads(run("status", "--json").output)
    assert state["assets"]["registered"] == 2 and state["assets"]["rejected"] == 1
    assert state["parked"][0]["reason"] == "no_faces"
    assert state["shards"][0]["version"] == "abc" and state["shards"][0]["samples"] == 7
    shown = run("status").output
    assert "no_faces" in shown and "abc" in shown


def test_status_reports_why_and_what_to_do(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    for number in range(3):
        row = AssetRow(f"{number:064x}", AssetState.REGISTERED, name="x", source_key="k")
        catalogue.register(row)
    hint = "2100000 faces > 2000000; decimate first"
    catalogue.move(f"{0:064x}", AssetState.REJECTED, reason="too_many_faces", detail=hint)
    long = "StageError: the sheet is gone;\npush again" + " and so on" * 40
    catalogue.record_failure(f"{1:064x}", long, max_attempts=1)
    catalogue.record_failure(f"{2:064x}", "BlobMissing: no object a/b", max_attempts=3)
    state = json.loads(run("status", "--json").output)
    assert [row["detail"] for row in state["parked"]] == [hint, long]
    assert [row["last_error"] for row in state["failing"]] == ["BlobMissing: no object a/b"]
    shown = " ".join(run("status").output.split())
    assert hint in shown and "the sheet is gone; push again" in shown and "…" in shown
    assert "BlobMissing: no object a/b" in shown and "registered_failed" in shown


def test_status_survives_hostile_names(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    catalogue.register(AssetRow("0" * 64, AssetState.REGISTERED, name="[/red][bold]x\x1b[31m.glb"))
    catalogue.move("0" * 64, AssetState.REJECTED, reason="empty_file")
    response = run("status")
    assert response.exit_code == 0 and "[bold]x" in response.output
    assert "\x1b[31m" not in response.output


def test_retry_takes_parked_assets_back(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    for number, key in enumerate(["a/source.glb", None]):
        row = AssetRow(f"{number:064x}", AssetState.REGISTERED, name="x.glb", source_key=key)
        catalogue.register(row)
        catalogue.move(row.asset_id, AssetState.REJECTED, reason="reviewer_rejected")
    assert run("retry", "accepted").exit_code == options.USAGE
    response = run("retry", "rejected")
    assert response.exit_code == options.OK
    assert "x.glb: no source" in response.output
    assert "segvigen ingest --retry" in response.output
    states = [asset.state for asset in catalogue.list_assets()]
    assert sorted(states) == [AssetState.REGISTERED, AssetState.REJECTED], "no source, no retry"


def test_many_that_fit_are_not_all_named(run, environment):
    catalogue = Catalogue(f"sqlite:///{environment}/catalogue.db")
    for number in range(7):
        catalogue.register(AssetRow(f"{number:064x}", AssetState.REGISTERED, name="same.glb"))
    for command in (("show", "0"), ("show", "same.glb"), ("gold", "0")):
        assert "more than 5 assets begin with" in run(*command).output
