"""The refine service as the project's ML backend, so that clicks get an answer at once.

A service that cannot be reached now costs the previews and nothing else: the project opens all the
same, and the next opening tries again.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from tasks.review.client import LabelStudioError, LabelStudioUnavailable
from tasks.review.sdk import SetupApi
from tasks.settings import ReviewSettings

if TYPE_CHECKING:
    from label_studio_sdk.types import MlBackend

log = logging.getLogger(__name__)

BACKEND_TITLE = "segvigen live"


def setup_live(api: SetupApi, project_id: int, review: ReviewSettings) -> bool:
    """Make the refine service the project's one interactive backend; False if it cannot be now.

    Args:
        api: the pipeline's access.
        project_id: of the project.
        review: address and login of the service; both must be set.
    """
    assert review.live_url is not None and review.live_password is not None
    url = review.live_url.rstrip("/")
    wanted = {
        "url": url,
        "title": BACKEND_TITLE,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": review.live_user,
        "description": f"set up {_hash_backend_settings(review)}",
    }
    held = api.read(api.sdk.ml.list, project=project_id)
    existing = next((row for row in held if row.title == BACKEND_TITLE), None)
    is_right = existing is not None and existing.state == "CO"
    if not is_right or any(getattr(existing, name) != value for name, value in wanted.items()):
        secret = review.live_password.get_secret_value()
        fields = {**wanted, "project": project_id, "basic_auth_pass": secret}
        if not _put_backend(api, existing, fields):
            return False
    _drop_own_webhook(api, project_id, f"{url}/webhook")
    return True


def _hash_backend_settings(review: ReviewSettings) -> str:
    """Tells another password, which Label Studio never shows."""
    secret = review.live_password.get_secret_value() if review.live_password else ""
    return hashlib.sha256(f"{BACKEND_TITLE}:{secret}".encode()).hexdigest()[:6]


def _put_backend(api: SetupApi, existing: MlBackend | None, fields: dict[str, Any]) -> bool:
    """Create or change the backend. Label Studio calls the service itself before it agrees."""
    try:
        if existing is None:
            api.write(api.sdk.ml.create, **fields)
        else:
            api.write(api.sdk.ml.update, existing.id, **fields)
    except LabelStudioUnavailable:
        raise
    except LabelStudioError as err:
        secret = fields["basic_auth_pass"]
        log.warning("review=live ready=false error=%s", str(err).replace(secret, "***"))
        return False
    changed = (fields["project"], fields["url"], existing is not None)
    log.info("review=live project=%s url=%s updated=%s", *changed)
    return True


def _drop_own_webhook(api: SetupApi, project_id: int, url: str) -> None:
    """Label Studio adds one for every action and without a token: the service would refuse it."""
    for row in api.read(api.sdk.webhooks.list, project=str(project_id)):
        if row.url == url and not row.headers:
            api.write(api.sdk.webhooks.delete, row.id)
