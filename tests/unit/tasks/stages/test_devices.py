"""A fault of the GPU is the GPU's: nothing is counted, and a second device decides on the asset.

There is no GPU here: the classes that torch raises are raised by hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.catalogue.devices import DEVICE_ERROR
from tasks.errors import SickDevice, is_device_error, is_transient_error
from tasks.settings import load_settings
from tasks.stages import devices as devices_module
from tasks.stages.devices import check_device, get_device_name
from tasks.stages.runner import StageResult, run_stage_safely
from tasks.storage.store import Store
from tasks.workspace import Workspace

FAULTS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("No CUDA GPUs are available"),
]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_faults_of_devices_are_known(error: Exception) -> None:
    assert is_device_error(error) and not is_transient_error(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("CUDA error"), MemoryError()]
)
def test_faults_of_assets_are_none_of_devices(error: Exception) -> None:
    assert not is_device_error(error)


class Fleet:
    """Workers of one catalogue, each on a device of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.catalogue = Catalogue(f"sqlite:///{folder}/c.db")
        self.ids = [f"{number:064x}" for number in range(3)]
        for asset_id in self.ids:
            self.catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, source_key="k"))
        store = Store(f"file://{folder}")
        on_gpu = {"work": {"sick_pause_s": 0.0}, "model": {"device": "cuda"}}
        self.workspace = Workspace(store, store, self.catalogue, load_settings(overrides=on_gpu))
        patch.setattr(devices_module, "get_device_name", lambda workspace: workspace.worker)

    def work(self, device: str, asset_id: str, error: Exception | None) -> AssetRow:
        """Run the stage once on a leased asset; a fault ends the worker, as its leases show."""
        workspace = replace(self.workspace, worker=device)

        def act() -> StageResult:
            if error is not None:
                raise error
            moved = self.catalogue.move(asset_id, "encoded", worker=device)
            return StageResult(asset_id, "encode", moved.state, True)

        if error is None or not is_device_error(error):
            run_stage_safely(workspace, "encode", asset_id, act)
        else:
            with pytest.raises(SickDevice, match="this process ends"):
                run_stage_safely(workspace, "encode", asset_id, act)
        return self.catalogue.get_asset(asset_id)

    def claim(self, device: str, limit: int = 9) -> list[str]:
        where = self.catalogue.devices.is_without_fault(device)
        rows = self.catalogue.claim(["registered"], limit, device, where=where)
        return [row.asset_id for row in rows]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(tmp_path, monkeypatch)


def test_one_bad_card_parks_nothing(fleet: Fleet) -> None:
    """At a4d9af9 it parked its whole queue."""
    for _ in fleet.ids:
        held = fleet.claim("bad", 1)
        row = fleet.work("bad", held[0], FAULTS[1])
        assert (row.state, row.attempts, row.lease_owner) == (AssetState.REGISTERED, 0, None)
        fleet.catalogue.release(held, "bad")
    assert fleet.claim("bad") == [], "what it failed on is another device's to try"
    assert {row.device for row in fleet.catalogue.devices.list_sick()} == {"bad"}
    for _ in fleet.ids:
        (asset_id,) = fleet.claim("good")
        assert fleet.work("good", asset_id, None).state is AssetState.ENCODED
    assert fleet.catalogue.devices.get_fault("good") is None


def test_an_asset_is_to_blame_if_it_fails_alone_on_a_second_device(fleet: Fleet) -> None:
    guilty = fleet.ids[0]
    fleet.claim("one")
    assert fleet.work("one", guilty, FAULTS[0]).is_suspect
    fleet.catalogue.release(fleet.ids, "one")
    fleet.catalogue.update(guilty, priority=9.0)
    assert fleet.claim("two") == [guilty], "alone"
    parked = fleet.work("two", guilty, FAULTS[0])
    assert (parked.state, parked.reason, parked.attempts) == (AssetState.FAILED, DEVICE_ERROR, 0)
    assert "alone on one, two" in str(parked.detail)
    assert fleet.catalogue.devices.list_sick() == [], "the asset is, not its devices"


def test_one_device_alone_decides_after_it_has_worked_well_since(fleet: Fleet) -> None:
    guilty, other, _ = fleet.ids
    fleet.catalogue.claim(["registered"], 1, "one")
    fleet.work("one", guilty, FAULTS[0])
    assert fleet.claim("one", 1) == [other]
    fleet.work("one", other, None)
    assert fleet.catalogue.devices.get_fault("one") is None, "it has worked well since"
    fleet.catalogue.update(guilty, priority=9.0)
    assert fleet.claim("one") == [guilty]
    assert fleet.work("one", guilty, FAULTS[0]).reason == DEVICE_ERROR


def test_a_fault_of_the_asset_is_still_counted(fleet: Fleet) -> None:
    (asset_id,) = fleet.claim("one", 1)
    assert fleet.work("one", asset_id, ValueError("negative volume")).attempts == 1
    assert fleet.catalogue.devices.list_sick() == []


def test_a_sick_device_is_left_alone_for_a_while(fleet: Fleet) -> None:
    workspace = replace(fleet.workspace, worker="one")
    assert check_device(workspace, "encode")
    (asset_id,) = fleet.claim("one", 1)
    fleet.work("one", asset_id, FAULTS[2])
    assert not check_device(workspace, "encode"), "on probation after its pause"
    assert check_device(workspace, "push_review"), "which does not use it"
    settings = load_settings(overrides={"work": {"sick_pause_s": 600}})
    with pytest.raises(SickDevice, match="segvigen devices --clear"):
        check_device(replace(workspace, settings=settings), "encode")


def test_a_cpu_is_named_by_its_machine(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    workspace = Workspace(store, store, Catalogue(f"sqlite:///{tmp_path}/c.db"), load_settings())
    assert get_device_name(workspace).endswith("/cpu")
