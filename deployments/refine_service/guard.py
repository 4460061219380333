"""Checks of login, token and body, before anything else reads a request."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import math
from typing import Any, NoReturn

from fastapi import Request

from segvigen_model.errors import SegvigenError
from tasks.review.fence import Unreadable, check_json
from tasks.settings import ReviewSettings

TOKEN_HEADERS = ("x-segvigen-token", "x-segvi-token")
MAX_BODY_BYTES = 16 * 2**20


class BadRequest(SegvigenError):
    """A request that is refused.

    Args:
        status: of the response.
        message: what was wrong, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_token(request: Request, review: ReviewSettings) -> None:
    """Refuse a request without the webhook token."""
    wanted = review.webhook_token
    given = next((request.headers[name] for name in TOKEN_HEADERS if name in request.headers), "")
    if wanted is None or not _equals_secret(given, wanted.get_secret_value()):
        raise BadRequest(401, "wrong or missing token; send SEGVIGEN_REVIEW_WEBHOOK_TOKEN")


def check_login(request: Request, review: ReviewSettings) -> None:
    """Refuse a request without the live user and password (HTTP Basic) or the webhook token."""
    if any(name in request.headers for name in TOKEN_HEADERS):
        check_token(request, review)
        return
    if review.live_password is None:
        raise BadRequest(401, "live predictions are off; set SEGVIGEN_REVIEW_LIVE_PASSWORD")
    kind, _, rest = request.headers.get("authorization", "").partition(" ")
    try:
        pair = base64.b64decode(rest, validate=True).decode() if kind.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        pair = ""
    if not _equals_secret(pair, f"{review.live_user}:{review.live_password.get_secret_value()}"):
        raise BadRequest(401, "wrong or missing login; check SEGVIGEN_REVIEW_LIVE_PASSWORD")


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Read the body as a JSON object; reading stops at `max_bytes`."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise BadRequest(413, f"body too large: more than {max_bytes} bytes; send less")
    try:
        body = json.loads(bytes(data), parse_constant=_reject_constant, parse_float=_finite)
    except (ValueError, RecursionError) as err:
        raise BadRequest(400, f"body is no JSON: {str(err)[:80]}; send an object") from err
    if not isinstance(body, dict):
        raise BadRequest(400, f"body is {type(body).__name__}; send an object")
    try:
        check_json(body)
    except Unreadable as err:
        raise BadRequest(400, f"body cannot be used: {err}; send plain JSON") from err
    return body


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _reject_constant(text[:20])


def _equals_secret(given: str, wanted: str) -> bool:
    # Bytes: text with non-ASCII characters would raise.
    return hmac.compare_digest(given.encode(), wanted.encode())
