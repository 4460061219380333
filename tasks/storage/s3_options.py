"""How fsspec reaches an S3 server, out of the settings."""

from __future__ import annotations

import logging
from typing import Any

from tasks.settings import StoreSettings
from tasks.storage.errors import BucketUnusable

log = logging.getLogger(__name__)

S3_CONNECT_TIMEOUT_S = 10
S3_READ_TIMEOUT_S = 120


def make_s3_options(settings: StoreSettings) -> dict[str, Any]:
    """Storage options for `Store`: endpoint, keys, time limits."""
    secret = settings.s3_secret_key
    client = {"region_name": settings.s3_region} if settings.s3_region else {}
    config = {
        "connect_timeout": S3_CONNECT_TIMEOUT_S,
        "read_timeout": S3_READ_TIMEOUT_S,
        # rclone answers a ranged read with the whole object's checksum, and older servers know
        # none; our own sha256 are checked where content matters.
        "response_checksum_validation": "when_required",
        "request_checksum_calculation": "when_required",
    }
    return {
        "key": settings.s3_access_key,
        "secret": secret.get_secret_value() if secret else None,
        "endpoint_url": settings.s3_endpoint_url,
        "client_kwargs": client,
        "config_kwargs": config,
    }


def use_raw_keys(settings: StoreSettings) -> StoreSettings:
    """Return settings whose endpoint and keys are those of the raw bucket.

    What the raw bucket does not set is the store's; access key and secret belong together.
    """
    changed: dict[str, Any] = {}
    if settings.raw_s3_endpoint_url:
        changed["s3_endpoint_url"] = settings.raw_s3_endpoint_url
    if settings.raw_s3_access_key:
        changed["s3_access_key"] = settings.raw_s3_access_key
        changed["s3_secret_key"] = settings.raw_s3_secret_key
    return settings.model_copy(update=changed)


def check_s3_bucket(filesystem: Any, bucket: str) -> None:
    """Ask a server whether a bucket is there.

    Args:
        filesystem: of s3fs.
        bucket: its name.

    Raises:
        BucketUnusable: it is absent, or the server does not answer; one line with the hint.
    """
    from botocore.exceptions import BotoCoreError

    where = f"{bucket!r} at {filesystem.endpoint_url or 'AWS'}"
    try:
        filesystem.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        raise BucketUnusable(
            f"no bucket {where}; create it, or say where it is: SEGVIGEN_STORE_ROOT_URL, "
            "SEGVIGEN_STORE_RAW_URL, SEGVIGEN_STORE_S3_ENDPOINT_URL"
        ) from None
    except BotoCoreError as err:
        raise BucketUnusable(
            f"cannot ask for bucket {where}: {err}; check SEGVIGEN_STORE_S3_ENDPOINT_URL, "
            "_REGION, _ACCESS_KEY and _SECRET_KEY"
        ) from err
    except OSError as err:
        log.warning("bucket=%s error=%r", where, err)


def is_encrypted(filesystem: Any, path: str) -> bool:
    """Is an object encrypted with a key of its own, so that its ETag is no MD5?

    Args:
        filesystem: of s3fs.
        path: bucket and key.
    """
    bucket, _, key = path.partition("/")
    head = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    is_kms = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
    return is_kms or "SSECustomerAlgorithm" in head
