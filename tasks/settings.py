"""All settings, one small class per concern: TOML file < environment < arguments.

Secrets come from the environment (or arguments) only: a secret in the TOML file is refused, and a
key that nobody knows is refused too, because a silently ignored setting costs more than an error.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from segvigen_model.errors import SegvigenError

CONFIG_VARIABLE = "SEGVIGEN_CONFIG"
DEFAULT_CONFIG = Path("segvigen.toml")


class SettingsError(SegvigenError):
    """A settings file or variable is wrong; the message names it."""


def _config(section: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=f"SEGVIGEN_{section}_", extra="forbid", frozen=True, env_ignore_empty=True
    )


class StoreSettings(BaseSettings):
    """Where blobs live. `file://` or `s3://` with any endpoint."""

    model_config = _config("STORE")
    root_url: str = Field("file://.segvigen/store", description="everything the pipeline writes")
    raw_url: str = Field("file://.segvigen/raw", description="the bucket of raw meshes, only read")
    s3_endpoint_url: str | None = Field(None, description="None = AWS")
    s3_region: str | None = None
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None


class CatalogueSettings(BaseSettings):
    """Where state lives: SQLite on a local disk, or PostgreSQL by URL."""

    model_config = _config("CATALOGUE")
    url: SecretStr = Field(SecretStr("sqlite:///.segvigen/catalogue.db"))


class ModelSettings(BaseSettings):
    """Which checkpoint, where it runs and how it draws."""

    model_config = _config("MODEL")
    checkpoint: str = Field("current", description="name, folder, or the tuned one in use")
    checkpoint_cache: Path = Field(Path(".segvigen/checkpoints"), description="fetched ones")
    device: str = "cpu"
    num_draws: int = Field(4, ge=1, le=64)
    num_steps: int = Field(8, ge=1, le=100)
    granularity: Literal["coarse", "medium", "fine"] = "medium"
    seed: int = Field(0, ge=0)


class GateSettings(BaseSettings):
    """When a proposal may skip the reviewer. The default lets almost nothing through unseen."""

    model_config = _config("GATE")
    accept_confidence: float = Field(0.95, ge=0, le=1, description="expected IoU to skip review")
    min_draws: int = Field(4, ge=1, description="agreement of fewer draws proves nothing")
    min_parts: int = Field(2, ge=1)
    max_parts: int = Field(50, ge=1)
    min_part_area: float = Field(0.003, ge=0, le=1, description="share of surface, PartSAM rule")
    max_part_area: float = Field(0.98, gt=0, le=1, description="one part that is all = no parts")
    audit_share: float = Field(0.05, ge=0, le=1, description="sure ones that are reviewed anyway")


class ReviewSettings(BaseSettings):
    """The reviewers' desk: Label Studio."""

    model_config = _config("REVIEW")
    url: str = "http://127.0.0.1:8080"
    api_key: SecretStr | None = None
    project_title: str = "SegviGen parts"
    max_rounds: int = Field(4, ge=1, le=50)
    max_clicks: int = Field(100, ge=1, description="per annotation; more are cut and reported")
    webhook_url: str | None = Field(None, description="None = polling only")
    webhook_token: SecretStr | None = None
    poll_interval_s: float = Field(5.0, gt=0)
    sheet_pixels: int = Field(1536, ge=256, le=8192)
    live_url: str | None = Field(None, description="refine service as Label Studio reaches it")
    live_user: str = Field("label-studio", description="what Label Studio logs in with there")
    live_password: SecretStr | None = Field(None, description="None = no live answers")
    taxonomy: Path | None = Field(None, description="JSON or TOML file of part categories")


class LiveSettings(BaseSettings):
    """The refine service that answers a click while the reviewer waits."""

    model_config = _config("LIVE")
    max_waiting: int = Field(32, ge=1, description="requests in the queue; more are sent away")
    timeout_s: float = Field(30.0, gt=0, description="then the reviewer is told to click again")
    max_assets: int = Field(4, ge=1, description="kept in memory with their geometry")
    max_answers: int = Field(256, ge=1, description="kept for a request that comes again")


class QualitySettings(BaseSettings):
    """Order of the reviewers' queue, and who looks twice. Shares are drawn by hash."""

    model_config = _config("QUALITY")
    max_open_tasks: int = Field(500, ge=1, description="on the desk at a time; the rest waits")
    exploration_share: float = Field(0.1, ge=0, le=1, description="queued regardless of score")
    known_share: float = Field(0.0, ge=0, le=1, description="tasks with known labels per task")
    double_share: float = Field(0.0, ge=0, le=1, description="labelled by two reviewers")
    agreement_iou: float = Field(0.75, ge=0, le=1, description="below it a third look decides")
    agreement_boundary: float = Field(0.6, ge=0, le=1, description="the same, of part borders")
    known_iou: float = Field(0.75, ge=0, le=1, description="below it a known task was missed")
    audit_iou: float = Field(0.9, ge=0, le=1, description="below it an audit contradicts the gate")
    max_audit_misses: float = Field(0.2, gt=0, le=1, description="share that closes the gate")


