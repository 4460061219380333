"""A feature column that changes place is refused, never read as another one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive import mask_selector, patch_network
from segvigen_model.interactive.mask_features import COLUMNS
from segvigen_model.interactive.mask_selector import (
    MaskSelector,
    load_mask_selector,
    save_choice_network,
)
from segvigen_model.interactive.patch_network import (
    PAIR_COLUMNS,
    TOKEN_COLUMNS,
    PatchNetwork,
    read_patch_network,
    save_patch_network,
)
from segvigen_model.surface.feature_schema import (
    METADATA_KEY,
    check_columns,
    metadata_of,
    order_columns,
    settings_of,
)
from segvigen_model.surface.patch_features import SCALAR_COLUMNS
from segvigen_model.training import patch_data, train_mask_selector

read_choice_network = load_mask_selector.__wrapped__


def swapped(names: tuple[str, ...], first: int, second: int) -> tuple[str, ...]:
    """The same names with two of them exchanged."""
    changed = list(names)
    changed[first], changed[second] = names[second], names[first]
    return tuple(changed)


def small_network() -> PatchNetwork:
    return PatchNetwork(16, 2, (1, 1), 8)


def test_every_table_names_its_columns_once():
    for names in (TOKEN_COLUMNS, PAIR_COLUMNS, COLUMNS, SCALAR_COLUMNS):
        assert len(set(names)) == len(names)


@given(st.permutations(range(6)))
def test_values_are_ordered_by_name_whatever_order_they_come_in(order):
    names = tuple("abcdef")
    assert order_columns({names[k]: k for k in order}, names) == list(range(6))


def test_a_value_without_a_column_or_a_column_without_a_value_is_an_error():
    with pytest.raises(ValueError, match=r"\['b', 'c'\]"):
        order_columns({"a": 1, "b": 2}, ("a", "c"))


def test_the_shipped_weights_have_the_columns_of_this_version():
    read_patch_network(patch_network.WEIGHTS_FILE)
    read_choice_network(mask_selector.WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        ("TOKEN_COLUMNS", "patch_tokens", "column 30 of patch_tokens is log_area in the file"),
        ("PAIR_COLUMNS", "patch_pairs", "column 0 of patch_pairs is geodesic_distance in the file"),
    ],
)
def test_shipped_patch_weights_are_refused_when_two_columns_change_place(
    monkeypatch, table, name, message
):
    first = 30 if table == "TOKEN_COLUMNS" else 0
    now = swapped(getattr(patch_network, table), first, first + 3)
    monkeypatch.setattr(patch_network, table, now)
    with pytest.raises(CheckpointMismatch, match=f"{message} and {now[first]} in this version"):
        read_patch_network(patch_network.WEIGHTS_FILE)


def test_the_shipped_selector_is_refused_when_two_columns_change_place(monkeypatch):
    monkeypatch.setattr(mask_selector, "COLUMNS", swapped(COLUMNS, 4, 9))
    with pytest.raises(CheckpointMismatch, match="column 4 of mask_features is expected_iou in"):
        read_choice_network(mask_selector.WEIGHTS_FILE)


def test_new_weights_carry_their_columns_and_are_refused_by_another_version(tmp_path, monkeypatch):
    patches, choice = tmp_path / "patches.safetensors", tmp_path / "choice.safetensors"
    save_patch_network(small_network(), patches)
    save_choice_network(MaskSelector(), choice)
    read_patch_network(patches)
    read_choice_network(choice)
    monkeypatch.setattr(patch_network, "TOKEN_COLUMNS", swapped(TOKEN_COLUMNS, 1, 2))
    monkeypatch.setattr(mask_selector, "COLUMNS", swapped(COLUMNS, 0, 58))
    with pytest.raises(CheckpointMismatch, match="column 1 of patch_tokens is position_y in"):
        read_patch_network(patches)
    with pytest.raises(CheckpointMismatch, match="column 0 of mask_features is log_area in"):
        read_choice_network(choice)
    # What that version writes is good for it, and refused by this one.
    save_patch_network(small_network(), patches)
    read_patch_network(patches)
    monkeypatch.undo()
    with pytest.raises(CheckpointMismatch, match="is position_z in the file and position_y in"):
        read_patch_network(patches)


def test_one_column_more_or_less_is_named():
    path = Path("w.safetensors")
    with pytest.raises(CheckpointMismatch, match="column 1 of t is absent in the file and b in"):
        check_columns(path, {"t": ["a"]}, {"t": ("a", "b")})
    with pytest.raises(CheckpointMismatch, match="column 1 of t is b in the file and absent in"):
        check_columns(path, {"t": ["a", "b"]}, {"t": ("a",)})
    with pytest.raises(CheckpointMismatch, match="column 0 of t is absent in the file"):
        check_columns(path, {}, {"t": ("a",)})


def test_the_same_weights_give_the_same_bytes(tmp_path):
    network = small_network()
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        save_patch_network(network, file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("entry", ["{", "[]", "{}", json.dumps({"columns": 3})])
def test_damaged_metadata_is_refused(tmp_path, entry):
    for save, read, network, message in (
        (save_patch_network, read_patch_network, small_network(), "no patch network"),
        (save_choice_network, read_choice_network, MaskSelector(), "no mask selector"),
    ):
        file = tmp_path / "w.safetensors"
        save(network, file)
        save_file(load_file(file), file, metadata={METADATA_KEY: entry})
        with pytest.raises(CheckpointMismatch, match=message):
            read(file)


@pytest.mark.parametrize("content", [None, b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}"])
def test_what_is_no_selector_is_refused(tmp_path, content):
    file = tmp_path / "choice.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=r"choice.safetensors holds no mask selector: "):
        read_choice_network(file)


def test_metadata_holds_settings_and_columns():
    stored = metadata_of({"width": 3}, {"t": ("b", "a")})
    assert settings_of(stored) == {"width": 3, "columns": {"t": ["b", "a"]}}
    assert settings_of(None) is None and settings_of({"width": "3"}) is None


def test_kept_training_examples_of_other_columns_are_refused(tmp_path, monkeypatch):
    shard, kept = tmp_path / "train-00000.npz", tmp_path / "asked.npz"
    requested = train_mask_selector.MaskSample(
        1, False, np.zeros((2, len(COLUMNS)), np.float32), np.zeros(2, np.float32)
    )
    train_mask_selector.save_samples(kept, [requested])
    np.savez(shard, columns=np.array(SCALAR_COLUMNS))
    assert list(patch_data.read_file(shard)) == []
    assert len(train_mask_selector.load_samples(kept)) == 1
    monkeypatch.setattr(train_mask_selector, "COLUMNS", swapped(COLUMNS, 0, 1))
    monkeypatch.setattr(patch_data, "SCALAR_COLUMNS", swapped(SCALAR_COLUMNS, 0, 1))
    with pytest.raises(CheckpointMismatch, match="column 0 of mask_features is log_area"):
        train_mask_selector.load_samples(kept)
    with pytest.raises(CheckpointMismatch, match="column 0 of patch_scalars is log_area"):
        list(patch_data.read_file(shard))
    np.savez(shard)  # written before columns were stored
    with pytest.raises(CheckpointMismatch, match="column 0 of patch_scalars is log_area"):
        list(patch_data.read_file(shard))
