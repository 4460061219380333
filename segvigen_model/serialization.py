"""Encodings and proposals as bytes, without pickles and byte-stable.

An encoding is one safetensors blob with metadata in its header: it holds no code and maps without
copying. A proposal is an npz with fixed time stamps, its tables and provenance as JSON members.
Equal values give equal bytes, so that a create-only store recognises them. Anything else raises
`CorruptBlob`. Proposals of format 1, whose state stood in the provenance, are read too.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.archives import (
    parse_json,
    read_npz,
    take_array,
    take_ids,
    take_number,
    take_text,
)
from segvigen_model.errors import CorruptBlob
from segvigen_model.types import Encoding, Frame, PartTable, Proposal, RefinementState

__all__ = [
    "CorruptBlob",
    "encoding_from_bytes",
    "encoding_to_bytes",
    "proposal_from_bytes",
    "proposal_to_bytes",
]

ENCODING_FORMAT = "segvigen-encoding/1"
PROPOSAL_FORMAT = "segvigen-proposal/2"
PROPOSAL_FORMAT_1 = "segvigen-proposal/1"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest date that zip knows
MAX_GRID = 4096  # voxels along an axis; the largest of the released models is 1024
_ENCODING, _PROPOSAL = "an encoding", "a proposal"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


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
        meta, arrays = _read_metadata(data), load_tensors(data)
        if meta.get("format") != ENCODING_FORMAT:
            raise CorruptBlob(
                f"format is {meta.get('format')!r}, not {ENCODING_FORMAT!r}; encode again"
            )
        return _build_encoding(meta, arrays)
    except (SafetensorError, *_UNREADABLE) as err:
        raise CorruptBlob(f"not an encoding ({len(data)} bytes): {err}; encode again") from err


def _build_encoding(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Encoding:
    """Check sizes, ranges and finiteness of what a file holds, and make an encoding of it."""
    grid, factor = _whole(meta, "grid", MAX_GRID), _whole(meta, "factor", MAX_GRID)
    coords = take_ids(arrays, "coords", (None, 3), (0, grid), _ENCODING)
    latent = take_ids(arrays, "latent_coords", (None, 3), (0, grid // factor + 1), _ENCODING)
    scale = float(meta["frame_scale"])
    if not 0 < scale < math.inf:
        raise ValueError(f"frame_scale {scale} is no positive number")
    per_latent = (len(latent), None)
    condition = None
    if "condition" in arrays:
        condition = take_array(arrays, "condition", "f", (None, None), _ENCODING)
    return Encoding(
        grid=grid,
        factor=factor,
        coords=coords,
        latent_coords=latent,
        shape_slat=take_array(arrays, "shape_slat", "f", per_latent, _ENCODING),
        tex_slat=take_array(arrays, "tex_slat", "f", per_latent, _ENCODING),
        base_color=take_array(arrays, "base_color", "u", (len(coords), 3), _ENCODING),
        frame=Frame(center=take_array(arrays, "frame_center", "f", (3,), _ENCODING), scale=scale),
        checkpoint=str(meta["checkpoint"]),
        condition=condition,
    )


def _whole(meta: Mapping[str, Any], name: str, most: int) -> int:
    value = meta[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} {str(value)[:40]!r} is no whole number in 1..{most}")
    return value


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
    members = read_npz(data, "a proposal")
    try:
        format_ = take_text(members, "format", _PROPOSAL)
        if format_ not in _STATE_READERS:
            raise CorruptBlob(
                f"format is {format_!r}, not one of {', '.join(_STATE_READERS)}; propose again"
            )
        return _build_proposal(members, _STATE_READERS[format_](members))
    except _UNREADABLE as err:
        raise CorruptBlob(f"not a proposal ({len(data)} bytes): {err}; propose again") from err


def _build_proposal(members: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> Proposal:
    """Check sizes, ranges and finiteness of what an archive holds, and make a proposal of it."""
    sure = take_array(members, "part_confidence", "f", (None,), _PROPOSAL)
    num_parts = len(sure)
    parts = (0, max(num_parts, 1))
    labels = take_ids(members, "face_labels", (None,), parts, _PROPOSAL)
    num_faces = len(labels)
    if len(state["parts"].names) not in (0, num_parts):
        raise ValueError(f"{len(state['parts'].names)} part names for {num_parts} parts")
    _check_refinement(state["refinement"], num_faces, num_parts)
    finer = groups = None
    if "finer" in members:
        finer = take_ids(members, "finer", (None, num_faces), (0, max(num_faces, 1)), _PROPOSAL)
    if "groups" in members:
        groups = take_ids(members, "groups", (num_parts,), parts, _PROPOSAL)
    return Proposal(
        face_labels=labels,
        voxel_labels=take_ids(members, "voxel_labels", (None,), (-1, parts[1]), _PROPOSAL),
        part_confidence=sure,
        confidence=take_number(members, "confidence", _PROPOSAL),
        finer=finer,
        groups=groups,
        **state,
    )


def _check_refinement(state: RefinementState, num_faces: int, num_parts: int) -> None:
    background = -1 if state.background_part is None else state.background_part
    places = (*state.id_map.values(), *(each for ids in state.pieces.values() for each in ids))
    if not all(0 <= face < num_faces for face in state.anchor_faces):
        raise ValueError(f"an anchor face is none of {num_faces} faces")
    if not all(0 <= part < num_parts for part in places) or not -1 <= background < num_parts:
        raise ValueError(f"a refined part is none of {num_parts} parts")


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


def _read_state(members: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Typed fields and provenance of a proposal of format 2."""
    parts = _read_json(members, "parts")
    return {
        "parts": _part_table(parts["names"], parts["categories"], parts["color_slots"]),
        "refinement": _refinement_of(_read_json(members, "refinement")),
        "checkpoint": take_text(members, "checkpoint", _PROPOSAL),
        "num_draws": int(take_number(members, "num_draws", _PROPOSAL)),
        "fallbacks": tuple(map(str, _read_json(members, "fallbacks"))),
        "provenance": dict(_read_json(members, "provenance")),
    }


