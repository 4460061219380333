"""An asset's mesh comes from the parsed blob: exact, checked, and made once for older assets."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segvigen_model.errors import CorruptBlob
from segvigen_model.mesh.canonical import mesh_from_canonical, mesh_to_canonical
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.mesh.sandbox.parser import get_library_parser
from tasks.catalogue import AssetRow
from tasks.errors import BlobDamaged, StageError
from tasks.labelling.loading import load_asset_info, load_asset_mesh, make_parsed_key
from tasks.storage.store import Store

OBJ = (
    b"mtllib a.mtl\no chair\ng seat\nusemtl red\nv 4500000 0 0 1 0 0\nv 4500001 0 0 0 1 0\n"
    b"v 4500001.25 1 0 0 0 1\nv 4500000 1 0 1 1 1\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    b"f 1/1 2/2 3/3 4/4\n"
)


def ingest_textured(pipeline: Any) -> tuple[AssetRow, dict[str, bytes]]:
    picture = io.BytesIO()
    texels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(texels).save(picture, "png")
    side = {"a.mtl": b"newmtl red\nKd 1 0.5 0\nmap_Kd red.png\n", "red.png": picture.getvalue()}
    pipeline.raw.put("o/a.obj", OBJ)
    for name, data in side.items():
        pipeline.raw.put(f"o/{name}", data)
    assert pipeline.ingest() == {"o/a.obj": "registered"}
    (asset,) = pipeline.catalogue.list_assets()
    return asset, side


def forget_parsed(pipeline: Any, asset: AssetRow) -> AssetRow:
    """The asset under another key, as a version without parsed meshes registered it."""
    store, old = pipeline.store, "0" * 64
    about = dict(load_asset_info(store, asset.asset_id))
    del about["mesh"]
    store.put_json(f"assets/{old}/asset.json", about)
    store.put(f"assets/{old}/source.obj", store.get(asset.source_key))
    return replace(asset, asset_id=old, source_key=f"assets/{old}/source.obj")


def test_it_is_what_the_reader_gives(pipeline: Any) -> None:
    asset, side = ingest_textured(pipeline)
    mesh = mesh_from_bytes(OBJ, "obj", side_files=side)
    loaded = load_asset_mesh(pipeline.store, asset)
    assert mesh_to_canonical(loaded) == mesh_to_canonical(mesh)
    assert np.array_equal(loaded.faces, mesh.faces) and loaded.vertices.dtype == np.float64
    assert np.array_equal(loaded.corner_uv, mesh.corner_uv)
    assert np.array_equal(
        loaded.materials[0].base_color_texture, mesh.materials[0].base_color_texture
    )
    about = load_asset_info(pipeline.store, asset.asset_id)
    assert about["mesh"]["key"] == make_parsed_key(asset.source_key)
    stored = pipeline.store.get(about["mesh"]["key"])
    assert about["mesh"]["sha256"] == hashlib.sha256(stored).hexdigest()


def test_the_strangers_bytes_are_not_read_again(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset, _ = ingest_textured(pipeline)
    read, real = [], Store.get

    def get(self: Store, key: str, *args: Any, **kwargs: Any) -> bytes:
        read.append(key)
        return real(self, key, *args, **kwargs)

    monkeypatch.setattr(Store, "get", get)
    load_asset_mesh(pipeline.store, asset)
    assert make_parsed_key(asset.source_key) in read
    assert not [key for key in read if "source" in key or "side/" in key]


def test_an_older_asset_is_parsed_once_when_it_is_needed(pipeline: Any) -> None:
    asset, _ = ingest_textured(pipeline)
    old = forget_parsed(pipeline, asset)
    loaded = load_asset_mesh(pipeline.store, old)
    assert mesh_to_canonical(loaded) == mesh_to_canonical(load_asset_mesh(pipeline.store, asset))
    process = get_library_parser()._process
    assert process is not None
    get_library_parser().close()
    load_asset_mesh(pipeline.store, old)
    assert get_library_parser()._process is None, "no parser is started for what was parsed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_faces": 3}, "is read as 2 faces and was registered with 3"),
        ({"bounds": [[0, 0, 0], [1, 1, 1]]}, "is read with bounds"),
    ],
)
def test_an_older_asset_that_is_now_read_otherwise_stops(
    pipeline: Any, change: dict[str, Any], message: str
) -> None:
    asset, _ = ingest_textured(pipeline)
    old = forget_parsed(pipeline, asset)
    if "num_faces" in change:
        old = replace(old, **change)
    else:
        key = f"assets/{old.asset_id}/asset.json"
        about = {**json.loads(pipeline.store.get(key)), **change}
        pipeline.store.delete(key)
        pipeline.store.put(key, json.dumps(about).encode())
    with pytest.raises(StageError, match=message):
        load_asset_mesh(pipeline.store, old)


def test_damage_is_noticed(pipeline: Any) -> None:
    asset, _ = ingest_textured(pipeline)
    key = make_parsed_key(asset.source_key)
    data = bytearray(pipeline.store.get(key))
    data[-1] ^= 1
    replace_blob(pipeline.store, key, bytes(data))
    with pytest.raises(BlobDamaged):
        load_asset_mesh(pipeline.store, asset)
    with pytest.raises(CorruptBlob):
        mesh_from_canonical(bytes(data[:100]))


def replace_blob(store: Store, key: str, data: bytes) -> None:
    """Put other bytes at a key, past the rule that blobs never change."""
    Path(store.get_uri(key).removeprefix("file://")).write_bytes(data)
