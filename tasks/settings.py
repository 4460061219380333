"""All settings, one small class per concern: TOML file < environment < arguments.

Secrets come from the environment or from arguments: a secret in the TOML file is refused, and so is
an unknown section or field, because a setting that is silently ignored costs more than an error.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError
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

PREFIX = "SEGVIGEN_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
DEFAULT_CONFIG = Path("segvigen.toml")
VARIABLE = PREFIX + "{section}_{field}"  # in upper case
FILE_ARGUMENT = "toml_file"  # of `Settings`, beside its sections


class SettingsError(SegvigenError):
    """A settings file or variable is wrong; the message names it."""


class Section(BaseModel):
    """A group of settings: one table of the file, one prefix of the environment.

    The first choice of a field's `validation_alias` is the field itself, the others are names that
    it had before. No number may be NaN or infinite: comparisons with it would always or never hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StoreSettings(Section):
    """Where blobs are stored: `file://`, or `s3://` with any endpoint."""

    root_url: str = Field("file://.segvigen/store", description="all that the pipeline writes")
    raw_url: str = Field("file://.segvigen/raw", description="raw meshes, read only")
    s3_endpoint_url: str | None = Field(None, description="None = AWS")
    s3_region: str | None = None
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None
    raw_s3_endpoint_url: str | None = Field(None, description="None = that of the store")
    raw_s3_access_key: str | None = Field(None, description="may read; None = keys of the store")
    raw_s3_secret_key: SecretStr | None = None


class CatalogueSettings(Section):
    """Where state is stored: SQLite on a local disk, or PostgreSQL by URL."""

    url: SecretStr = Field(SecretStr("sqlite:///.segvigen/catalogue.db"))


class ModelSettings(Section):
    """Which checkpoint, on which device, and how proposals are sampled."""

    checkpoint: str = Field("current", description="name, folder, or current: the tuned one")
    checkpoint_cache: Path = Field(Path(".segvigen/checkpoints"), description="local copies")
    device: str = "cpu"
    num_draws: int = Field(4, ge=1, le=64)
    num_steps: int = Field(8, ge=1, le=100)
    granularity: Literal["coarse", "medium", "fine"] = "medium"
    seed: int = Field(0, ge=0)


class GateSettings(Section):
    """When a proposal may skip review. The defaults accept almost nothing without a reviewer."""

    accept_confidence: float = Field(0.95, ge=0, le=1, description="expected IoU to skip review")
    min_draws: int = Field(4, ge=1, description="fewer draws cannot show agreement")
    min_parts: int = Field(2, ge=1)
    max_parts: int = Field(50, ge=1)
    min_part_area: float = Field(0.003, ge=0, le=1, description="share of surface, PartSAM rule")
    max_part_area: float = Field(0.98, gt=0, le=1, description="above it: no parts were found")
    audit_share: float = Field(0.05, ge=0, le=1, description="accepted, but reviewed anyway")


class ReviewSettings(Section):
    """The review project in Label Studio."""

    url: str = "http://127.0.0.1:8080"
    api_key: SecretStr | None = None
    project_title: str = "SegviGen parts"
    max_rounds: int = Field(4, ge=1, le=50)
    max_clicks: int = Field(100, ge=1, description="per annotation; others are dropped, reported")
    webhook_url: str | None = Field(None, description="None = polling only")
    webhook_token: SecretStr | None = None
    poll_interval_s: float = Field(5.0, gt=0)
    sheet_pixels: int = Field(1536, ge=256, le=8192)
    live_url: str | None = Field(None, description="refine service, as seen by Label Studio")
    live_user: str = Field("label-studio", description="user name that Label Studio sends there")
    live_password: SecretStr | None = Field(None, description="None = no live predictions")
    s3_endpoint_url: str | None = Field(
        None, description="the store as Label Studio reaches it; None = as the pipeline does"
    )
    s3_access_key: str | None = Field(
        None, description="given to Label Studio, may read; None = keys of the store"
    )
    s3_secret_key: SecretStr | None = None
    taxonomy: Path | None = Field(None, description="JSON or TOML file of part categories")


