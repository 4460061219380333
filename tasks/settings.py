"""All settings, one small class per concern: TOML file < environment < arguments.

Secrets come from the environment or from arguments: a secret in the TOML file is refused, and so is
an unknown section or field, because a setting that is silently ignored costs more than an error.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from segvigen_model.errors import SegvigenError
from tasks.setting_sections import (
    CatalogueSettings,
    GateSettings,
    IngestSettings,
    LiveSettings,
    ModelSettings,
    QualitySettings,
    ReviewSettings,
    ShardSettings,
    StoreSettings,
    WorkSettings,
)

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "PREFIX",
    "CatalogueSettings",
    "GateSettings",
    "IngestSettings",
    "LiveSettings",
    "ModelSettings",
    "QualitySettings",
    "ReviewSettings",
    "Settings",
    "SettingsError",
    "ShardSettings",
    "StoreSettings",
    "WorkSettings",
    "list_settings_variables",
    "load_settings",
    "read_file_variables",
    "refuse_secrets",
]

PREFIX = "SEGVIGEN_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
DEFAULT_CONFIG = Path("segvigen.toml")
VARIABLE = PREFIX + "{section}_{field}"  # in upper case
FILE_ARGUMENT = "toml_file"  # of `Settings`, beside its sections


class SettingsError(SegvigenError):
    """A settings file or variable is wrong; the message names it."""


class Settings(BaseSettings):
    """Every section together; build it with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )
    store: StoreSettings = StoreSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    model: ModelSettings = ModelSettings()
    gate: GateSettings = GateSettings()
    review: ReviewSettings = ReviewSettings()
    live: LiveSettings = LiveSettings()
    quality: QualitySettings = QualitySettings()
    ingest: IngestSettings = IngestSettings()
    shard: ShardSettings = ShardSettings()
    work: WorkSettings = WorkSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, TOML file, in this order; the command itself loads `.env`."""
        assert isinstance(init_settings, InitSettingsSource)
        file = _read_file(init_settings.init_kwargs.pop(FILE_ARGUMENT, None))
        init_settings.init_kwargs = _rename_fields(init_settings.init_kwargs, "{section}.{field}")
        for variable, section, field, info in _variables():
            if _is_secret(info) and field in _table(file, section):
                raise SettingsError(f"[{section}] {field} is a secret; set {variable} instead")
        return init_settings, _Environment(settings_cls), file


class _Environment(EnvSettingsSource):
    """Variables of known fields; Kubernetes sets others, such as SEGVIGEN_STORE_PORT."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, True  # a whole section has no variable

    def explode_env_vars(
        self, field_name: str, field: FieldInfo, env_vars: Mapping[str, str | None]
    ) -> dict[str, Any]:
        found = super().explode_env_vars(field_name, field, env_vars)
        known = {each for name, info in _fields(field).items() for each in _names_of(name, info)}
        table = {name: value for name, value in found.items() if name in known}
        return dict(_rename_fields({field_name: table}, VARIABLE)[field_name])


