"""What a folder of released weights holds, what it lacks, and whose licences apply.

Reads headers only: names and shapes are compared with networks built without memory, gigabytes
stay on disk (unless file hashes are requested). Nothing found wrong raises; it is a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from segvigen_model.checkpoints import official_config
from segvigen_model.checkpoints.native import CONFIG_FILE, WEIGHTS_FILE, parse_config
from segvigen_model.checkpoints.official import (
    AUTOENCODERS,
    PIPELINE_FILE,
    infer_flow_config,
    read_official_sampler,
    read_segvigen,
)
from segvigen_model.checkpoints.weights import hash_file
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.slat_flow.image_tokens import MODEL_NAME, find_image_model
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.vae.decoder import Decoder
from segvigen_model.vae.encoder import Encoder

MAX_NAMED = 3
# What their authors publish; the terms on the model's own page decide.
LICENCES = {
    "trellis": "TRELLIS.2-4B, Microsoft: see microsoft/TRELLIS.2-4B",
    "segvigen": "SegviGen: code MIT; weights: see fenghora/SegviGen",
    "dinov3": f"DINOv3 License, Meta, gated: accept it at {MODEL_NAME}",
    "own": "this project's, see its card",
}
SEGVIGEN_FILES = {
    "full": "full_seg.ckpt",
    "guided": "full_seg_w_2d_map.ckpt",
    "interactive": "interactive_seg.ckpt",
}
_Shapes = dict[str, tuple[int, ...]]


class WeightsState(StrEnum):
    """What was found."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    OPTIONAL = "optional"  # missing, and only one mode needs it


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One piece of a model.

    Attributes:
        name: which piece.
        state: what was found.
        detail: parameters and tensors, or what is wrong and what to do.
        licence: whose terms apply.
        path: where it lies, when it is there.
        sha256: of the file, on request.
    """

    name: str
    state: WeightsState
    detail: str
    licence: str
    path: Path | None = None
    sha256: str = ""


def check_weights(folder: str | Path, *, has_sha256: bool = False) -> list[WeightsRow]:
    """Look through a folder of weights.

    Args:
        folder: a TRELLIS.2 folder with SegviGen's `.ckpt` files in it or beside it, or a
            checkpoint of our own.
        has_sha256: also hash the files; reads all of them.

    Returns:
        One row per piece, in a fixed order.
    """
    base = Path(folder)
    if (base / CONFIG_FILE).is_file() and (base / WEIGHTS_FILE).is_file():
        rows = [_check_own_weights(base)]
    else:
        rows = list(_check_released(base))
    if not has_sha256:
        return rows
    return [_add_hash(row) for row in rows]


def is_runnable(rows: list[WeightsRow]) -> bool:
    """Whether nothing is missing or wrong that every mode needs."""
    return all(row.state in (WeightsState.OK, WeightsState.OPTIONAL) for row in rows)


def _check_released(base: Path) -> Iterator[WeightsRow]:
    trellis = _find_trellis_folder(base)
    yield _check_file("pipeline.json", "trellis", trellis / PIPELINE_FILE, _describe_pipeline)
    for part, name in AUTOENCODERS.items():
        places = [place / f"{name}.safetensors" for place in (trellis / "ckpts", trellis)]
        path = next((place for place in places if place.is_file()), places[0])
        yield _check_file(part, "trellis", path, _describe_autoencoder)
    yield from _check_flows(base)
    yield _check_image_model(base, trellis)


def _find_trellis_folder(base: Path) -> Path:
    found = [base / PIPELINE_FILE, *sorted(base.glob(f"*/{PIPELINE_FILE}"))]
    found += [base.parent / PIPELINE_FILE]
    return next((path.parent for path in found if path.is_file()), base)


def _check_flows(base: Path) -> Iterator[WeightsRow]:
    """Rows of the three segmentation modes; one of them suffices."""
    present = sorted({*base.glob("*.ckpt"), *base.glob("*/*.ckpt")})
    absent = WeightsState.OPTIONAL if present else WeightsState.MISSING
    named = {path.name: path for path in present}
    for task, name in SEGVIGEN_FILES.items():
        path = named.pop(name, base / name)
        yield _check_file(f"segvigen {task}", "segvigen", path, _describe_flow, absent)
    for path in named.values():
        yield _check_file(f"segvigen {path.stem}", "segvigen", path, _describe_flow)


def _check_file(
    name: str,
    licence: str,
    path: Path,
    detail: Callable[[Path], str],
    absent: WeightsState = WeightsState.MISSING,
) -> WeightsRow:
    if not path.is_file():
        what = f"no {path.name}; fetch it from its model page"
        return WeightsRow(name, absent, what, LICENCES[licence])
    try:
        return WeightsRow(name, WeightsState.OK, detail(path), LICENCES[licence], path)
    except CheckpointMismatch as err:
        return WeightsRow(name, WeightsState.WRONG, str(err), LICENCES[licence], path)


def _add_hash(row: WeightsRow) -> WeightsRow:
    if row.path is None:
        return row
    file = row.path / WEIGHTS_FILE if row.path.is_dir() else row.path
    digest = hash_file(file) if file.is_file() else ""
    return WeightsRow(row.name, row.state, row.detail, row.licence, row.path, digest)


def _describe_pipeline(path: Path) -> str:
    options = read_official_sampler(path.parent)
    return f"{options.num_steps} steps, guidance {options.guidance_strength:g}"


def _describe_autoencoder(path: Path) -> str:
    config = path.with_suffix(".json")
    try:
        data = json.loads(config.read_text("utf-8"))
        name, args = str(data["name"]), dict(data["args"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointMismatch(f"{config.name} is absent or no model config: {err!r}") from err
    with torch.device("meta"):
        module: nn.Module
        if name in (official_config.SHAPE_ENCODER, official_config.TEX_ENCODER):
            module = Encoder(official_config.parse_encoder_config(name, args))
        else:
            module = Decoder(official_config.parse_decoder_config(name, args))
    return _compare_shapes(read_tensor_shapes(path), _list_module_shapes(module))


def _describe_flow(path: Path) -> str:
    state = read_segvigen(path)  # mapped, not read
    clicks = len(state.get("seg_embeddings.weight", ()))
    with torch.device("meta"):
        flow = SegmentationFlow(
            SegmentationConfig(infer_flow_config(state, "flow_model."), clicks, False)
        )
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return _compare_shapes(shapes, _list_module_shapes(flow))


def _check_image_model(base: Path, trellis: Path) -> WeightsRow:
    where = Path(find_image_model(base, base.parent, trellis, trellis.parent))
    name, licence = "image model", LICENCES["dinov3"]
    if not where.is_dir():
        what = (
            f"no folder {where.name}; accept the licence and fetch it, or have it in the hub cache"
        )
        return WeightsRow(name, WeightsState.MISSING, what, licence)
    try:
        config = json.loads((where / "config.json").read_text("utf-8"))
        if config.get("model_type") != "dinov3_vit":
            raise CheckpointMismatch(f"model_type is {config.get('model_type')!r}, not dinov3_vit")
        shapes = read_tensor_shapes(where / WEIGHTS_FILE)
        what = f"{_count_parameters(shapes)}, width {config['hidden_size']}"
    except (OSError, ValueError, KeyError, AttributeError, CheckpointMismatch) as err:
        return WeightsRow(name, WeightsState.WRONG, str(err), licence, where)
    return WeightsRow(name, WeightsState.OK, what, licence, where)


def _check_own_weights(base: Path) -> WeightsRow:
    try:
        header = json.loads((base / CONFIG_FILE).read_text("utf-8"))
        config = parse_config(header["model"])
        with torch.device("meta"):
            modules: dict[str, nn.Module] = {
                "shape_encoder": Encoder(config.shape_encoder),
                "shape_decoder": Decoder(config.shape_decoder),
                "tex_encoder": Encoder(config.tex_encoder),
                "tex_decoder": Decoder(config.tex_decoder),
                "dit": SegmentationFlow(config.flow),
            }
        wanted = {
            f"{part}.{name}": shape
            for part, module in modules.items()
            for name, shape in _list_module_shapes(module).items()
        }
        detail = _compare_shapes(read_tensor_shapes(base / WEIGHTS_FILE), wanted)
    except (ValueError, KeyError, TypeError, CheckpointMismatch) as err:
        return WeightsRow("own", WeightsState.WRONG, str(err), LICENCES["own"], base)
    return WeightsRow("own", WeightsState.OK, detail, LICENCES["own"], base)


def read_tensor_shapes(path: Path) -> _Shapes:
    """Read names and shapes off a file's header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as err:
        raise CheckpointMismatch(f"cannot read {path.name}: {err}; fetch it again") from err


def _list_module_shapes(module: nn.Module) -> _Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _compare_shapes(found: Mapping[str, tuple[int, ...]], wanted: _Shapes) -> str:
    """Return the size, or raise with the first differences."""
    differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if differing:
        parts = [f"{k} {found.get(k, 'absent')}" for k in differing[:MAX_NAMED]]
        raise CheckpointMismatch(
            f"{len(differing)} tensors do not fit ({', '.join(parts)}...); is it another release?"
        )
    return _count_parameters(found)


def _count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return f"{sum(prod(shape) for shape in shapes.values()) / 1e6:.1f}M in {len(shapes)} tensors"
