"""Ledger of sick devices: a fault of a GPU is the device's until another device has it, too.

A device is sick from a fault until a stage succeeds on it or a person clears it. An asset is to
blame only if it meets a fault alone, after it met one on another device, or on the same one that
has worked well since.
"""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from tasks.catalogue.database import Database
from tasks.catalogue.device_rows import DeviceFaultRow
from tasks.catalogue.moves import FREE, MAX_ERROR_CHARS, AssetMoves, LeaseMemory
from tasks.catalogue.rows import AssetRow
from tasks.catalogue.states import AssetState

DEVICE_ERROR = "device_error"  # reason of an asset that devices fail on


class DeviceLedger:
    """Faults of devices.

    Args:
        database: of the catalogue.
        moves: parks the assets that are to blame.
        memory: of the leases that this process took.
    """

    def __init__(self, database: Database, moves: AssetMoves, memory: LeaseMemory) -> None:
        self._db, self._moves, self._memory = database, moves, memory

    def record_fault(self, device: str, asset_id: str, error: str, worker: str) -> AssetRow:
        """Note a fault; the lease is given back and no attempt counted.

        Returns:
            The asset: claimed alone from now on, or parked as `device_error` if it is to blame.
        """
        text = error[:MAX_ERROR_CHARS]
        with self._db.begin() as connection:
            asset = self._moves.lock(asset_id)
            self._memory.check(asset, worker)
            fault = DeviceFaultRow(device, asset_id, text, worker, self._db.clock())
            others = [
                row
                for row in self._db.load(
                    sa.select(DeviceFaultRow).where(DeviceFaultRow.asset_id == asset_id)
                )
                if row.device != device or row.is_cleared
            ]
            event_detail = {"device": device, "error": text, "alone": asset.is_alone}
            self._db.add_event("device_fault", asset_id, event_detail, worker)
            if asset.is_alone and others:
                self._db.upsert(replace(fault, is_cleared=True))
                mine = sa.update(DeviceFaultRow).where(DeviceFaultRow.asset_id == asset_id)
                connection.execute(mine.values(is_cleared=True))
                where = ", ".join(sorted({row.device for row in others} | {device}))
                detail = f"device errors alone on {where}: {text}"
                return self._moves.move(
                    asset_id, AssetState.FAILED, reason=DEVICE_ERROR, detail=detail, worker=worker
                )
            self._db.upsert(fault)
            self._memory.forget(worker, asset_id)
            free = {**FREE, "lease_token": asset.lease_token + 1, "is_suspect": True}
            return self._moves.change(asset, {**free, "last_error": text})

    def clear(self, device: str) -> bool:
        """Take a device for well again; False, and nothing is written, if it was."""
        if self.get_fault(device) is None:
            return False
        with self._db.begin() as connection:
            faults = sa.update(DeviceFaultRow).where(DeviceFaultRow.device == device)
            connection.execute(faults.values(is_cleared=True))
            self._db.add_event("device_well", None, {"device": device})
        return True

    def get_fault(self, device: str) -> DeviceFaultRow | None:
        """The newest fault of a device that is sick, or None."""
        query = sa.select(DeviceFaultRow).where(
            DeviceFaultRow.device == device, DeviceFaultRow.is_cleared.is_(False)
        )
        return self._db.load_first(query.order_by(DeviceFaultRow.at.desc()))

    def get_age_s(self, fault: DeviceFaultRow) -> float:
        """Seconds since a fault, by the database's clock."""
        return self._db.clock() - fault.at

    def list_sick(self) -> list[DeviceFaultRow]:
        """Open faults of all devices, newest first."""
        query = sa.select(DeviceFaultRow).where(DeviceFaultRow.is_cleared.is_(False))
        return self._db.load(query.order_by(DeviceFaultRow.at.desc()))

    @staticmethod
    def is_without_fault(device: str) -> sa.ColumnElement[bool]:
        """Condition for `Catalogue.claim`: the asset has no open fault on this device."""
        fault = sa.select(DeviceFaultRow.device).where(
            DeviceFaultRow.device == device,
            DeviceFaultRow.asset_id == AssetRow.asset_id,
            DeviceFaultRow.is_cleared.is_(False),
        )
        return ~sa.exists(fault)
