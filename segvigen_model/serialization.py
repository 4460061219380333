"""Encodings and proposals as bytes, without pickles and byte-stable.

An encoding is one safetensors blob with metadata in its header: it holds no code and maps without
copying. A proposal is an npz with fixed time stamps and its provenance as JSON. Equal values give
equal bytes, so that a create-only store recognises them. Anything else raises `CorruptBlob`.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.errors import SegvigenError
from segvigen_model.types import Encoding, Frame, Proposal

ENCODING_FORMAT = "segvigen-encoding/1"
PROPOSAL_FORMAT = "segvigen-proposal/1"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date that zip knows
_ARRAYS = ("coords", "latent_coords", "shape_slat", "tex_slat", "base_color", "frame_center")


class CorruptBlob(SegvigenError):
    """Stored bytes are not what their key promises."""


def encoding_to_bytes(encoding: Encoding) -> bytes:
    """Pack an encoding; the same encoding always gives the same bytes."""
    arrays = {
        "coords": encoding.coords.astype(np.int32),
        "latent_coords": encoding.latent_coords.astype(np.int32),
        "shape_slat": encoding.shape_slat.astype(np.float32),
        "tex_slat": encoding.tex_slat.astype(np.float32),
        "base_color": encoding.base_color.astype(np.uint8),
        "frame_center": np.asarray(encoding.frame.center, np.float64),
    }
    if encoding.condition is not None:
        arrays["condition"] = encoding.condition.astype(np.float32)
    meta = {
        "grid": encoding.grid,
        "factor": encoding.factor,
        "frame_scale": float(encoding.frame.scale),
        "checkpoint": encoding.checkpoint,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # One entry only: the order of several would not be fixed between runs.
    header = {"segvigen": json.dumps({"format": ENCODING_FORMAT, **meta}, sort_keys=True)}
    return bytes(save_tensors(contiguous, metadata=header))


def encoding_from_bytes(data: bytes) -> Encoding:
    """Unpack an encoding.

    Raises:
        CorruptBlob: the bytes are no encoding of this format.
    """
    try:
        arrays, meta = load_tensors(data), _metadata(data)
        if meta.get("format") != ENCODING_FORMAT:
            raise CorruptBlob(
                f"format is {meta.get('format')!r}, not {ENCODING_FORMAT!r}; encode again"
            )
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise CorruptBlob(f"encoding lacks {missing}; encode again")
        return Encoding(
            grid=int(meta["grid"]),
            factor=int(meta["factor"]),
            coords=arrays["coords"],
            latent_coords=arrays["latent_coords"],
            shape_slat=arrays["shape_slat"],
            tex_slat=arrays["tex_slat"],
            base_color=arrays["base_color"],
            frame=Frame(center=arrays["frame_center"], scale=float(meta["frame_scale"])),
            checkpoint=str(meta["checkpoint"]),
            condition=arrays.get("condition"),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as err:
        raise CorruptBlob(f"not an encoding ({len(data)} bytes): {err}; encode again") from err


def proposal_to_bytes(proposal: Proposal) -> bytes:
    """Pack a proposal; the same proposal always gives the same bytes."""
    provenance = json.dumps(dict(proposal.provenance), sort_keys=True, allow_nan=False)
    arrays = {
        "format": np.array(PROPOSAL_FORMAT),
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
            if str(stored["format"]) != PROPOSAL_FORMAT:
                raise CorruptBlob(
                    f"format is {stored['format']}, not {PROPOSAL_FORMAT!r}; propose again"
                )
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


def _metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata entry of a safetensors header (the numpy loader drops it)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = header.get("__metadata__", {}).get("segvigen", "{}")
    meta = json.loads(entry)
    if not isinstance(meta, dict):
        raise CorruptBlob("encoding metadata is no object; encode again")
    return meta
