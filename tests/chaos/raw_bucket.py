"""Fills the raw bucket while the run goes on, so that there is always something to ingest."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import BotoCoreError

from segvigen_model.errors import SegvigenError
from tasks.settings import StoreSettings
from tasks.storage.store import Store
from tests.chaos.inputs import Input

LEAD = 0.25  # of the inputs come at once, the rest by three quarters of the kills
OUTAGES = (OSError, BotoCoreError, SegvigenError)


class RawBucket:
    """The bucket that the inputs come into, in the order of their keys.

    Args:
        env: settings variables.
        inputs: what to upload.
    """

    def __init__(self, env: Mapping[str, str], inputs: list[Input]) -> None:
        prefix = "SEGVIGEN_STORE_"
        fields = {
            name.removeprefix(prefix).lower(): text
            for name, text in env.items()
            if name.startswith(prefix) and "_RAW_S3_" not in name  # those keys only read
        }
        self._store = Store.from_settings(StoreSettings(**fields), raw=True)
        self._inputs, self._number = inputs, 0

    @property
    def is_full(self) -> bool:
        """Is everything there?"""
        return self._number == len(self._inputs)

    def upload(self, count: int) -> None:
        """Upload until `count` inputs are there."""
        while self._number < min(count, len(self._inputs)):
            item = self._inputs[self._number]
            self._store.put(item.key, item.data)
            self._number += 1

    def upload_share(self, share_of_kills: float) -> None:
        """Upload what should be there by now; an outage leaves it to the next call."""
        share = LEAD + (1 - LEAD) * min(1.0, share_of_kills / 0.75)
        try:
            self.upload(int(share * len(self._inputs) + 0.5))
        except OUTAGES:
            return
