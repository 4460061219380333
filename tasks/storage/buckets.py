"""Are the buckets of the settings there? Asked before a stack or a flow begins."""

from __future__ import annotations

from tasks.settings import StoreSettings
from tasks.storage.store import Store


def check_buckets(settings: StoreSettings) -> None:
    """Raise BucketUnusable if one of the settings' buckets is not there."""
    for is_raw in (False, True):
        Store.from_settings(settings, raw=is_raw).check_bucket()
