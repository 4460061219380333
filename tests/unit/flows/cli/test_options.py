"""Settings file, `.env` and the stack in use, as every subcommand takes them."""

from __future__ import annotations

import json
import os

from segvigen_model.command import options
from tasks.catalogue import AssetRow, AssetState, Catalogue


def test_a_wrong_settings_file_is_one_with_a_message(run, world):
    (world / "bad.toml").write_text("[gate]\naccept_confidence = 7\n")
    answer = run("status", "--config", str(world / "bad.toml"))
    assert answer.exit_code == options.WENT_WRONG
    assert "accept_confidence" in answer.output
    assert "Traceback" not in answer.output


def test_the_env_file_counts_below_the_environment(run, world, monkeypatch):
    catalogue = Catalogue(f"sqlite:///{world}/other.db")
    catalogue.register(AssetRow("0" * 64, AssetState.REGISTERED, name="x.glb"))
    dotenv = world / ".env"
    dotenv.write_text(f"# mine\nSEGVIGEN_CATALOGUE_URL=sqlite:///{world}/other.db\n")
    assert json.loads(run("status", "--json").output)["total"] == 0, "the environment wins"
    monkeypatch.delenv("SEGVIGEN_CATALOGUE_URL")
    assert json.loads(run("status", "--json").output)["total"] == 1


def test_the_env_file_names_the_home_and_wins_over_the_stack(run, world, monkeypatch):
    from infra.home import load_secrets

    monkeypatch.delenv("SEGVIGEN_CATALOGUE_URL")
    load_secrets(world / "home")
    Catalogue(f"sqlite:///{world}/home/catalogue.db").register(
        AssetRow("0" * 64, AssetState.REGISTERED, name="x.glb")
    )
    (world / ".env").write_text("SEGVIGEN_HOME=home\nSEGVIGEN_CATALOGUE_URL=\n")
    assert json.loads(run("status", "--json").output)["total"] == 1, "an empty line says nothing"
    (world / ".env").write_text(
        f"SEGVIGEN_HOME=home\nSEGVIGEN_CATALOGUE_URL=sqlite:///{world}/b.db"
    )
    for name in [name for name in os.environ if name.startswith("SEGVIGEN_")]:
        del os.environ[name]  # what the command set; monkeypatch would bring it back afterwards
    assert json.loads(run("status", "--json").output)["total"] == 0


def test_an_env_file_that_is_no_text_is_told(run, world):
    (world / ".env").write_bytes(b"\xff\xfe\x00A")
    answer = run("status")
    assert answer.exit_code == options.WENT_WRONG
    assert ".env" in answer.output and "Traceback" not in answer.output


def test_flows_refuse_a_stack_that_is_down(run, world):
    from infra.home import ServiceRecord, write_record

    write_record(world / "home", ServiceRecord("s3", 1, "long ago", 9000))
    for command in ("ingest", "shards", "label"):
        answer = run(command, "--home", str(world / "home"))
        assert answer.exit_code == options.NOT_READY, command
        assert "segvigen up" in answer.output
    assert run("status", "--home", str(world / "home")).exit_code == options.OK
