"""The command line: help, exit codes, JSON. Flows themselves are tested in tests/integration."""

import json
import os

import pytest
from typer.testing import CliRunner

from flows import console
from flows.cli import doctor
from flows.cli import main as cli
from flows.console import Check, Verdict
from tasks.catalogue import AssetRow, AssetState, Catalogue, ShardVersionRow

COMMANDS = (
    *("up", "down", "deploy", "doctor", "demo", "status", "retry"),
    *("ingest", "label", "review", "refine", "shards", "evaluate"),
)
runner = CliRunner()


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """A home and a catalogue of their own; wide output, so that nothing is cut."""
    for name in [name for name in os.environ if name.startswith(("SEGVIGEN_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    kept = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", f"sqlite:///{tmp_path}/catalogue.db")
    yield tmp_path
    os.environ.clear()
    os.environ.update(kept)


def run(*arguments: str):
    return runner.invoke(cli.app, list(arguments), env={"COLUMNS": "200"})


def test_help_names_every_command_and_the_exit_codes():
    text = run("--help").output
    assert all(command in text for command in COMMANDS)
    assert "Exit codes" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    answer = run(command, "--help")
    assert answer.exit_code == 0
    assert len(answer.output) > 100


def test_wrong_usage_is_two():
    assert run("labell").exit_code == cli.USAGE
    assert run("ingest", "--limit", "0").exit_code == cli.USAGE
    assert run("demo", "--reviewer", "nobody").exit_code == cli.USAGE
    assert run("evaluate", "--data", "nowhere").exit_code == cli.USAGE


def test_evaluate_refuses_unknown_words(world):
    for wrong in (["--labels", "x"], ["--surface", "x"], ["--mode", "x"], ["--clicks", "1,x"]):
        answer = run("evaluate", "--data", str(world), *wrong)
        assert answer.exit_code == cli.USAGE, wrong
        assert wrong[0] in answer.output


def test_status_of_an_empty_catalogue():
    answer = run("status", "--json")
    assert answer.exit_code == 0
    state = json.loads(answer.output)
    assert state["total"] == 0 and state["shards"] == []
    assert set(state["assets"]) == {str(name) for name in AssetState}


def test_status_counts_assets_and_lists_shards_and_reasons(world):
    catalogue = Catalogue(f"sqlite:///{world}/catalogue.db")
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


def test_status_tells_why_and_what_to_do(world):
    catalogue = Catalogue(f"sqlite:///{world}/catalogue.db")
    for number in range(3):
        row = AssetRow(f"{number:064x}", AssetState.REGISTERED, name="x", source_key="k")
        catalogue.register(row)
    cure = "2100000 faces > 2000000; decimate first"
    catalogue.move(f"{0:064x}", AssetState.REJECTED, reason="too_many_faces", detail=cure)
    long = "StageError: the sheet is gone;\npush again" + " and so on" * 40
    catalogue.record_failure(f"{1:064x}", long, max_attempts=1)
    catalogue.record_failure(f"{2:064x}", "BlobMissing: no object a/b", max_attempts=3)
    state = json.loads(run("status", "--json").output)
    assert [row["detail"] for row in state["parked"]] == [cure, long]
    assert [row["last_error"] for row in state["failing"]] == ["BlobMissing: no object a/b"]
    shown = " ".join(run("status").output.split())
    assert cure in shown and "the sheet is gone; push again" in shown and "…" in shown
    assert "BlobMissing: no object a/b" in shown and "registered_failed" in shown


def test_status_survives_hostile_names(world):
    catalogue = Catalogue(f"sqlite:///{world}/catalogue.db")
    catalogue.register(AssetRow("0" * 64, AssetState.REGISTERED, name="[/red][bold]x\x1b[31m.glb"))
    catalogue.move("0" * 64, AssetState.REJECTED, reason="empty_file")
    answer = run("status")
    assert answer.exit_code == 0 and "[bold]x" in answer.output
    assert "\x1b[31m" not in answer.output


def test_a_wrong_settings_file_is_one_with_a_message(world):
    (world / "bad.toml").write_text("[gate]\naccept_confidence = 7\n")
    answer = run("status", "--config", str(world / "bad.toml"))
    assert answer.exit_code == cli.WENT_WRONG
    assert "accept_confidence" in answer.output
    assert "Traceback" not in answer.output


def test_the_env_file_counts_below_the_environment(world, monkeypatch):
    catalogue = Catalogue(f"sqlite:///{world}/other.db")
    catalogue.register(AssetRow("0" * 64, AssetState.REGISTERED, name="x.glb"))
    dotenv = world / ".env"
    dotenv.write_text(f"# mine\nSEGVIGEN_CATALOGUE_URL=sqlite:///{world}/other.db\n")
    assert json.loads(run("status", "--json").output)["total"] == 0, "the environment wins"
    monkeypatch.delenv("SEGVIGEN_CATALOGUE_URL")
    assert json.loads(run("status", "--json").output)["total"] == 1


def test_the_env_file_names_the_home_and_wins_over_the_stack(world, monkeypatch):
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


def test_an_env_file_that_is_no_text_is_told(world):
    (world / ".env").write_bytes(b"\xff\xfe\x00A")
    answer = run("status")
    assert answer.exit_code == cli.WENT_WRONG
    assert ".env" in answer.output and "Traceback" not in answer.output


def test_up_without_label_studio_is_three(monkeypatch):
    from infra.processes import StackError

    def refuse(self, report):
        raise StackError("Label Studio is not installed; run `make setup`")

    monkeypatch.setattr("infra.local.LocalStack.start", refuse)
    answer = run("up")
    assert answer.exit_code == cli.NOT_READY
    assert "make setup" in answer.output


def test_down_of_nothing_is_fine(world):
    assert run("down", "--home", str(world / "none")).exit_code == 0


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(Verdict.OK, cli.OK), (Verdict.WARNING, cli.OK), (Verdict.PROBLEM, cli.NOT_READY)],
)
def test_doctor_says_what_to_do(monkeypatch, verdict, code):
    checks = [Check("rclone", verdict, "not found", "pip install it")]
    monkeypatch.setattr(doctor, "examine", lambda home, checkpoint: iter(checks))
    answer = run("doctor")
    assert answer.exit_code == code
    assert "pip install it" in answer.output
    told = json.loads(run("doctor", "--json").output)
    assert told == [console.check_as_dict(checks[0])]


