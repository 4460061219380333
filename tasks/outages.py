"""Wait for a service that does not answer: with growing pauses, up to a limit, then a clear error.

An outage is no asset's fault and nothing is counted. What waiting cannot mend (a wrong password, a
bucket that is not there) is raised at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy.exc

from segvigen_model.errors import CheckpointMismatch, MissingExtra, NotReady
from tasks.errors import is_transient_error

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 0.5, 15.0, 2.0
JITTER = 0.5  # a fleet that waits for one server must not ask it all at once
# What PostgreSQL and SQLite say of mistakes in the settings; there are no codes before a login.
MISTAKES = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "unable to open database file",
    "file is not a database",
)
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")

T = TypeVar("T")


class ServiceOutage(NotReady, ConnectionError):
    """A service did not answer for as long as a flow waits."""


def wait_for(what: str, action: Callable[[], T], wait_s: float) -> T:
    """Call `action` until it meets no outage; returns its result.

    Args:
        what: name of the service, for people.
        action: may be repeated.
        wait_s: at most so long; 0 = one attempt.

    Raises:
        ServiceOutage: every attempt met an outage.
    """
    end, pause_s, num_attempts = time.monotonic() + wait_s, FIRST_PAUSE_S, 0
    while True:
        num_attempts += 1
        try:
            return action()
        except Exception as err:
            if isinstance(err, ServiceOutage) or not is_outage(err):
                raise
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise ServiceOutage(
                    f"{what} did not answer for {wait_s:g} s ({num_attempts} attempts): "
                    f"{_shorten(err)}; nothing was counted against any asset, so start it and run "
                    "this again, or raise SEGVIGEN_WORK_OUTAGE_WAIT_S"
                ) from err
            log.warning("waiting_for=%s left_s=%.0f error=%s", what, left_s, _shorten(err))
            time.sleep(min(pause_s * random.uniform(1 - JITTER, 1), left_s))
            pause_s = min(pause_s * GROWTH, LONGEST_PAUSE_S)


def is_outage(error: BaseException) -> bool:
    """Is it a service that does not answer now, so that waiting may help?"""
    for link in _list_causes(error):
        if isinstance(link, (MissingExtra, CheckpointMismatch, PermissionError)):
            return False
        if type(link).__name__ in NO_CREDENTIALS:
            return False
        if isinstance(link, sqlalchemy.exc.OperationalError):
            return not any(words in str(link.orig) for words in MISTAKES)
        if is_transient_error(link):
            return True
    return False


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _shorten(error: BaseException) -> str:
    """First line of an error; a database's error would show its whole statement."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
