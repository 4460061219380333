"""`segvigen verify`, `repair`, `backup`, `restore` as commands."""

from __future__ import annotations

import json

import pytest

from segvigen_model.command import options
from tasks.catalogue import AssetRow, AssetState
from tasks.settings import load_settings
from tasks.workspace import Workspace

ASSET = "a" * 64


@pytest.fixture
def source(tmp_path):
    """One asset in the store of the working folder; gives the path of its source."""
    workspace = Workspace.from_settings(load_settings())
    key = f"assets/{ASSET}/source.glb"
    workspace.store.put(key, b"a mesh")
    about = {"suffix": "glb", "name": "chair.glb", "side_files": {}}
    workspace.store.put_json(f"assets/{ASSET}/asset.json", about)
    row = AssetRow(ASSET, AssetState.REGISTERED, "chair.glb", source_key=key, size_bytes=6)
    workspace.catalogue.register(row)
    return tmp_path / ".segvigen" / "store" / key


def test_verify_reports_what_is_wrong_and_fails(run, source):
    good = run("verify")
    assert good.exit_code == options.OK, good.output
    assert "all that was read is as it was written" in good.output
    source.write_bytes(b"b mesh")
    bad = run("verify", "--json", "--kind", "source", "--sample", "0.5")
    assert bad.exit_code == options.WENT_WRONG
    (fault,) = json.loads(bad.output)["faults"]
    assert fault["fault"] == "other bytes than were written"
    assert run("verify", "--kind", "asset_info").exit_code == options.OK
    assert "'x' is none of source, side_file" in run("verify", "--kind", "x").output


def test_repair_says_what_it_would_do_and_what_it_cannot(run, source):
    assert "nothing is damaged" in run("repair").output
    source.unlink()
    planned = run("repair", "--dry-run")
    assert planned.exit_code == options.OK, planned.output
    assert "fetch again from the raw bucket" in planned.output
    done = run("repair", "--json")
    assert done.exit_code == options.WENT_WRONG
    (row,) = json.loads(done.output)["repairs"]
    assert row["action"] == "no raw object has its content any more; upload the file again"


def test_a_backup_is_restored(run, source, tmp_path):
    made = run("backup", str(tmp_path / "backups"))
    assert made.exit_code == options.OK, made.output
    assert "2 blobs needed, 2 copied" in made.output
    source.unlink()
    refused = run("restore", str(tmp_path / "backups"))
    assert refused.exit_code == options.WENT_WRONG
    assert "the catalogue holds 1 assets; back it up" in refused.output
    done = run("restore", str(tmp_path / "backups"), "--force", "--json")
    assert json.loads(done.output)["copied"] == 1
    assert source.read_bytes() == b"a mesh"
    assert "give the backup's address, or --from-bucket" in run("restore").output


def test_a_backup_without_blobs_says_which_are_gone(run, source, tmp_path):
    run("backup", str(tmp_path / "backups"), "--no-blobs")
    source.unlink()
    done = run("restore", str(tmp_path / "backups"), "--force")
    assert done.exit_code == options.WENT_WRONG
    assert "source.glb" in done.output


@pytest.mark.parametrize(
    "command", [("restore", "--from-bucket"), ("repair", "--import-from-bucket")]
)
def test_the_catalogue_is_rebuilt_from_the_bucket(run, source, tmp_path, command):
    refused = run(*command)
    assert "holds 1 assets; import into an empty one" in refused.output
    for path in tmp_path.glob("catalogue.db*"):
        path.unlink()
    done = run(*command)
    assert done.exit_code == options.OK, done.output
    assert "imported 1 assets, 0 label sets, 0 versions" in done.output
    added = run(*command, "--add", "--json")
    assert json.loads(added.output)["assets"] == 0
