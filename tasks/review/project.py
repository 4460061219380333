"""The reviewers' desk: one Label Studio project, made and kept by code.

`open_project` may be called by anybody at any time: what is right already is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from tasks.review.client import LabelStudioClient, LabelStudioError
from tasks.review.label_config import LABEL_CONFIG
from tasks.review.ml_backend import setup_live
from tasks.review.sdk import SetupApi
from tasks.settings import ReviewSettings, StoreSettings
from tasks.storage.store import Store

log = logging.getLogger(__name__)

STORAGE_TITLE = "segvigen store"
WEBHOOK_HEADER = "X-Segvigen-Token"
WEBHOOK_ACTIONS = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"]
DESCRIPTION = "Part labels of 3D assets. Made by the pipeline; settings changed here are put back."
REVIEW_FOLDER = "review"  # all that Label Studio may read
ABOUT_KEY = f"{REVIEW_FOLDER}/about.txt"
ABOUT = (
    b"What reviewers see in Label Studio: sheets, pixel buffers and viewers by asset and round.\n"
)


@dataclass(frozen=True, slots=True)
class ReviewProject:
    """An open project.

    Attributes:
        client: the pipeline's own access.
        project_id: of the project.
    """

    client: LabelStudioClient
    project_id: int

    @property
    def url(self) -> str:
        """Where a person works."""
        return f"{self.client.url}/projects/{self.project_id}/data"


def open_project(review: ReviewSettings, store: StoreSettings) -> ReviewProject:
    """Find or make the project, its bucket access and its webhook.

    Args:
        review: where Label Studio is, and the project's title.
        store: the pipeline's store; must be s3://, because Label Studio itself reads from it.

    Raises:
        LabelStudioError: no key, a store that Label Studio cannot read, or a refusal.
        LabelStudioUnavailable: Label Studio does not answer.
    """
    if review.api_key is None:
        raise LabelStudioError("no key for Label Studio; set SEGVIGEN_REVIEW_API_KEY")
    if not store.root_url.startswith("s3://"):
        raise LabelStudioError(
            f"Label Studio cannot read {store.root_url.partition('://')[0]}:// stores; "
            "set SEGVIGEN_STORE_ROOT_URL to an s3:// URL (`segvigen up` brings a server)"
        )
    # A folder without any object is "not found" for Label Studio.
    Store.from_settings(store).put(ABOUT_KEY, ABOUT, "text/plain", keep_existing=True)
    api_key = review.api_key.get_secret_value()
    api = SetupApi(review.url, api_key)
    project_id = _ensure_project(api, review.project_title)
    _ensure_storage(api, project_id, _use_review_keys(store, review))
    if review.webhook_url is not None:
        _ensure_webhook(api, project_id, review.webhook_url, review.webhook_token)
    if review.live_url is not None and review.live_password is not None:
        setup_live(api, project_id, review)
    return ReviewProject(LabelStudioClient(review.url, api_key), project_id)


def _ensure_project(api: SetupApi, title: str) -> int:
    """Id of the project with our label config. Of two made at once the older one counts."""
    project = _find_project(api, title)
    if project is None:
        api.write(
            api.sdk.projects.create,
            title=title,
            description=DESCRIPTION,
            label_config=LABEL_CONFIG,
            show_skip_button=True,
            enable_empty_annotation=True,
        )
        project = _find_project(api, title)
        if project is None:
            raise LabelStudioError(f"{api.url} made project {title!r} and does not list it")
        log.info("review=project made=true id=%s", project.id)
    project_id = int(project.id)
    if (project.label_config or "").strip() != LABEL_CONFIG.strip():
        api.write(api.sdk.projects.update, project_id, label_config=LABEL_CONFIG)
        log.info("review=project config_updated=true id=%d", project_id)
    return project_id


def _find_project(api: SetupApi, title: str) -> Any:
    """The project of exactly this title with the lowest id, or None."""
    found: list[Any] = api.read(lambda: list(api.sdk.projects.list(title=title)))
    return min((row for row in found if row.title == title), key=lambda row: row.id, default=None)


def _ensure_storage(api: SetupApi, project_id: int, store: StoreSettings) -> None:
    """Let the project read the store. `presign=False`: Label Studio itself hands out the bytes, so
    that browsers need not reach the bucket and the viewer has the editor's origin.
    """
    storages = api.sdk.import_storage.s3
    wanted = _make_storage_fields(store)
    held = api.read(storages.list, project=project_id)
    existing = next((row for row in held if row.title == STORAGE_TITLE), None)
    fields = {**wanted, **_make_storage_secrets(store), "project": project_id}
    if existing is None:
        api.write(storages.create, **fields)
    elif any(getattr(existing, name) != value for name, value in wanted.items()):
        api.write(storages.update, existing.id, **fields)
    else:
        return
    log.info("review=storage project=%d updated=%s", project_id, existing is not None)


def _ensure_webhook(api: SetupApi, project_id: int, url: str, token: SecretStr | None) -> None:
    """Have annotations announced to `url`; only a hint, each pull reads the list itself."""
    held = api.read(api.sdk.webhooks.list, project=str(project_id))
    headers = {WEBHOOK_HEADER: token.get_secret_value()} if token else {}
    if any(row.url == url and (row.headers or {}) == headers for row in held):
        return
    # Ours at an older address or with an older token would be refused for ever.
    stale = [row for row in held if WEBHOOK_HEADER in (row.headers or {})]
    for row in stale:
        api.write(api.sdk.webhooks.delete, row.id)
    api.write(
        api.sdk.webhooks.create,
        project=project_id,
        url=url,
        actions=WEBHOOK_ACTIONS,
        send_for_all_actions=False,
        send_payload=False,
        headers=headers,
    )
    log.info("review=webhook project=%d replaced=%d", project_id, len(stale))


def _use_review_keys(store: StoreSettings, review: ReviewSettings) -> StoreSettings:
    """Return the store as Label Studio reaches it, with keys that need only read."""
    changed: dict[str, Any] = {}
    if review.s3_endpoint_url:
        changed["s3_endpoint_url"] = review.s3_endpoint_url
    if review.s3_access_key:
        changed["s3_access_key"] = review.s3_access_key
        changed["s3_secret_key"] = review.s3_secret_key
    return store.model_copy(update=changed)


def _make_storage_fields(store: StoreSettings) -> dict[str, Any]:
    parts = urlsplit(store.root_url)
    return {
        "title": STORAGE_TITLE,
        "bucket": parts.netloc,
        "prefix": f"{parts.path.strip('/')}/{REVIEW_FOLDER}".lstrip("/"),
        "use_blob_urls": True,
        "presign": False,
        "region_name": store.s3_region,
        "s3endpoint": store.s3_endpoint_url,
    }


def _make_storage_secrets(store: StoreSettings) -> Mapping[str, str | None]:
    secret = store.s3_secret_key
    return {
        "aws_access_key_id": store.s3_access_key,
        "aws_secret_access_key": secret.get_secret_value() if secret else None,
    }
