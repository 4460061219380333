"""Encodings and proposals as bytes, without pickles and byte-stable.

An encoding is one safetensors blob with metadata in its header: it holds no code and maps without
copying. A proposal is an npz with fixed time stamps, its tables and provenance as JSON members.
Equal values give equal bytes, so that a create-only store recognises them. Anything else raises
`CorruptBlob`. Proposals of format 1, whose state stood in the provenance, are read too.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.errors import CorruptBlob
from segvigen_model.types import Encoding, Frame, PartTable, Proposal, RefinementState

ENCODING_FORMAT = "segvigen-encoding/1"
PROPOSAL_FORMAT = "segvigen-proposal/2"
PROPOSAL_FORMAT_1 = "segvigen-proposal/1"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date that zip knows
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(ValueError, KeyError, TypeError, AttributeError),
)
_ARRAYS = ("coords", "latent_coords", "shape_slat", "tex_slat", "base_color", "frame_center")


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
        arrays, meta = load_tensors(data), _read_metadata(data)
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
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(PROPOSAL_FORMAT),
        "face_labels": proposal.face_labels.astype(np.int32),
        "voxel_labels": proposal.voxel_labels.astype(np.int32),
        "part_confidence": proposal.part_confidence.astype(np.float32),
        "confidence": np.array(proposal.confidence, np.float64),
        "parts": _json_member(
            {
                "names": proposal.parts.names,
                "categories": proposal.parts.categories,
                "color_slots": proposal.parts.color_slots,
            }
        ),
        "refinement": _refinement_member(proposal.refinement),
        "checkpoint": np.array(proposal.checkpoint),
        "num_draws": np.array(proposal.num_draws, np.int64),
        "fallbacks": _json_member(proposal.fallbacks),
        "provenance": _json_member(dict(proposal.provenance)),
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
            members = {name: stored[name] for name in stored.files}
        format_ = str(members["format"])
        if format_ not in _STATE_READERS:
            raise CorruptBlob(
                f"format is {format_!r}, not one of {', '.join(_STATE_READERS)}; propose again"
            )
        return Proposal(
            face_labels=members["face_labels"],
            voxel_labels=members["voxel_labels"],
            part_confidence=members["part_confidence"],
            confidence=float(members["confidence"]),
            finer=members.get("finer"),
            groups=members.get("groups"),
            **_STATE_READERS[format_](members),
        )
    except _UNREADABLE as err:
        raise CorruptBlob(f"not a proposal ({len(data)} bytes): {err}; propose again") from err


def _json_member(value: Any) -> NDArray[np.str_]:
    """JSON text as an array that npz holds."""
    return np.array(json.dumps(value, sort_keys=True, allow_nan=False))


def _refinement_member(state: RefinementState) -> NDArray[np.str_]:
    return _json_member(
        {
            "anchor_faces": state.anchor_faces,
            "background_part": state.background_part,
            "id_map": {str(old): new for old, new in state.id_map.items()},
            "pieces": {str(old): pieces for old, pieces in state.pieces.items()},
        }
    )


def _read_state(members: Mapping[str, Any]) -> dict[str, Any]:
    """Typed fields and provenance of a proposal of format 2."""
    parts = json.loads(str(members["parts"]))
    return {
        "parts": PartTable(
            tuple(parts["names"]), tuple(parts["categories"]), tuple(parts["color_slots"])
        ),
        "refinement": _refinement_of(json.loads(str(members["refinement"]))),
        "checkpoint": str(members["checkpoint"]),
        "num_draws": int(members["num_draws"]),
        "fallbacks": tuple(json.loads(str(members["fallbacks"]))),
        "provenance": json.loads(str(members["provenance"])),
    }


def _read_state_1(members: Mapping[str, Any]) -> dict[str, Any]:
    """Typed fields of a proposal of format 1, taken out of its provenance."""
    record: dict[str, Any] = json.loads(str(members["provenance"]))
    num_parts = len(members["part_confidence"])
    plain = PartTable.plain(num_parts)
    refinement = {key: record.pop(old) for key, old in _REFINEMENT_KEYS_1.items() if old in record}
    return {
        "parts": PartTable(
            tuple(record.pop("part_names", None) or plain.names),
            tuple(record.pop("part_categories", None) or plain.categories),
            tuple(record.pop("part_slots", None) or plain.color_slots),
        ),
        "refinement": _refinement_of(refinement),
        "checkpoint": str(record.get("checkpoint", "")),
        "num_draws": int(record.get("num_draws", 0)),
        "fallbacks": tuple(record.get("fallbacks", ())),
        "provenance": record,
    }


def _refinement_of(stored: Mapping[str, Any]) -> RefinementState:
    return RefinementState(
        anchor_faces=tuple(int(face) for face in stored.get("anchor_faces", ())),
        background_part=stored.get("background_part"),
        id_map={int(old): int(new) for old, new in stored.get("id_map", {}).items()},
        pieces={int(old): tuple(pieces) for old, pieces in stored.get("pieces", {}).items()},
    )


_REFINEMENT_KEYS_1 = {
    "anchor_faces": "anchor_faces",
    "background_part": "not_object_part",
    "id_map": "id_map",
    "pieces": "pieces",
}
_STATE_READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    PROPOSAL_FORMAT: _read_state,
    PROPOSAL_FORMAT_1: _read_state_1,
}


def _read_metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata entry of a safetensors header (the numpy loader drops it)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = header.get("__metadata__", {}).get("segvigen", "{}")
    meta = json.loads(entry)
    if not isinstance(meta, dict):
        raise CorruptBlob("encoding metadata is no object; encode again")
    return meta