def test_doctor_examines_this_machine(world):
    names = {check.name: check for check in doctor.examine(world)}
    assert names["python"].verdict is Verdict.OK
    assert {"torch", "embreex", "rclone", "label-studio", "disk", "ports"} <= set(names)
    for check in names.values():
        assert check.verdict is Verdict.OK or check.cure, check


def test_flows_refuse_a_stack_that_is_down(world):
    from infra.home import ServiceRecord, write_record

    write_record(world / "home", ServiceRecord("s3", 1, "long ago", 9000))
    for command in ("ingest", "shards", "label"):
        answer = run(command, "--home", str(world / "home"))
        assert answer.exit_code == cli.NOT_READY, command
        assert "segvigen up" in answer.output
    assert run("status", "--home", str(world / "home")).exit_code == cli.OK


def test_retry_takes_parked_assets_back(world):
    catalogue = Catalogue(f"sqlite:///{world}/catalogue.db")
    for number, key in enumerate(["a/source.glb", None]):
        row = AssetRow(f"{number:064x}", AssetState.REGISTERED, name="x.glb", source_key=key)
        catalogue.register(row)
        catalogue.move(row.asset_id, AssetState.REJECTED, reason="reviewer_rejected")
    assert run("retry", "accepted").exit_code == cli.USAGE
    answer = run("retry", "rejected")
    assert answer.exit_code == cli.OK
    assert "x.glb: no source" in answer.output
    assert "segvigen ingest --retry" in answer.output
    states = [asset.state for asset in catalogue.assets()]
    assert sorted(states) == [AssetState.REGISTERED, AssetState.REJECTED], "no source, no retry"
