"""Settings file, `.env` and the stack in use, as every subcommand takes them."""

from __future__ import annotations

import json
import os
import socket

import pytest
import typer

from flows.cli.options import run_flow
from segvigen_model.command import options
from tasks.catalogue import AssetRow, AssetState, Catalogue


def test_a_wrong_settings_file_is_one_with_a_message(run, environment):
    (environment / "bad.toml").write_text("[gate]\naccept_confidence = 7\n")
    response = run("status", "--config", str(environment / "bad.toml"))
    assert response.exit_code == options.WENT_WRONG
    assert "accept_confidence" in response.output
    assert "Traceback" not in response.output


def test_the_env_file_counts_below_the_environment(run, environment, monkeypatch):
    catalogue = Catalogue(f"sqlite:///{environment}/other.db")
    catalogue.register(AssetRow("0" * 64, AssetState.REGISTERED, name="x.glb"))
    dotenv = environment / ".env"
    dotenv.write_text(f"# mine\nSEGVIGEN_CATALOGUE_URL=sqlite:///{environment}/other.db\n")
    assert json.loads(run("status", "--json").output)["total"] == 0, "the environment wins"
    monkeypatch.delenv("SEGVIGEN_CATALOGUE_URL")
    assert json.loads(run("status", "--json").output)["total"] == 1


def test_the_env_file_names_the_home_and_wins_over_the_stack(run, environment, monkeypatch):
    from infra.home import load_secrets

    monkeypatch.delenv("SEGVIGEN_CATALOGUE_URL")
    load_secrets(environment / "home")
    Catalogue(f"sqlite:///{environment}/home/catalogue.db").register(
        AssetRow("0" * 64, AssetState.REGISTERED, name="x.glb")
    )
    (environment / ".env").write_text("SEGVIGEN_HOME=home\nSEGVIGEN_CATALOGUE_URL=\n")
    assert json.loads(run("status", "--json").output)["total"] == 1, "an empty line says nothing"
    (environment / ".env").write_text(
        f"SEGVIGEN_HOME=home\nSEGVIGEN_CATALOGUE_URL=sqlite:///{environment}/b.db"
    )
    for name in [name for name in os.environ if name.startswith("SEGVIGEN_")]:
        del os.environ[name]  # what the command set; monkeypatch would bring it back afterwards
    assert json.loads(run("status", "--json").output)["total"] == 0


def test_an_env_file_that_is_no_text_is_reported(run, environment):
    (environment / ".env").write_bytes(b"\xff\xfe\x00A")
    response = run("status")
    assert response.exit_code == options.WENT_WRONG
    assert ".env" in response.output and "Traceback" not in response.output


def test_flows_refuse_a_stack_that_is_down(run, environment):
    from infra.home import ServiceRecord, write_record

    write_record(environment / "home", ServiceRecord("s3", 1, "long ago", 9000))
    for command in ("ingest", "shards", "label"):
        response = run(command, "--home", str(environment / "home"))
        assert response.exit_code == options.NOT_READY, command
        assert "segvigen up" in response.output
    assert run("status", "--home", str(environment / "home")).exit_code == options.OK


def test_a_command_waits_for_prefect_and_then_says_that_it_is_down(environment, monkeypatch, capfd):
    with socket.socket() as probe:  # bound and not listening: connections are refused
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{probe.getsockname()[1]}/api")
        monkeypatch.setenv("SEGVIGEN_WORK_OUTAGE_WAIT_S", "0.1")
        with pytest.raises(typer.Exit) as ended:
            run_flow(lambda: pytest.fail("the flow began"), as_json=True)
    assert ended.value.exit_code == options.NOT_READY
    assert "Prefect did not answer for 0.1 s" in " ".join(capfd.readouterr().err.split())
