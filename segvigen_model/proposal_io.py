"""Proposals as bytes: an npz without pickles, provenance as a JSON string.

Written with fixed time stamps, so that the same proposal always gives the same bytes and a
create-only store can recognise it. Anything else is refused with CorruptBlob.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib

import numpy as np

from segvigen_model.encoding_io import CorruptBlob
from segvigen_model.types import Proposal

FORMAT = "segvigen-proposal/1"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date that zip knows


def proposal_to_bytes(proposal: Proposal) -> bytes:
    """Pack a proposal; the same proposal always gives the same bytes."""
    provenance = json.dumps(dict(proposal.provenance), sort_keys=True, allow_nan=False)
    arrays = {
        "format": np.array(FORMAT),
        "face_labels": proposal.face_labels.astype(np.int32),
        "voxel_labels": proposal.voxel_labels.astype(np.int32),
        "part_confidence": proposal.part_confidence.astype(np.float32),
        "confidence": np.array(proposal.confidence, np.float64),
        "provenance": np.array(provenance),
    }
    if proposal.finer is not None:
        arrays["finer"] = proposal.finer.astype(np.int32)
    if proposal.groups is not None:
        arrays["groups"] = proposal.groups.astype(np.int32)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def proposal_from_bytes(data: bytes) -> Proposal:
    """Unpack a proposal.

    Raises:
        CorruptBlob: the bytes are no proposal of this format.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            if str(stored["format"]) != FORMAT:
                raise CorruptBlob(f"format is {stored['format']}, not {FORMAT!r}; propose again")
            return Proposal(
                face_labels=stored["face_labels"],
                voxel_labels=stored["voxel_labels"],
                part_confidence=stored["part_confidence"],
                confidence=float(stored["confidence"]),
                provenance=json.loads(str(stored["provenance"])),
                finer=stored.get("finer"),
                groups=stored.get("groups"),
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as err:
        raise CorruptBlob(f"not a proposal ({len(data)} bytes): {err}; propose again") from err
