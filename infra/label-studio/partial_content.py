"""Label Studio's settings for the local stack, with a middleware that corrects partial content.

The local S3 server (`rclone serve s3`) answers a range request with status 200 where HTTP requires
206, and Label Studio passes that on. The editor loads the 3D viewer twice and aborts the first
load; a browser then requests one byte to find out whether it can resume, and shows that byte as the
page. Runs in Label Studio's own environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The second import reads settings that the first one defines.
from label_studio.core.settings.base import *  # noqa: F403
from label_studio.core.settings.label_studio import *  # noqa: F403
from label_studio.core.settings.label_studio import MIDDLEWARE as _THEIRS

MIDDLEWARE = ["partial_content.make_partial_content_middleware", *_THEIRS]


def make_partial_content_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make Django middleware: status 206 for every 200 that holds a range of bytes."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        if response.status_code == 200 and response.has_header("Content-Range"):
            response.status_code = 206
        return response

    return respond
