"""The refine service as the project's ML backend, so that clicks get an answer at once.

A service that cannot be reached now costs the previews and nothing else: the desk opens all the
same, and the next opening tries again.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from tasks.review.client import LabelStudioClient, LabelStudioError, LabelStudioUnavailable
from tasks.settings import ReviewSettings

log = logging.getLogger(__name__)

BACKEND_TITLE = "segvigen live"


def setup_live(client: LabelStudioClient, project_id: int, review: ReviewSettings) -> bool:
    """Make the refine service the project's one interactive backend; False if it cannot be now.

    Args:
        client: the pipeline's access.
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
    held = client.request("GET", "/api/ml/", params={"project": project_id})
    existing = [row for row in held if row.get("title") == BACKEND_TITLE]
    is_right = bool(existing) and all(
        existing[0].get(name) == value for name, value in wanted.items()
    )
    if not is_right or existing[0].get("state") != "CO":
        body = {
            **wanted,
            "project": project_id,
            "basic_auth_pass": review.live_password.get_secret_value(),
        }
        if not _put_backend(client, existing, body):
            return False
    _drop_own_webhook(client, project_id, f"{url}/webhook")
    return True


def _hash_backend_settings(review: ReviewSettings) -> str:
    """Tells another password, which Label Studio never shows."""
    secret = review.live_password.get_secret_value() if review.live_password else ""
    return hashlib.sha256(f"{BACKEND_TITLE}:{secret}".encode()).hexdigest()[:6]


def _put_backend(
    client: LabelStudioClient, existing: list[dict[str, Any]], body: dict[str, Any]
) -> bool:
    """Create or change the backend. Label Studio asks the service itself before it agrees."""
    try:
        if existing:
            client.request("PATCH", f"/api/ml/{existing[0]['id']}/", body=body)
        else:
            client.request("POST", "/api/ml/", body=body)
    except LabelStudioUnavailable:
        raise
    except LabelStudioError as err:
        secret = body["basic_auth_pass"]
        log.warning("review=live ready=false error=%s", str(err).replace(secret, "***"))
        return False
    log.info(
        "review=live project=%s url=%s updated=%s", body["project"], body["url"], bool(existing)
    )
    return True


def _drop_own_webhook(client: LabelStudioClient, project_id: int, url: str) -> None:
    """Label Studio adds one for every action and without a token: the service would refuse it."""
    for row in client.request("GET", "/api/webhooks/", params={"project": project_id}):
        if row.get("url") == url and not row.get("headers"):
            client.request("DELETE", f"/api/webhooks/{row['id']}/")
