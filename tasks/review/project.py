"""The reviewers' desk: one Label Studio project, made and kept by code.

`open_project` may be called by anybody at any time: what is right already is left alone. Making and
changing go through Label Studio's SDK, imported only then, because that takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from tasks.review.client import (
    MAX_BODY_CHARS,
    LabelStudioClient,
    LabelStudioError,
    LabelStudioUnavailable,
)
from tasks.review.label_config import LABEL_CONFIG
from tasks.review.ml_backend import setup_live
from tasks.settings import ReviewSettings, StoreSettings
from tasks.storage.store import Store

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

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
ONCE: Any = {"max_retries": 0}  # a repeated POST would make a second one


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
        DeskError: no key, a store that Label Studio cannot read, or a refusal.
        DeskUnavailable: Label Studio does not answer.
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
    client = LabelStudioClient(review.url, review.api_key.get_secret_value())
    setup = _ProjectSetup(client, review.url, review.api_key)
    project_id = setup.ensure_project(review.project_title)
    setup.ensure_storage(project_id, store)
    if review.webhook_url is not None:
        setup.ensure_webhook(project_id, review.webhook_url, review.webhook_token)
    if review.live_url is not None and review.live_password is not None:
        setup_live(client, project_id, review)
    return ReviewProject(client, project_id)


class _ProjectSetup:
    """Compares by plain reads; the SDK is loaded for changes only."""

    def __init__(self, client: LabelStudioClient, url: str, api_key: SecretStr) -> None:
        self._client = client
        self._url = url
        self._api_key = api_key
        self._loaded: LabelStudio | None = None

    @property
    def _sdk(self) -> LabelStudio:
        if self._loaded is None:
            from label_studio_sdk import LabelStudio

            base = self._url.rstrip("/") + "/"
            self._loaded = LabelStudio(  # type: ignore[no-untyped-call]
                base_url=base, api_key=self._api_key.get_secret_value()
            )
        return self._loaded

    def _create(self, create: Callable[..., Any], **fields: Any) -> None:
        """Call one of the SDK's creating functions; its errors would show every header."""
        from label_studio_sdk.core.api_error import ApiError

        try:
            create(**fields, request_options=ONCE)
        except ApiError as err:
            body = str(err.body)[:MAX_BODY_CHARS]
            kind = LabelStudioUnavailable if (err.status_code or 500) >= 500 else LabelStudioError
            raise kind(
                f"{self._url} refused the set-up: status {err.status_code}: {body}"
            ) from None

    def ensure_project(self, title: str) -> int:
        """Id of the project with our label config. Of two made at once the older one counts."""
        found = self._client.find_projects(title)
        if not found:
            self._create(
                self._sdk.projects.create,
                title=title,
                description=DESCRIPTION,
                label_config=LABEL_CONFIG,
                show_skip_button=True,
                enable_empty_annotation=True,
            )
            found = self._client.find_projects(title)
            log.info("review=project made=true id=%s", found[0]["id"])
        project_id = int(found[0]["id"])
        if found[0].get("label_config", "").strip() != LABEL_CONFIG.strip():
            self._client.request(
                "PATCH", f"/api/projects/{project_id}/", body={"label_config": LABEL_CONFIG}
            )
            log.info("review=project config_updated=true id=%d", project_id)
        return project_id

    def ensure_storage(self, project_id: int, store: StoreSettings) -> None:
        """Let the project read the store. `presign=False`: Label Studio itself hands out the
        bytes, so that browsers need not reach the bucket and the viewer has the editor's origin.
        """
        wanted = _make_storage_fields(store)
        held = self._client.request("GET", "/api/storages/s3/", params={"project": project_id})
        existing = [row for row in held if row.get("title") == STORAGE_TITLE]
        if existing and all(existing[0].get(name) == value for name, value in wanted.items()):
            return
        secrets = _make_storage_secrets(store)
        if existing:
            body = {**wanted, **secrets, "project": project_id}
            self._client.request("PATCH", f"/api/storages/s3/{existing[0]['id']}", body=body)
        else:
            fields = {**wanted, **secrets}
            fields["s3endpoint"] = fields.pop("s3_endpoint")  # the SDK's own spelling
            self._create(self._sdk.import_storage.s3.create, project=project_id, **fields)
        log.info("review=storage project=%d updated=%s", project_id, bool(existing))

    def ensure_webhook(self, project_id: int, url: str, token: SecretStr | None) -> None:
        """Have answers announced to `url`; a hint only, the truth is asked for."""
        held = self._client.request("GET", "/api/webhooks/", params={"project": project_id})
        headers = {WEBHOOK_HEADER: token.get_secret_value()} if token else {}
        for row in held:
            if row.get("url") == url and row.get("headers", {}) == headers:
                return
        # Ours at an older address or with an older token would knock in vain for ever.
        stale = [row for row in held if WEBHOOK_HEADER in row.get("headers", {})]
        for row in stale:
            self._client.request("DELETE", f"/api/webhooks/{row['id']}/")
        self._create(
            self._sdk.webhooks.create,
            project=project_id,
            url=url,
            actions=WEBHOOK_ACTIONS,
            send_for_all_actions=False,
            send_payload=False,
            headers=headers,
        )
        log.info("review=webhook project=%d replaced=%d", project_id, len(stale))


def _make_storage_fields(store: StoreSettings) -> dict[str, Any]:
    parts = urlsplit(store.root_url)
    return {
        "title": STORAGE_TITLE,
        "bucket": parts.netloc,
        "prefix": f"{parts.path.strip('/')}/{REVIEW_FOLDER}".lstrip("/"),
        "use_blob_urls": True,
        "presign": False,
        "region_name": store.s3_region,
        "s3_endpoint": store.s3_endpoint_url,
    }


def _make_storage_secrets(store: StoreSettings) -> Mapping[str, str | None]:
    secret = store.s3_secret_key
    return {
        "aws_access_key_id": store.s3_access_key,
        "aws_secret_access_key": secret.get_secret_value() if secret else None,
    }