class LiveSettings(Section):
    """The refine service, which answers a click while the reviewer waits."""

    max_waiting: int = Field(32, ge=1, description="requests in the queue; more are refused")
    timeout_s: float = Field(30.0, gt=0, description="then the reviewer has to click again")
    max_assets: int = Field(4, ge=1, description="kept in memory with their geometry")
    is_open: bool = Field(
        False, description="serve /metrics, /readyz, /openapi.json without a login"
    )
    max_responses: int = Field(
        256,
        ge=1,
        description="predictions kept for repeated requests",
        validation_alias=AliasChoices("max_responses", "max_answers"),
    )


class QualitySettings(Section):
    """Order of the review queue, double annotation, gold tasks. Shares are sampled by hash."""

    max_open_tasks: int = Field(500, ge=1, description="in the review project at a time")
    exploration_share: float = Field(0.1, ge=0, le=1, description="queued whatever their score")
    gold_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="gold tasks per ordinary task",
        validation_alias=AliasChoices("gold_share", "known_share"),
    )
    double_share: float = Field(0.0, ge=0, le=1, description="labelled by two reviewers")
    agreement_iou: float = Field(0.75, ge=0, le=1, description="below it a third reviewer decides")
    agreement_boundary: float = Field(0.6, ge=0, le=1, description="the same, for part boundaries")
    gold_iou: float = Field(
        0.75,
        ge=0,
        le=1,
        description="below it a gold task was missed",
        validation_alias=AliasChoices("gold_iou", "known_iou"),
    )
    audit_iou: float = Field(0.9, ge=0, le=1, description="below it an audit contradicts the gate")
    max_audit_misses: float = Field(0.2, gt=0, le=1, description="share that closes the gate")


class IngestSettings(Section):
    """Limits of what is ingested."""

    max_bytes: int = Field(512 * 2**20, ge=1, description="of one object, side files included")
    max_faces: int = Field(2_000_000, ge=1)
    max_vertices: int = Field(6_000_000, ge=3)
    max_texture_pixels: int = Field(
        8192 * 8192, ge=1, description="of all different textures of an asset together"
    )
    max_side_files: int = Field(256, ge=0)
    is_side_file_required: bool = Field(
        False, description="reject an OBJ or PLY without its MTL or texture, else record it"
    )
    parse_seconds: float = Field(600.0, gt=0, description="time limit for reading one mesh")
    parse_gib: float = Field(16.0, gt=0, description="address space of the parser process")
    is_sandbox_required: bool = Field(
        True, description="parse nothing where the parser's network cannot be taken away"
    )
    quiet_s: float = Field(
        2.0, ge=0, description="a local raw file changed within so many seconds is left to grow"
    )
    default_licence: str = Field("unknown", description="where no side-car file names one")


class ShardSettings(Section):
    """How fine-tuning shards are built."""

    dataset: str = Field("parts", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    max_shard_bytes: int = Field(256 * 2**20, ge=2**10)
    num_palettes: int = Field(4, ge=1, le=64, description="full-mode colourings per asset")
    num_guide_views: int = Field(2, ge=1, le=16, description="2D-guided maps per asset")
    guide_pixels: int = Field(256, ge=32, le=2048)


class WorkSettings(Section):
    """How workers share the work: leases, attempts, chunks."""

    lease_s: float = Field(600.0, gt=0, description="then a dead worker's assets are free again")
    max_attempts: int = Field(3, ge=1, description="then the asset is parked as failed")
    lock_wait_s: float = Field(
        3600.0, ge=0, description="for another build of the same dataset to end"
    )
    max_deaths: int = Field(2, ge=1, description="workers that may die over one asset alone")
    sick_pause_s: float = Field(600.0, ge=0, description="a device that failed is left alone")
    outage_wait_s: float = Field(300.0, ge=0, description="a flow waits so long for its services")
    stage_seconds: float = Field(3600.0, gt=0, description="time limit of a stage for one asset")
    stage_gib: float = Field(
        16.0, gt=0, description="memory that a stage may take for one asset, on a CPU"
    )
    chunk_size: int = Field(20, ge=1, le=500, description="assets that one task claims")
    num_threads: int = Field(1, ge=1, le=256, description="of a process; use processes instead")


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
