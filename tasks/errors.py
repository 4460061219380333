"""Errors of the pipeline, and which of them are transient."""

from __future__ import annotations

import errno

import sqlalchemy.exc

from segvigen_model.errors import CheckpointMismatch, NotReady, SegvigenError
from tasks.storage.errors import BlobDamaged, BlobLost, BlobMissing
from tasks.storage.s3_errors import is_s3_outage

__all__ = [
    "BlobDamaged",
    "BlobLost",
    "BlobMissing",
    "SickDevice",
    "StageError",
    "is_device_error",
    "is_transient_error",
]

_TRANSIENT_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS})


class StageError(SegvigenError):
    """A stage cannot do its work on this asset; the message names what is missing."""


class SickDevice(SegvigenError):
    """The device fails, whatever the asset; the process ends with an exit code of its own."""

    exit_code = 4


_DEVICE_ERRORS = frozenset({"OutOfMemoryError", "AcceleratorError"})  # of torch; no import here
_DEVICE_WORDS = (
    "CUDA error",
    "CUDA out of memory",
    "cuDNN error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "NCCL error",
    "device-side assert",
    "uncorrectable ECC",
    "no CUDA-capable device",
    "No CUDA GPUs are available",
)


def is_device_error(error: BaseException) -> bool:
    """Is it the GPU: no memory, an assertion in a kernel, a hardware fault?"""
    kinds = type(error).__mro__
    if any(
        kind.__name__ in _DEVICE_ERRORS and kind.__module__.startswith("torch") for kind in kinds
    ):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE_WORDS)


def is_transient_error(error: BaseException) -> bool:
    """Is it the network, the database, the disk or the set-up, and not the asset?

    So is a blob that reads as other bytes than were written: the run stops, and no asset pays.
    """
    if isinstance(error, BlobDamaged):
        return True
    if isinstance(error, (ConnectionError, TimeoutError, NotReady, CheckpointMismatch)):
        return True
    if isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
        return True
    # A PermissionError of S3 has no errno: the store refuses every request.
    if isinstance(error, PermissionError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    if isinstance(error, (OSError, BlobMissing)) and is_s3_outage(error):
        return True
    module = type(error).__module__.partition(".")[0]
    return module in ("botocore", "aiobotocore", "aiohttp", "httpx", "httpcore")
