"""Side files of OBJ and PLY: names are checked here, and nothing but the files given is opened.

An absent file is an error, or left out and counted where the limits allow it. A name that leads
outside the asset's folder is always an error, unless a file of that name was given: exporters
write the path on their own machine.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_source import get_side_file
from segvigen_model.mesh.formats.images import check_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.obj_text import decode_text
from segvigen_model.mesh.formats.side_names import normalize_name

log = logging.getLogger(__name__)

PLY_TEXTURE = re.compile(
    rb"^comment[ \t]+TextureFile[ \t]+([^\r\n]+)", re.MULTILINE | re.IGNORECASE
)


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


def gather_side_files(
    data: bytes, kind: str, side_files: Mapping[str, bytes], limits: MeshLimits
) -> dict[str, bytes]:
    """Check every texture that a PLY names and give those that its parser may open.

    Raises:
        AssetRejected: external_reference, missing_side_file, bad_texture or texture_too_large.
    """
    files = SideFiles(side_files, limits)
    names = PLY_TEXTURE.findall(data[:65536]) if kind == "ply" else []
    found: dict[str, bytes] = {}
    images = []
    for name in dict.fromkeys(decode_text(raw).strip() for raw in names):
        content = files.find(name)
        if content is not None:
            found[normalize_name(name)] = content
            images.append(open_image(content, name))
    check_pixels(images, limits.max_texture_pixels)
    return found
