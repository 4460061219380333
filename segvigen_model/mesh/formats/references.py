"""Side files of OBJ and PLY: names are checked here, and nothing but the files given is opened.

An absent file is an error, or left out and counted where the limits allow it. A name that leads
outside the asset's folder is always an error, unless a file of that name was given: exporters
write the path on their own machine.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_source import get_side_file
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import normalize_name

log = logging.getLogger(__name__)


class SideFiles:
    """Files beside a mesh, by the names written in it.

    Args:
        given: name -> bytes.
        limits: whether an absent file refuses the mesh.

    Attributes:
        counts: files that were absent ("side_files_absent") or found under another spelling or in
            another folder ("side_files_found_elsewhere"). A file that is asked for twice counts
            once.
    """

    def __init__(self, given: Mapping[str, bytes], limits: MeshLimits) -> None:
        self._given = {normalize_name(name): data for name, data in given.items()}
        self._is_required = limits.is_side_file_required
        self._asked: set[str] = set()
        self.counts: Counter[str] = Counter()

    def find(self, name: str) -> bytes | None:
        """Give a file's bytes; None for an absent one that may be absent.

        Raises:
            AssetRejected: external_reference or missing_side_file.
        """
        clean = normalize_name(name)
        is_new = clean not in self._asked
        self._asked.add(clean)
        try:
            return get_side_file(clean, self._given)
        except AssetRejected as err:
            other = self._find_elsewhere(clean)
            if other is not None:
                self.counts["side_files_found_elsewhere"] += is_new
                log.warning("side file found elsewhere name=%r at=%r", name[:120], other[:120])
                return self._given[other]
            if err.reason != "missing_side_file" or self._is_required:
                raise
        self.counts["side_files_absent"] += is_new
        log.warning("side file absent, loaded without it name=%r", name[:120])
        return None

    def _find_elsewhere(self, name: str) -> str | None:
        """The one file given that differs in case, or else the one with the same last name."""
        for spell in (str.casefold, _get_last_name):
            alike = [each for each in self._given if spell(each) == spell(name)]
            if len(alike) == 1:
                return alike[0]
        return None


def _get_last_name(name: str) -> str:
    return name.rpartition("/")[2].casefold()
