"""Table of faults of devices."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from tasks.catalogue.mapping import Row, Text64, Text128


class DeviceFaultRow(Row):
    """The last fault of a device at work on an asset.

    Attributes:
        device: its name, the same for all workers that use it.
        at: seconds since the epoch.
        worker: who met it.
        is_cleared: the device has worked well since, or the asset is to blame.
    """

    __tablename__ = "device_faults"

    device: Mapped[Text128] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    error: Mapped[str]
    worker: Mapped[str]
    at: Mapped[float] = mapped_column(default=0.0)
    is_cleared: Mapped[bool] = mapped_column(default=False)
