"""Whose S3 server the pipeline uses: the local stack's, or one of the caller's own.

The settings have one endpoint and one pair of keys for both URLs. A bucket that the caller names is
on a server of theirs unless it is one of the local stack's; then nothing of the local server is put
over it. One bucket there and one here cannot work: that is refused, and told.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from infra.processes import StackError
from infra.services import RAW_BUCKET, STORE_BUCKET

ROOT_URL, RAW_URL = "SEGVIGEN_STORE_ROOT_URL", "SEGVIGEN_STORE_RAW_URL"
ENDPOINT_URL = "SEGVIGEN_STORE_S3_ENDPOINT_URL"
ACCESS_KEY = "SEGVIGEN_STORE_S3_ACCESS_KEY"


def is_own_store(own: Mapping[str, str], local_url: str) -> bool:
    """Do the caller's variables name an S3 server of their own?

    Args:
        own: SEGVIGEN_ variables and settings file of the caller.
        local_url: of the local S3 server, "" if there never was one.

    Raises:
        StackError: one URL is on the caller's server, the other on the local one.
    """
    endpoint = own.get(ENDPOINT_URL, "")
    has_endpoint = endpoint not in ("", local_url)
    here = [name for name in (ROOT_URL, RAW_URL) if _is_here(own.get(name, ""), has_endpoint)]
    urls = {name: own.get(name, "") for name in (ROOT_URL, RAW_URL) if name not in here}
    there = [f"{name}={url}" for name, url in urls.items() if url.startswith("s3://")]
    if has_endpoint and here:
        there = there or [f"{ENDPOINT_URL}={endpoint}"]
    if there and here:
        raise StackError(
            f"{there[0]} is an S3 server of your own, but {here[0]} is "
            f"{own.get(here[0]) or 'not set'}, which is the local one; both use one endpoint and "
            f"one pair of keys: set {here[0]} to a bucket on your server too"
            + (", or to a file:// folder" if here[0] == RAW_URL else "")
        )
    return bool(there)


def note_on_keys(own: Mapping[str, str]) -> str:
    """What the local Label Studio lacks to show sheets of the caller's bucket; "" if nothing."""
    if own.get(ACCESS_KEY):
        return ""
    return (
        f"no {ACCESS_KEY}: Label Studio has no keys of its own and cannot show what is in "
        f"{own.get(ROOT_URL)}; set it and SEGVIGEN_STORE_S3_SECRET_KEY before reviewing"
    )


def _is_here(url: str, has_endpoint: bool) -> bool:
    """Would this URL be looked for on the local server? Nothing named: yes, it is its default."""
    parts = urlsplit(url)
    is_ours = parts.scheme == "s3" and parts.netloc in (RAW_BUCKET, STORE_BUCKET)
    return not url or (is_ours and not has_endpoint)
