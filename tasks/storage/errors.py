"""What can be wrong with an object of the store, by whose fault it is.

`BlobDamaged` and its kind are faults of the infrastructure: the bytes that came are not those that
were written. They say nothing about an asset (`tasks.errors.is_transient_error`).
"""

from __future__ import annotations

from segvigen_model.errors import SegvigenError


class BlobConflict(SegvigenError):
    """A key already holds other bytes; blobs never change."""


class BlobMissing(SegvigenError):
    """A key that should be there is not."""


class BlobDamaged(SegvigenError):
    """Every try read other bytes than were written: short, changed, or those of another object."""


class BlobLost(BlobDamaged, BlobMissing):
    """An object that was written, as its recorded hash proves, is not there."""


class ChangedSinceListed(SegvigenError):
    """An object of the raw bucket is no longer the one that was listed; the next scan lists it."""


class UnsafePlace(SegvigenError):
    """A local file that must not be opened: a link out of its folder, or no regular file.

    Attributes:
        reason: "outside_root" or "not_a_file".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnsafePlace], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class BucketUnusable(SegvigenError):
    """There is no such bucket, no such server, or nothing to log in with."""
