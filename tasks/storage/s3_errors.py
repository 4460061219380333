"""What an S3 server answered, behind the Python error that s3fs made of it.

s3fs raises OSErrors that do not distinguish ended credentials or a busy server from a bad object:
most have no errno, or one of its own choice. The server's answer hangs on them as cause or as
context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_CODES = frozenset(
    [
        "400",  # no body: the answer to a HEAD with ended credentials, or for another region
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidToken",
        "NoSuchBucket",
        "PermanentRedirect",
        "RequestTimeout",
        "TokenRefreshRequired",
    ]
)
_STATUSES = frozenset([401, 403, 429])
_LOST_RACES = frozenset(["PreconditionFailed", "ConditionalRequestConflict", "412"])


def find_s3_response(error: BaseException) -> tuple[str, int] | None:
    """Code and HTTP status of the answer behind an error; None if there is none."""
    link: BaseException | None = error
    while link is not None:
        response = getattr(link, "response", None)
        if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response["Error"].get("Code", "")), int(status)
        link = link.__cause__ or link.__context__
    return None


def is_s3_outage(error: BaseException) -> bool:
    """Did the server refuse the client or every request, and not this one request?"""
    code, status = find_s3_response(error) or ("", 0)
    return code in _CODES or status in _STATUSES or status >= 500


def is_lost_race(error: BaseException) -> bool:
    """Did a create-only write fail because another writer was faster?

    s3fs raises FileExistsError only where the server names the condition; MinIO and Ceph may not.
    """
    code, _ = find_s3_response(error) or ("", 0)
    return isinstance(error, FileExistsError) or code in _LOST_RACES


@contextmanager
def raise_on_lost_race(path: str) -> Iterator[None]:
    """Raise FileExistsError for every way in which a server refuses to write a key twice."""
    try:
        yield
    except OSError as err:
        if is_lost_race(err):
            raise FileExistsError(path) from err
        raise