class IngestSettings(BaseSettings):
    """What the input gate lets in."""

    model_config = _config("INGEST")
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
    parse_seconds: float = Field(600.0, gt=0, description="then reading a mesh is given up")
    parse_gib: float = Field(16.0, gt=0, description="address space of the process that reads")
    default_licence: str = Field("unknown", description="where no side-car says otherwise")


class ShardSettings(BaseSettings):
    """How fine-tuning shards are cut."""

    model_config = _config("SHARD")
    dataset: str = Field("parts", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    max_shard_bytes: int = Field(256 * 2**20, ge=2**10)
    num_palettes: int = Field(4, ge=1, le=64, description="full-mode colourings per asset")
    num_guide_views: int = Field(2, ge=1, le=16, description="2D-guided maps per asset")
    guide_pixels: int = Field(256, ge=32, le=2048)


class WorkSettings(BaseSettings):
    """How workers share the work: leases, attempts, chunks."""

    model_config = _config("WORK")
    lease_s: float = Field(600.0, gt=0, description="a dead worker's assets are free after this")
    max_attempts: int = Field(3, ge=1, description="then the asset is parked as failed")
    chunk_size: int = Field(20, ge=1, le=500, description="assets one task claims")


class Settings(BaseModel):
    """Every section together; build it with `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: StoreSettings
    catalogue: CatalogueSettings
    model: ModelSettings
    gate: GateSettings
    review: ReviewSettings
    live: LiveSettings
    quality: QualitySettings
    ingest: IngestSettings
    shard: ShardSettings
    work: WorkSettings


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
    tables = _read_toml(path)
    given = dict(overrides or {})
    sections = Settings.model_fields
    for name in (*tables, *given):
        if name not in sections:
            raise SettingsError(f"unknown settings section {name!r}; known: {', '.join(sections)}")
    built: dict[str, Any] = {}
    for name, info in sections.items():
        section: type[BaseSettings] = info.annotation  # type: ignore[assignment]
        built[name] = _section(name, section, tables.get(name, {}), given.get(name, {}))
    return Settings(**built)


def settings_variables() -> dict[str, str]:
    """Return every environment variable that is read, with its default as text ("" = none)."""
    found = {CONFIG_VARIABLE: str(DEFAULT_CONFIG)}
    for info in Settings.model_fields.values():
        section: type[BaseSettings] = info.annotation  # type: ignore[assignment]
        for field, about in section.model_fields.items():
            value = about.default
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            name = f"{section.model_config['env_prefix']}{field}".upper()
            found[name] = "" if value is None else str(value)
    return found


def file_variables() -> dict[str, str]:
    """What the settings file says, as environment variables: for programs in other folders.

    Secrets and names that nobody knows are left out: `load_settings` refuses them.
    """
    known, found = settings_variables(), {}
    for name, info in Settings.model_fields.items():
        section: type[BaseSettings] = info.annotation  # type: ignore[assignment]
        table = _read_toml(None).get(name, {})
        for field, value in table.items() if isinstance(table, dict) else ():
            variable = f"{section.model_config['env_prefix']}{field}".upper()
            if variable in known and not _is_secret(section, field):
                found[variable] = str(value)
    return found


def _section(
    name: str, section: type[BaseSettings], table: Mapping[str, Any], given: Mapping[str, Any]
) -> BaseSettings:
    secrets = [key for key in table if _is_secret(section, key)]
    if secrets:
        variable = f"{section.model_config['env_prefix']}{secrets[0]}".upper()
        raise SettingsError(f"[{name}] {secrets[0]} is a secret; set {variable} instead")
    try:
        from_environment = EnvSettingsSource(section)()
        return section(**{**table, **from_environment, **given})
    except ValidationError as err:
        first = err.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"[{name}] {where}: {first['msg']}") from err


def _is_secret(section: type[BaseSettings], field: str) -> bool:
    # The catalogue's URL may hold a password, but mostly does not: it may stand in the file.
    about = section.model_fields.get(field)
    return about is not None and "SecretStr" in str(about.annotation) and field != "url"


def _read_toml(path: Path | None) -> dict[str, Any]:
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is None and not DEFAULT_CONFIG.exists():
        return {}
    file = named or DEFAULT_CONFIG
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise SettingsError(f"cannot read settings file {file}: {err}") from err
