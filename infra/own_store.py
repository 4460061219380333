"""Which S3 server the pipeline uses: that of the local stack, or one that the settings name.

The settings have one endpoint and one pair of keys for both URLs. A bucket in the settings is on
another server unless it has the name of a local one; the local server's settings are then not used.
One bucket on each server cannot work and is refused.
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
    """Return whether the settings name an S3 server other than the local one.

    Args:
        own: SEGVIGEN_ variables of the environment and the settings file.
        local_url: of the local S3 server; "" where there is none.

    Raises:
        StackError: one URL is on that server, the other on the local one.
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


def describe_key_source(own: Mapping[str, str]) -> str:
    """Return what Label Studio lacks to show the sheets of that bucket; "" if nothing."""
    if own.get(ACCESS_KEY):
        return ""
    return (
        f"no {ACCESS_KEY}: Label Studio has no keys of its own and cannot show what is in "
        f"{own.get(ROOT_URL)}; set it and SEGVIGEN_STORE_S3_SECRET_KEY before reviewing"
    )


def _is_here(url: str, has_endpoint: bool) -> bool:
    """Return whether a URL is on the local server; an empty one is, by default."""
    parts = urlsplit(url)
    is_local = parts.scheme == "s3" and parts.netloc in (RAW_BUCKET, STORE_BUCKET)
    return not url or (is_local and not has_endpoint)
