"""Folders of weights: whole, incomplete, damaged; nothing is loaded."""

from __future__ import annotations

import json

import pytest
import torch

from segvigen_model.checkpoints import inventory, native
from segvigen_model.checkpoints.inventory import WeightsState, check_weights, is_runnable
from segvigen_model.checkpoints.weights import hash_file
from segvigen_model.model.bundle import build_model
from segvigen_model.slat_flow.image_tokens import MODEL_FOLDER


def states(rows):
    return {row.name: row.state for row in rows}


def test_a_whole_folder_is_fine(released_folder):
    rows = check_weights(released_folder)
    assert is_runnable(rows), rows
    assert {row.state for row in rows} == {WeightsState.OK}
    assert [row.name for row in rows] == [
        "pipeline.json",
        *("shape_encoder", "shape_decoder", "tex_encoder", "tex_decoder"),
        *("segvigen full", "segvigen guided", "segvigen interactive"),
        "image model",
    ]
    assert all(row.licence for row in rows)


def test_only_headers_are_read(released_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("loaded a whole file")

    monkeypatch.setattr(native, "load_file", refuse)
    monkeypatch.setattr(inventory, "hash_file", refuse)
    real = torch.load  # noqa: TID251
    seen = []
    monkeypatch.setattr(torch, "load", lambda *a, **k: (seen.append(k), real(*a, **k))[1])
    check_weights(released_folder)
    assert all(options["mmap"] and options["weights_only"] for options in seen)
    assert len(seen) == 3


def test_what_is_missing_is_named(released_folder):
    (released_folder / "full_seg.ckpt").unlink()
    name = f"{inventory.AUTOENCODERS['tex_decoder']}.safetensors"
    next(released_folder.rglob(name)).unlink()
    rows = check_weights(released_folder)
    found = states(rows)
    assert found["segvigen full"] == WeightsState.OPTIONAL
    assert found["tex_decoder"] == WeightsState.MISSING
    assert not is_runnable(rows)
    assert name in next(row.detail for row in rows if row.name == "tex_decoder")


def test_an_empty_folder_lacks_everything(tmp_path):
    rows = check_weights(tmp_path)
    assert {row.state for row in rows} == {WeightsState.MISSING}
    assert "licence" in rows[-1].detail


@pytest.mark.parametrize("damage", [b"", b"no weights", b"\xff" * 64])
def test_damaged_files_are_rows_not_errors(released_folder, damage):
    next(released_folder.rglob("shape_enc*.safetensors")).write_bytes(damage)
    (released_folder / "interactive_seg.ckpt").write_bytes(damage)
    next(released_folder.rglob("pipeline.json")).write_bytes(damage)
    (released_folder / MODEL_FOLDER / "config.json").write_bytes(damage)
    found = states(check_weights(released_folder))
    wrong = {name for name, state in found.items() if state == WeightsState.WRONG}
    assert wrong == {"shape_encoder", "segvigen interactive", "pipeline.json", "image model"}


def test_other_sizes_are_noticed(released_folder):
    path = next(released_folder.rglob("tex_enc*.json"))
    data = json.loads(path.read_text())
    data["args"]["latent_channels"] = 4
    path.write_text(json.dumps(data))
    row = next(row for row in check_weights(released_folder) if row.name == "tex_encoder")
    assert row.state == WeightsState.WRONG
    assert "to_latent.bias (16,)" in row.detail


def test_hashes_on_request(released_folder):
    rows = {row.name: row for row in check_weights(released_folder, has_sha256=True)}
    wanted = hash_file(released_folder / "full_seg.ckpt")
    assert rows["segvigen full"].sha256 == wanted
    assert len(rows["image model"].sha256) == 64


def test_own_checkpoints_are_known(tmp_path):
    native.save_model(build_model("tiny"), tmp_path)
    (row,) = check_weights(tmp_path)
    assert row.state == WeightsState.OK, row
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    (row,) = check_weights(tmp_path)
    assert row.state == WeightsState.WRONG
