"""A parsed mesh as one safetensors blob, so that no later stage parses the file again.

Every field of `AssetMesh` is a tensor or an entry of the JSON in the tensor `about`, whatever
fields there are; textures are PNG files in tensors of bytes, each stored once. Equal meshes give
equal bytes, and reading gives exactly what was written. The blob comes from a process that met
hostile bytes: the reader believes no shape, index or size in it, and checks counts before it
unfolds anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from segvigen_model.errors import AssetRejected, CorruptBlob
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts
from segvigen_model.types import AssetMesh, ByteArray, FaceOrigin, Material, NameColumn

FORMAT = "segvigen-mesh/1"
PNG_LEVEL = 1  # of 9: the higher ones cost seconds per texture and save a tenth
_ABOUT, _TEXTURE = "about", "texture/"
_ARRAY, _IMAGE, _CLASS, _MAPPING = "$array", "$texture", "$class", "$mapping"
_CLASSES = {each.__name__: each for each in (AssetMesh, Material, FaceOrigin, NameColumn)}
_SHAPES: Mapping[str, tuple[str, tuple[int, ...], str]] = {
    # field -> (length of its first axis, rest of its shape, kind of its dtype)
    "vertices": ("V", (3,), "f"),
    "faces": ("F", (3,), "iu"),
    "face_material": ("F", (), "iu"),
    "corner_uv": ("F", (3, 2), "f"),
    "vertex_colors": ("V", (4,), "u"),
    "vertex_normals": ("V", (3,), "f"),
    "face_geometry": ("F", (), "iu"),
}
_OPTIONAL = ("corner_uv", "vertex_colors", "vertex_normals", "face_geometry")
_CHANNELS = {3: "RGB", 4: "RGBA"}
_UNREADABLE = (
    *(SafetensorError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
_Tensors = dict[str, NDArray[Any]]


def mesh_to_canonical(mesh: AssetMesh) -> bytes:
    """Pack a mesh; the same mesh always gives the same bytes."""
    tensors: _Tensors = {}
    about = {"format": FORMAT, "mesh": _pack(mesh, "mesh", tensors)}
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    tensors[_ABOUT] = np.frombuffer(text.encode(), np.uint8)
    return bytes(save_tensors({name: np.ascontiguousarray(a) for name, a in tensors.items()}))


def mesh_from_canonical(data: bytes, limits: MeshLimits = MeshLimits()) -> AssetMesh:  # noqa: B008 - frozen
    """Unpack a mesh.

    Args:
        data: what `mesh_to_canonical` gave.
        limits: faces, vertices and texture pixels are bounded before anything is unfolded.

    Raises:
        CorruptBlob: the bytes are no mesh of this format.
        AssetRejected: it is larger than the limits allow.
    """
    try:
        tensors = load_tensors(data)
        about = json.loads(tensors[_ABOUT].tobytes())
        if about["format"] != FORMAT:
            raise CorruptBlob(f"format is {str(about['format'])[:40]!r}, not {FORMAT!r}")
        check_counts(len(tensors["mesh.faces"]), len(tensors["mesh.vertices"]), limits)
        mesh = _unpack(about["mesh"], _Source(tensors, _open_textures(tensors, limits)))
        if not isinstance(mesh, AssetMesh):
            raise CorruptBlob(f"the blob holds a {type(mesh).__name__}; parse it again")
        _check_mesh(mesh)
        return mesh
    except (CorruptBlob, AssetRejected):
        raise
    except _UNREADABLE as err:
        raise CorruptBlob(
            f"not a parsed mesh ({len(data)} bytes): {type(err).__name__}: {err}; parse it again"
        ) from err


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """Tensors, opened textures, and the textures that were decoded: materials share them."""

    tensors: _Tensors
    images: Mapping[str, Image.Image]
    texels: dict[str, ByteArray] = dataclasses.field(default_factory=dict)


def _pack(value: Any, place: str, tensors: _Tensors) -> Any:
    """JSON of a value; its arrays go to `tensors`."""
    if isinstance(value, np.ndarray):
        if place.endswith("_texture"):
            name = (
                _TEXTURE + hashlib.sha256(f"{value.shape}".encode() + value.tobytes()).hexdigest()
            )
            if name not in tensors:
                tensors[name] = _encode_png(value)
            return {_IMAGE: name, "shape": list(value.shape)}
        tensors[place] = _shrink_integers(value)
        return {_ARRAY: place, "dtype": value.dtype.str}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        packed = {n: _pack(getattr(value, n), f"{place}.{n}", tensors) for n in names}
        return {_CLASS: type(value).__name__, "fields": packed}
    if isinstance(value, Mapping):
        return {_MAPPING: {k: _pack(each, f"{place}.{k}", tensors) for k, each in value.items()}}
    if isinstance(value, tuple):
        return [_pack(each, f"{place}.{number}", tensors) for number, each in enumerate(value)]
    return value


def _unpack(packed: Any, source: _Source) -> Any:
    if isinstance(packed, list):
        return tuple(_unpack(each, source) for each in packed)
    if not isinstance(packed, dict):
        return packed
    if _ARRAY in packed:
        array, dtype = source.tensors[packed[_ARRAY]], np.dtype(packed["dtype"])
        if array.dtype.kind != dtype.kind:
            raise CorruptBlob(f"{packed[_ARRAY][:80]} is {array.dtype}, not {dtype}")
        return array.astype(dtype, copy=False)
    if _IMAGE in packed:
        return _get_texels(packed[_IMAGE], packed["shape"], source)
    if _MAPPING in packed:
        return {name: _unpack(each, source) for name, each in packed[_MAPPING].items()}
    fields = {name: _unpack(each, source) for name, each in packed["fields"].items()}
    return _CLASSES[packed[_CLASS]](**fields)


def _shrink_integers(array: NDArray[Any]) -> NDArray[Any]:
    """Half the bytes where 32 bits are enough; the reader widens them again."""
    if array.dtype == np.int64 and array.size:
        bounds = np.iinfo(np.int32)
        if bounds.min <= int(array.min()) and int(array.max()) <= bounds.max:
            return array.astype(np.int32)
    return array


def _encode_png(texels: ByteArray) -> ByteArray:
    if texels.dtype != np.uint8 or texels.ndim != 3 or texels.shape[2] not in _CHANNELS:
        raise ValueError(f"a texture of {texels.dtype} {texels.shape} is not (H, W, 3 or 4) uint8")
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(texels), _CHANNELS[texels.shape[2]])
    image.save(buffer, "png", compress_level=PNG_LEVEL)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _open_textures(tensors: _Tensors, limits: MeshLimits) -> dict[str, Image.Image]:
    """Textures by name, sizes checked and nothing decoded."""
    images: dict[str, Image.Image] = {}
    for name in (name for name in tensors if name.startswith(_TEXTURE)):
        try:
            with warnings.catch_warnings():  # our own limit speaks
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                images[name] = Image.open(io.BytesIO(tensors[name].tobytes()), formats=("PNG",))
        except Exception as err:  # PIL's decoders raise whatever they meet
            raise CorruptBlob(f"{name[:40]} is no PNG: {type(err).__name__}") from err
    total = sum(image.width * image.height for image in images.values())
    if total > limits.max_texture_pixels:
        raise AssetRejected(
            "texture_too_large",
            f"textures hold {total} pixels > {limits.max_texture_pixels}; scale them down or "
            "raise max_texture_pixels",
        )
    return images


def _get_texels(name: str, shape: Any, source: _Source) -> ByteArray:
    """(H, W, C) uint8; every material that has the texture shares one array."""
    image = source.images[name]
    height, width, channels = shape
    if (image.height, image.width, image.mode) != (height, width, _CHANNELS.get(channels)):
        raise CorruptBlob(f"a texture is {image.size} {image.mode}, not {shape}")
    if name not in source.texels:
        try:
            source.texels[name] = np.array(image, dtype=np.uint8)
        except Exception as err:  # damaged pixel data
            raise CorruptBlob(f"a texture does not decode: {type(err).__name__}") from err
    return source.texels[name]


def _check_mesh(mesh: AssetMesh) -> None:
    """Whatever no reader of ours would have made."""
    lengths = {"V": len(mesh.vertices), "F": len(mesh.faces)}
    for name, (axis, rest, kinds) in _SHAPES.items():
        array = getattr(mesh, name)
        if array is None and name in _OPTIONAL:
            continue
        if array.shape != (lengths[axis], *rest) or array.dtype.kind not in kinds:
            raise CorruptBlob(f"{name} is {array.dtype} {array.shape}; parse it again")
    if not all(isinstance(each, Material) for each in mesh.materials):
        raise CorruptBlob("materials are none; parse it again")
    _check_range("faces", mesh.faces, 0, lengths["V"])
    _check_range("face_material", mesh.face_material, 0, len(mesh.materials))
    if not np.isfinite(mesh.vertices).all():
        raise CorruptBlob("vertices are not finite; parse it again")
    _check_origin(mesh.origin, lengths["F"])


def _check_origin(origin: FaceOrigin, num_faces: int) -> None:
    columns = {"objects": origin.objects, "groups": origin.groups, "materials": origin.materials}
    arrays = {name: column.indices for name, column in columns.items() if column is not None}
    if origin.polygons is not None:
        arrays["polygons"] = origin.polygons
    for name, array in arrays.items():
        if array.shape != (num_faces,) or array.dtype.kind not in "iu":
            raise CorruptBlob(f"{name} are {array.dtype} {array.shape}; parse it again")
        column = columns.get(name)
        if column is not None:
            _check_range(name, array, -1, len(column.names))


def _check_range(name: str, array: NDArray[Any], low: int, end: int) -> None:
    if not array.size or int(array.min()) < low or int(array.max()) >= end:
        raise CorruptBlob(f"{name} have rows outside {low}..{end - 1}; parse it again")
