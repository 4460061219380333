"""The device that a stage computes on: its name, and what to do when it is sick.

A fault of the device (no memory, a failed assertion in a kernel, ECC) is not the asset's: the
lease goes back uncounted, the device is marked, and the process ends, because a CUDA context does
not survive most of them.
"""

from __future__ import annotations

import logging
import socket

from tasks.errors import SickDevice
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

MODEL_STAGES = frozenset({"encode", "propose", "refine"})  # those that compute on the device


def get_device_name(workspace: Workspace) -> str:
    """Name of the settings' device: a GPU's own UUID, else machine and device."""
    device = workspace.settings.model.device
    if device.startswith("cuda"):
        import torch

        try:
            return f"{device.partition(':')[0]}-{torch.cuda.get_device_properties(device).uuid}"
        except (RuntimeError, AssertionError, AttributeError) as err:  # no driver, no such card
            log.warning("device=%s has no UUID: %s", device, err)
    return f"{socket.gethostname()}/{device}"[:128]


def check_device(workspace: Workspace, stage: str) -> bool:
    """Check whether this stage's device may be used.

    Returns:
        True if it is well, False if it is on probation: its last fault is a while ago.

    Raises:
        SickDevice: its last fault is younger than SEGVIGEN_WORK_SICK_PAUSE_S.
    """
    if stage not in MODEL_STAGES:
        return True
    devices, device = workspace.catalogue.devices, get_device_name(workspace)
    fault = devices.get_fault(device)
    if fault is None:
        return True
    if devices.get_age_s(fault) < workspace.settings.work.sick_pause_s:
        raise SickDevice(
            f"device {device} is sick ({fault.error[:200]}); it is used again after "
            "SEGVIGEN_WORK_SICK_PAUSE_S, or after `segvigen devices --clear`"
        )
    return False


def record_device_fault(workspace: Workspace, asset_id: str, error: Exception) -> SickDevice:
    """Write down a fault of the device; returns what to raise."""
    device, worker = get_device_name(workspace), workspace.lease_owner
    text = f"{type(error).__name__}: {error}"
    asset = workspace.catalogue.devices.record_fault(device, asset_id, text, worker)
    log.error("device=%s asset=%s state=%s error=%s", device, asset_id[:12], asset.state, text)
    return SickDevice(
        f"device {device} failed on asset {asset_id[:12]}: {text[:500]}; its leases are given "
        f"back, nothing is counted (the asset is {asset.state}); this process ends"
    )


def note_success(workspace: Workspace, stage: str) -> None:
    """A model stage has succeeded: its device is well."""
    if stage in MODEL_STAGES and workspace.catalogue.devices.clear(get_device_name(workspace)):
        log.info("device=%s well=true", get_device_name(workspace))
