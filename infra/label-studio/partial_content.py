"""Label Studio's settings for the local stack, with one step more: a part is called a part.

Our local S3 server (`rclone serve s3`) answers a request for some bytes of a file with 200 where
HTTP wants 206, and Label Studio passes that on. The editor loads the 3D viewer twice and breaks
the first load off; a browser then asks for one byte to see whether it can go on, and shows that
byte as the page. Runs in Label Studio's own environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# The second asks for settings while it is being imported: those of the first must be here by then.
from label_studio.core.settings.base import *  # noqa: F403
from label_studio.core.settings.label_studio import *  # noqa: F403
from label_studio.core.settings.label_studio import MIDDLEWARE as _THEIRS

MIDDLEWARE = ["partial_content.as_partial_content", *_THEIRS]


def as_partial_content(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Django middleware: 206 for every 200 that holds a range of bytes."""

    def answer(request: Any) -> Any:
        response = get_response(request)
        if response.status_code == 200 and response.has_header("Content-Range"):
            response.status_code = 206
        return response

    return answer
