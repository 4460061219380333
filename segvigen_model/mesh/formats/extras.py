"""Decoders that are installed on demand; an absent one is named with the command that brings it."""

from __future__ import annotations

import importlib
from typing import Any

from segvigen_model.errors import MissingExtra

FORMATS_HINT = "pip install 'segvigen-pipeline[formats]'"


def import_extra(module: str, package: str, hint: str = FORMATS_HINT) -> Any:
    """Import an optional decoder.

    Args:
        module: what is imported.
        package: its name in the registry, for the message.
        hint: the command that installs it.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingExtra(package, hint) from err