def _read_state_1(members: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Typed fields of a proposal of format 1, taken out of its provenance."""
    record: dict[str, Any] = dict(_read_json(members, "provenance"))
    plain = PartTable.plain(len(members["part_confidence"]))
    refinement = {key: record.pop(old) for key, old in _REFINEMENT_KEYS_1.items() if old in record}
    return {
        "parts": _part_table(
            record.pop("part_names", None) or plain.names,
            record.pop("part_categories", None) or plain.categories,
            record.pop("part_slots", None) or plain.color_slots,
        ),
        "refinement": _refinement_of(refinement),
        "checkpoint": str(record.get("checkpoint", "")),
        "num_draws": int(record.get("num_draws", 0)),
        "fallbacks": tuple(map(str, record.get("fallbacks", ()))),
        "provenance": record,
    }


def _read_json(members: Mapping[str, NDArray[Any]], name: str) -> Any:
    return parse_json(take_text(members, name, _PROPOSAL), f"{name!r} of {_PROPOSAL}")


def _part_table(names: Any, categories: Any, slots: Any) -> PartTable:
    if not all(isinstance(each, str) for each in (*names, *categories)):
        raise ValueError("a part's name or category is no text")
    return PartTable(tuple(names), tuple(categories), tuple(int(slot) for slot in slots))


def _refinement_of(stored: Mapping[str, Any]) -> RefinementState:
    background = stored.get("background_part")
    return RefinementState(
        anchor_faces=tuple(int(face) for face in stored.get("anchor_faces", ())),
        background_part=None if background is None else int(background),
        id_map={int(old): int(new) for old, new in stored.get("id_map", {}).items()},
        pieces={
            int(old): tuple(int(each) for each in pieces)
            for old, pieces in stored.get("pieces", {}).items()
        },
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
    header = parse_json(data[8 : 8 + length], "the header of an encoding")
    meta = parse_json(header.get("__metadata__", {}).get("segvigen", "{}"), "encoding metadata")
    if not isinstance(meta, dict):
        raise CorruptBlob("encoding metadata is no object; encode again")
    return meta
