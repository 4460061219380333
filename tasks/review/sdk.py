"""Label Studio's SDK for the set-up of a project, with this pipeline's errors and repeats.

Only the set-up uses it. The calls of every round are plain requests (client.py): they need the
annotations as the server sent them, and the SDK guesses one of three models for a task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from segvigen_model.errors import MissingExtra
from tasks.review.client import (
    MAX_BODY_CHARS,
    TIMEOUT_S,
    LabelStudioError,
    LabelStudioUnavailable,
    is_temporary_status,
)

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

T = TypeVar("T")
ONCE: Any = {"max_retries": 0}  # a repeated POST would make a second one


class SetupApi:
    """One user's access to one Label Studio by way of the SDK.

    Args:
        url: base URL, with or without a sub-path.
        api_key: legacy token or personal access token; never shown.

    Raises:
        MissingExtra: the SDK is not installed.
        LabelStudioError: the token has expired.
    """

    def __init__(self, url: str, api_key: str) -> None:
        try:
            from label_studio_sdk import LabelStudio
        except ImportError as err:
            raise MissingExtra("label-studio-sdk", "pip install -e '.[review]'") from err
        self.url = url.rstrip("/")
        # A proxy for outside hosts must not see this server.
        http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self.sdk: LabelStudio = self.read(
            LabelStudio, base_url=f"{self.url}/", api_key=api_key, httpx_client=http
        )

    def read(self, call: Callable[..., T], *args: Any, **fields: Any) -> T:
        """Call one of the SDK's reading functions; the SDK repeats it on transient errors.

        Raises:
            LabelStudioUnavailable: no response, or one that means "not now" (429, 5xx).
            LabelStudioError: any other refusal.
        """
        from label_studio_sdk.core.api_error import ApiError

        try:
            return call(*args, **fields)
        except httpx.TransportError as err:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} does not answer: {err!r}"
            ) from err
        except ValueError as err:  # a proxy's page where the SDK expects JSON
            raise LabelStudioUnavailable(f"{self.url} sent no JSON: {err}") from err
        except ApiError as err:  # its own text would show every header
            status, body = err.status_code or 500, str(err.body)[:MAX_BODY_CHARS]
            kind = LabelStudioUnavailable if is_temporary_status(status) else LabelStudioError
            hint = "; check SEGVIGEN_REVIEW_API_KEY" if status == 401 else ""
            raise kind(f"{self.url} refused the set-up: status {status}: {body}{hint}") from None

    def write(self, call: Callable[..., T], *args: Any, **fields: Any) -> T:
        """Call one of the SDK's writing functions, once; raises as `read`."""
        return self.read(call, *args, **fields, request_options=ONCE)