def load_settings(
    path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """Read settings: TOML file < environment < overrides.

    Args:
        path: TOML file with one table per section; None reads $SEGVIGEN_CONFIG, else
            `segvigen.toml` in the working folder when there is one.
        overrides: section -> field -> value, e.g. a flow's parameters.

    Raises:
        SettingsError: unknown section or field, a value out of range, a secret in the file.
    """
    given: dict[str, Any] = {FILE_ARGUMENT: path, **(overrides or {})}
    try:
        return Settings(**given)
    except ValidationError as err:
        first = err.errors(include_input=False)[0]
        section, *field = map(str, first["loc"])
        if section not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise SettingsError(f"unknown settings section {section!r}; known: {known}") from err
        where = " ".join((f"[{section}]", *field))
        raise SettingsError(f"{where}: {first['msg']}") from err


def refuse_secrets(overrides: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Check overrides that come as a flow's parameters: Prefect stores and shows those.

    Raises:
        SettingsError: a field that may hold a secret; the message names it, not its value.
    """
    for variable, section, field, info in _variables():
        table = (overrides or {}).get(section)
        if not isinstance(table, Mapping):
            continue
        given = [str(table[name]) for name in _names_of(field, info) if name in table]
        # A file's path in place of a database's address holds no password.
        is_open = field == "url" and all(text.startswith("sqlite:") for text in given)
        if given and "SecretStr" in str(info.annotation) and not is_open:
            raise SettingsError(
                f"overrides: {section}.{field} is a secret, and a flow's parameters are stored "
                f"and shown; set {variable} for the worker instead"
            )


def list_settings_variables() -> dict[str, str]:
    """Return every environment variable that is read, with its default as text ("" = none)."""
    found = {CONFIG_VARIABLE: str(DEFAULT_CONFIG)}
    for variable, _, _, info in _variables():
        value = info.default
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        found[variable] = "" if value is None else str(value)
    return found


def read_file_variables() -> dict[str, str]:
    """Return the settings file as environment variables: for programs in other folders.

    Secrets and unknown names are left out: `load_settings` refuses them. So are settings that the
    environment has under an earlier name: it overrides the file.
    """
    file = _read_file()
    return {
        variable: str(_table(file, section)[field])
        for variable, section, field, info in _variables()
        if field in _table(file, section)
        and not _is_secret(info)
        and not any(
            os.environ.get(VARIABLE.format(section=section, field=earlier).upper())
            for earlier in _names_of(field, info)[1:]
        )
    }


def _read_file(path: Path | None = None) -> TomlConfigSettingsSource:
    named = path or os.environ.get(CONFIG_VARIABLE)
    file = Path(named or DEFAULT_CONFIG)
    try:
        if named:
            file.read_bytes()  # the source takes an absent file for an empty one
        source = TomlConfigSettingsSource(Settings, file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise SettingsError(f"cannot read settings file {file}: {err}") from err
    source.init_kwargs = _rename_fields(source.init_kwargs, "[{section}] {field}")
    return source


def _rename_fields(tables: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Replace earlier names of fields by the present ones, in one source of settings.

    Sources are merged by name: an earlier name in one must override the present name in another.

    Args:
        tables: section -> field -> value.
        place: pattern of how people write `section` and `field` in this source.
    """
    renamed = dict(tables)
    for section, about in Settings.model_fields.items():
        table = renamed.get(section)
        if not isinstance(table, Mapping):
            continue
        changed = dict(table)
        for field, info in _fields(about).items():
            given = [name for name in _names_of(field, info) if name in changed]
            if len(given) > 1:
                names = [place.format(section=section, field=name) for name in given]
                if place == VARIABLE:
                    names = [name.upper() for name in names]
                raise SettingsError(f"{' and '.join(names)} are one setting; keep the first only")
            if given:
                changed[field] = changed.pop(given[0])
        renamed[section] = changed
    return renamed


def _names_of(field: str, info: FieldInfo) -> list[str]:
    """The present name of a field, then its earlier ones."""
    choices = info.validation_alias
    return [field, *map(str, choices.choices[1:])] if isinstance(choices, AliasChoices) else [field]


def _table(file: TomlConfigSettingsSource, section: str) -> Mapping[str, Any]:
    table = file.init_kwargs.get(section)
    return table if isinstance(table, dict) else {}


def _fields(section: FieldInfo) -> dict[str, FieldInfo]:
    model: type[BaseModel] = section.annotation  # type: ignore[assignment]
    return model.model_fields


def _variables() -> Iterator[tuple[str, str, str, FieldInfo]]:
    """Yield environment variable, section, field and definition of every setting."""
    for section, about in Settings.model_fields.items():
        for field, info in _fields(about).items():
            yield VARIABLE.format(section=section, field=field).upper(), section, field, info


def _is_secret(info: FieldInfo) -> bool:
    # The catalogue's URL may hold a password but mostly does not: it may stand in the file.
    return bool(info.annotation == SecretStr | None)
