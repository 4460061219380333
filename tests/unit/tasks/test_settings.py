"""Settings: file < environment < arguments, and nothing is ignored in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.settings import (
    Settings,
    SettingsError,
    list_settings_variables,
    load_settings,
    read_file_variables,
)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "s.toml"
    path.write_text('[model]\nnum_draws = 5\nseed = 1\n[catalogue]\nurl = "sqlite:///x.db"\n')
    return path


def test_file_then_environment_then_arguments(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGVIGEN_MODEL_SEED", "2")
    monkeypatch.setenv("SEGVIGEN_MODEL_NUM_STEPS", "3")
    settings = load_settings(toml, {"model": {"num_steps": 4}})
    assert settings.model.num_draws == 5
    assert settings.model.seed == 2
    assert settings.model.num_steps == 4
    assert settings.catalogue.url.get_secret_value() == "sqlite:///x.db"


def test_config_variable_names_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGVIGEN_CONFIG", str(toml))
    assert load_settings().model.num_draws == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\nseed = 1\n", "unknown settings section 'modle'"),
        ("[model]\nsede = 1\n", "[model] sede"),
        ("[model]\nseed = -1\n", "[model] seed"),
        ('[store]\ns3_secret_key = "x"\n', "SEGVIGEN_STORE_S3_SECRET_KEY"),
        ('[STORE]\ns3_secret_key = "x"\n', "SEGVIGEN_STORE_S3_SECRET_KEY"),
        ("model = 3\n", "[model]: "),
        ("[model\n", "cannot read settings file"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert message in str(caught.value)


def test_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml")
    monkeypatch.setenv("SEGVIGEN_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_settings()


def test_unknown_overrides_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="unknown settings section 'modle'; known: store, "):
        load_settings(None, {"modle": {}})
    with pytest.raises(SettingsError, match=r"\[model\] sede: "):
        load_settings(None, {"model": {"sede": 1}})


def test_variables_of_other_programs_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = load_settings()
    # What Kubernetes sets for a service named segvigen-store.
    for name in ("SEGVIGEN_STORE", "SEGVIGEN_STORE_PORT", "SEGVIGEN_STORE_PORT_80_TCP"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert load_settings() == plain


def test_secrets_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGVIGEN_STORE_S3_SECRET_KEY", "hush-hush")
    monkeypatch.setenv("SEGVIGEN_CATALOGUE_URL", "postgresql://me:hush-hush@db/x")
    settings = load_settings()
    assert settings.store.s3_secret_key is not None
    assert settings.store.s3_secret_key.get_secret_value() == "hush-hush"
    assert "hush" not in repr(settings)


def test_every_variable_is_listed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variables = list_settings_variables()
    assert variables["SEGVIGEN_MODEL_SEED"] == "0"
    for name, default in variables.items():
        if default and name != "SEGVIGEN_CONFIG":
            monkeypatch.setenv(name, default)
    with_environment = load_settings()
    monkeypatch.undo()
    monkeypatch.delenv("SEGVIGEN_INGEST_QUIET_S")  # set for all tests
    monkeypatch.chdir(tmp_path)
    assert with_environment == load_settings()


EARLIER = (  # section, field, its name in version 0.1.0, a value
    ("quality", "gold_share", "known_share", 0.25),
    ("quality", "gold_iou", "known_iou", 0.25),
    ("live", "max_responses", "max_answers", 7),
)


@pytest.mark.parametrize(("section", "field", "earlier", "value"), EARLIER)
def test_earlier_names_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: str,
    field: str,
    earlier: str,
    value: float,
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[{section}]\n{earlier} = {value}\n")
    monkeypatch.setenv("SEGVIGEN_CONFIG", str(file))
    assert getattr(getattr(load_settings(), section), field) == value
    name = f"SEGVIGEN_{section}_{field}".upper()
    assert read_file_variables() == {name: str(value)}
    monkeypatch.setenv(f"SEGVIGEN_{section}_{earlier}".upper(), "1")
    assert getattr(getattr(load_settings(), section), field) == 1, "environment over file"
    assert read_file_variables() == {}, "else programs in other folders would get it twice"
    given = {section: {earlier: value}}
    assert getattr(getattr(load_settings(overrides=given), section), field) == value
    file.write_text(f"[{section}]\n{field} = {value}\n")
    assert getattr(getattr(load_settings(), section), field) == 1, "environment over file"
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=f"{name} and SEGVIGEN_.* are one setting; keep the f"):
        load_settings()
    monkeypatch.undo()
    file.write_text(f"[{section}]\n{field} = {value}\n{earlier} = {value}\n")
    with pytest.raises(SettingsError, match=rf"\[{section}\] {field} and \[{section}\] {earlier}"):
        load_settings(file)


def test_a_file_as_variables_means_the_same(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text(f"{toml.read_text()}[store]\ns3_secret_key = 'x'\n[modle]\nseed = 1\n")
    monkeypatch.setenv("SEGVIGEN_CONFIG", str(toml))
    assert read_file_variables() == {
        "SEGVIGEN_MODEL_NUM_DRAWS": "5",
        "SEGVIGEN_MODEL_SEED": "1",
        "SEGVIGEN_CATALOGUE_URL": "sqlite:///x.db",
    }


OUTSIDE_SETTINGS = {"SEGVIGEN_HOME": ".segvigen", "SEGVIGEN_LABEL_STUDIO_PROGRAM": ""}


def test_the_example_lists_every_variable_with_its_default() -> None:
    lines = (Path(__file__).resolve().parents[3] / ".env.example").read_text().splitlines()
    wanted = list_settings_variables() | OUTSIDE_SETTINGS
    for name, default in wanted.items():
        assert f"#{name}={default}" in lines, name
    named = {line.strip("#").partition("=")[0] for line in lines if "SEGVIGEN_" in line}
    assert {name for name in named if name.isupper()} <= set(wanted), "nobody reads it"


def float_fields() -> list[tuple[str, str]]:
    return [
        (section, field)
        for section, about in Settings.model_fields.items()
        for field, info in about.annotation.model_fields.items()
        if info.annotation in (float, float | None)
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_no_number_may_be_nan_or_infinite(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = float_fields()
    assert len(fields) > 10
    for section, field in fields:
        with pytest.raises(SettingsError, match=rf"\[{section}\] {field}"):
            load_settings(None, {section: {field: float(value)}})
        with monkeypatch.context() as patch:
            patch.setenv(f"SEGVIGEN_{section}_{field}".upper(), value)
            with pytest.raises(SettingsError, match=rf"\[{section}\] {field}"):
                load_settings()
