"""The sections of the settings: one small class per concern, with defaults and bounds.

`tasks.settings` reads them from file, environment and arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr


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
