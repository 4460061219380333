"""The library's own command, and what installed additions do to it."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from segvigen_model.command import options
from segvigen_model.command.main import ADDITIONS, is_installed, load_additions, make_app

SUBCOMMANDS = ("segment", "evaluate", "parity", "doctor", "weights")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install an addition as pip does: a module, and an entry point that names a function."""

    def put(module: str, source: str | None) -> typer.Typer:
        about = tmp_path / f"{module.replace('.', '_')}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {about.stem}\nVersion: 1.0\n"
        )
        (about / "entry_points.txt").write_text(f"[{ADDITIONS}]\nmine = {module}:add\n")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        app = make_app()
        load_additions(app)
        return app

    return put


def run(app: typer.Typer, *arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_help_names_the_subcommands_and_the_exit_codes():
    shown = run(make_app(), "--help").output
    assert all(name in shown for name in SUBCOMMANDS) and "Exit codes" in shown


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help(name):
    response = run(make_app(), name, "--help")
    assert response.exit_code == options.OK and len(response.output) > 100


def test_an_addition_adds_and_replaces_subcommands(install):
    source = """
def add(app):
    app.command("hello")(lambda: print("good day"))
    app.command("parity")(lambda: print("another parity"))
"""
    app = install("addition_that_works", source)
    assert run(app, "hello").output == "good day\n"
    assert run(app, "parity").output == "another parity\n"
    assert run(app, "evaluate", "--help").exit_code == options.OK


def test_an_addition_whose_module_is_absent_is_left_out(install, capsys):
    shown = run(install("addition_without.module", None), "--help").output
    assert all(name in shown for name in SUBCOMMANDS)
    assert capsys.readouterr().err == ""


def test_an_addition_that_lacks_a_package_is_reported(install, capsys):
    source = """
from segvigen_model.errors import MissingExtra

def add(app):
    raise MissingExtra("prefect", "pip install prefect")
"""
    app = install("addition_that_lacks", source)
    assert run(app, "--help").exit_code == options.OK
    shown = " ".join(capsys.readouterr().err.split())
    assert shown == ("subcommands of mine left out: prefect is not installed; pip install prefect")


def test_an_addition_with_a_fault_is_not_hidden(install):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        install("addition_with_a_fault", "import no_such_module")


@pytest.mark.parametrize(
    ("module", "is_there"),
    [
        ("flows.cli.main", True),
        ("flows.cli.none", False),
        ("no_such_package.cli.main", False),
        ("typing.cli.main", False),  # another project's module of the same name
    ],
)
def test_modules_are_found_without_an_import_error(module, is_there):
    assert is_installed(module) is is_there


def test_parity_of_a_folder_without_sets_is_two(tmp_path):
    response = run(make_app(), "parity", str(tmp_path))
    assert response.exit_code == options.USAGE
    assert run(make_app(), "parity", str(tmp_path / "none")).exit_code == options.USAGE
