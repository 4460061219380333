"""Shards: deterministic, readable by webdataset and by range, complete, and never half there."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from segvigen_model.errors import CorruptBlob
from segvigen_model.serialization import encoding_from_bytes
from tasks.catalogue import AssetState, ClickRow, EditCommandRow
from tasks.labelling.label_sets import BadLabels, accept_asset, load_label_set, read_part_tree
from tasks.labelling.loading import load_proposal
from tasks.labelling.taxonomy import build_taxonomy
from tasks.settings import ShardSettings
from tasks.shards import build as shards_module
from tasks.shards.build import ReaderState, ShardReader, build_shards, read_manifest
from tasks.shards.samples import decode_sample
from tasks.stages.refine import refine_asset
from tasks.storage import keys
from tasks.storage.errors import BlobDamaged

SETTINGS = ShardSettings(num_palettes=2, num_guide_views=2, guide_pixels=32)


def add_accepted(pipeline: Any, count: int) -> list[str]:
    ids = []
    for number in range(count):
        asset = pipeline.add_proposed(2, float(number))
        pipeline.add_reviewed(asset, "accept", [])
        accept_asset(pipeline.workspace, asset.asset_id, "ann")
        ids.append(asset.asset_id)
    return sorted(ids)


def add_refined(pipeline: Any) -> str:
    """An asset that took one round of one click."""
    asset = pipeline.add_proposed(3)
    row = ClickRow(
        *("u", "t", 0, asset.asset_id, 0, "r", "sheet", 1.0, 2.0, "new part"),
        *("new_part", -1, 0, -0.5, 0.0, 0.0),
    )
    pipeline.add_reviewed(asset, "refine", [row])
    pipeline.catalogue.move(asset.asset_id, "refining")
    refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    pipeline.add_reviewed(pipeline.catalogue.get_asset(asset.asset_id), "accept", [])
    accept_asset(pipeline.workspace, asset.asset_id, "ann")
    return str(asset.asset_id)


def run_build(pipeline: Any, settings: ShardSettings = SETTINGS) -> Any:
    return build_shards(pipeline.with_settings(shard=settings))


def test_nothing_to_build(pipeline: Any) -> None:
    assert run_build(pipeline).version == ""
    assert list(pipeline.store.list("shards")) == []


def test_a_sample_carries_what_training_needs(pipeline: Any) -> None:
    asset_id = add_refined(pipeline)
    made = run_build(pipeline)
    assert (made.is_new, made.num_samples, made.failed) == (True, 1, ())
    assert pipeline.catalogue.get_asset(asset_id).state is AssetState.SHARDED
    sample = ShardReader(pipeline.store, made.dataset, made.version)[0]
    asset = pipeline.catalogue.get_asset(asset_id)
    encoding = encoding_from_bytes(pipeline.store.get(asset.encoding_key))
    num_parts = len(sample.part_names)
    assert np.array_equal(sample.coords, encoding.coords)
    assert np.array_equal(sample.shape_slat, encoding.shape_slat)
    assert np.array_equal(sample.tex_slat, encoding.tex_slat)
    assert sample.part_masks.shape == (num_parts, len(encoding.coords))
    assert np.array_equal(sample.part_masks.argmax(0), sample.voxel_labels)
    assert (sample.part_masks.sum(0) == 1).all()
    for palette, colors in zip(sample.palettes, sample.full_colors, strict=True):
        assert len(np.unique(palette, axis=0)) == num_parts
        assert np.array_equal(colors, palette[sample.voxel_labels])
    assert sample.guide_maps.shape == (2, 32, 32, 3)
    assert sample.shown.shape == (2, len(encoding.coords))
    assert np.array_equal(sample.shown[-1], sample.voxel_labels)
    (click,) = sample.clicks
    assert (click["kind"], click["round"], len(click["voxel"])) == ("new_part", 0, 3)
    assert sample.provenance["asset_id"] == asset_id
    assert len(sample.face_labels) == asset.num_faces


def test_guide_colours_are_those_of_the_guided_target(pipeline: Any) -> None:
    add_accepted(pipeline, 1)
    made = run_build(pipeline)
    sample = ShardReader(pipeline.store, made.dataset, made.version)[0]
    for picture, colors in zip(sample.guide_maps, sample.guided_colors, strict=True):
        seen = {tuple(c) for c in picture.reshape(-1, 3).tolist()} - {(0, 0, 0)}
        assert seen
        assert seen <= {tuple(c) for c in np.unique(colors, axis=0).tolist()}
        assert colors.any(axis=1).all()  # black is the background


def test_webdataset_reads_the_tars(pipeline: Any, tmp_path: Path) -> None:
    ids = add_accepted(pipeline, 3)
    made = run_build(pipeline, SETTINGS.model_copy(update={"max_shard_bytes": 50_000}))
    assert made.num_shards > 1
    manifest = read_manifest(pipeline.store, made.dataset, made.version)
    urls = [str(tmp_path / "store" / shard["key"]) for shard in manifest["shards"]]
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ids
    for sample in samples:
        assert sample["provenance.json"]["asset_id"] == sample["__key__"]
        assert sample["labels.npz"]["face_labels"].shape == (24,)


def test_index_and_manifest_report_what_is_there(pipeline: Any) -> None:
    ids = add_accepted(pipeline, 2)
    made = run_build(pipeline)
    manifest = read_manifest(pipeline.store, made.dataset, made.version)
    assert manifest["counts"] == {
        "samples": 2,
        "parts": sum(row.num_parts for row in pipeline.catalogue.labels.list_all()),
        "clicks": 0,
    }
    assert manifest["licences"] == {"unknown": 2}
    assert [asset_id for asset_id, _ in manifest["members"]] == ids
    lines = pipeline.store.get(manifest["index"]["key"]).splitlines()
    for line in map(json.loads, lines):
        shard = manifest["shards"][line["shard"]]
        data = pipeline.store.get(shard["key"])
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        piece = data[line["offset"] : line["offset"] + line["size"]]
        assert hashlib.sha256(piece).hexdigest() == line["sha256"]
    members = pipeline.catalogue.labels.list_shard_members(made.dataset, made.version)
    assert [member.asset_id for member in members] == ids


def test_building_again_changes_nothing(pipeline: Any) -> None:
    add_accepted(pipeline, 1)
    first = run_build(pipeline)
    events = len(pipeline.catalogue.list_events())
    blobs = list(pipeline.store.list())
    again = run_build(pipeline)
    assert (again.version, again.is_new) == (first.version, False)
    assert list(pipeline.store.list()) == blobs
    assert len(pipeline.catalogue.list_events()) == events


def test_the_same_labels_give_the_same_bytes(pipeline: Any, tmp_path: Path) -> None:
    add_accepted(pipeline, 2)
    first = run_build(pipeline)
    folder = tmp_path / "store" / keys.make_shard_folder(first.dataset, first.version)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    again = run_build(pipeline)
    assert (again.version, again.is_new) == (first.version, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_new_labels_make_a_new_version_and_keep_the_old(pipeline: Any) -> None:
    add_accepted(pipeline, 1)
    first = run_build(pipeline)
    add_refined(pipeline)
    second = run_build(pipeline)
    assert second.version != first.version
    assert (first.num_samples, second.num_samples) == (1, 2)
    assert len(ShardReader(pipeline.store, first.dataset, first.version)) == 1
    versions = [row.version for row in pipeline.catalogue.labels.list_shard_versions()]
    assert versions == [first.version, second.version]


@pytest.mark.parametrize("where", ["put_json", "put", "put_file"])
def test_killed_in_the_middle_the_next_run_finishes(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (asset_id,) = add_accepted(pipeline, 1)

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.store, where, killed)
        with pytest.raises(KeyboardInterrupt):
            run_build(pipeline)
    assert pipeline.catalogue.get_asset(asset_id).state is AssetState.ACCEPTED
    assert run_build(pipeline).is_new
    assert pipeline.catalogue.get_asset(asset_id).state is AssetState.SHARDED


def test_killed_before_the_rows_the_next_run_moves_the_assets(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asset_id,) = add_accepted(pipeline, 1)

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.catalogue, "move_all", killed)
        with pytest.raises(KeyboardInterrupt):
            run_build(pipeline)
    assert pipeline.catalogue.labels.list_shard_versions() == []
    assert not run_build(pipeline).is_new
    assert pipeline.catalogue.get_asset(asset_id).state is AssetState.SHARDED
    assert len(pipeline.catalogue.labels.list_shard_versions()) == 1


def test_one_bad_asset_is_left_out_and_named(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = add_accepted(pipeline, 2)
    real = shards_module.load_label_set

    def faulty(store: Any, row: Any) -> Any:
        if row.asset_id == bad:
            raise ValueError("unreadable")
        return real(store, row)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "load_label_set", faulty)
        made = run_build(pipeline)
    assert made.failed == ((bad, "ValueError: unreadable"),)
    assert pipeline.catalogue.get_asset(bad).state is AssetState.ACCEPTED
    assert pipeline.catalogue.get_asset(good).state is AssetState.SHARDED
    assert run_build(pipeline).num_samples == 2
    assert pipeline.catalogue.get_asset(bad).state is AssetState.SHARDED


def test_the_reader_shuffles_resumes_and_shares(pipeline: Any) -> None:
    add_accepted(pipeline, 5)
    made = run_build(pipeline)

    def reader(**options: Any) -> ShardReader:
        return ShardReader(pipeline.store, made.dataset, made.version, **options)

    def names(samples: Any) -> list[str]:
        return [sample.provenance["asset_id"] for sample in samples]

    full = reader(state=ReaderState(seed=3))
    whole = names(full)
    assert full.state == ReaderState(seed=3, epoch=1, position=0)
    assert sorted(whole) == [full.get_key(i) for i in range(5)]
    assert names(full) != whole  # the next epoch has another order
    assert names(reader(state=ReaderState(seed=4))) != whole
    part = reader(state=ReaderState(seed=3))
    walk = iter(part)
    first = [next(walk), next(walk)]
    rest = reader(state=part.state)
    assert names(first) + names(rest) == whole
    shares = [names(reader(state=ReaderState(seed=3), rank=rank, world_size=2)) for rank in (0, 1)]
    assert shares == [whole[::2], [*whole[1::2], whole[0]]], "as many for each, none left out"
    many = [reader(rank=rank, world_size=12).compute_order(0) for rank in range(12)]
    assert {len(share) for share in many} == {1} and {n for (n,) in many} == set(range(5))
    kept = reader(keep=lambda line: line["fold"] >= 5)
    assert len(kept) + len(reader(keep=lambda line: line["fold"] < 5)) == 5
    with pytest.raises(ValueError, match="rank 2"):
        reader(rank=2, world_size=2)


def test_a_changed_byte_is_noticed(pipeline: Any, tmp_path: Path) -> None:
    add_accepted(pipeline, 1)
    made = run_build(pipeline)
    path = tmp_path / "store" / keys.make_shard_key(made.dataset, made.version, 0)
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BlobDamaged, match="shard-000000"):
        ShardReader(pipeline.store, made.dataset, made.version)[0]


def test_members_decode_to_the_same_arrays(pipeline: Any) -> None:
    add_accepted(pipeline, 1)
    made = run_build(pipeline)
    reader = ShardReader(pipeline.store, made.dataset, made.version)
    one, two = reader[0], decode_sample(reader.read_members(0))
    assert np.array_equal(one.full_colors, two.full_colors)
    assert set(reader.read_members(0)) == {
        *("voxels.npz", "labels.npz", "interactive.npz", "full.npz", "guided.npz"),
        *("guide00.png", "guide01.png", "rounds.npz", "clicks.json", "provenance.json"),
    }


def add_named(pipeline: Any) -> str:
    """An accepted asset, its parts merged and named while accepting."""
    asset = pipeline.add_proposed(num_boxes=3)
    num_parts = pipeline.catalogue.get_latest_proposal(asset.asset_id).num_parts
    assert num_parts > 2, "three boxes"
    pipeline.add_reviewed(asset, "accept", [])
    (row,) = pipeline.catalogue.reviews.list_annotations(asset.asset_id)
    commands = [("merge", (0, 1), ""), ("name", (0,), "pair"), ("category", (2,), "box.side")]
    pipeline.catalogue.reviews.interpret(
        *(row.unique_id, row.updated_at),
        verdict="accept",
        commands=[
            EditCommandRow(
                row.unique_id, row.updated_at, n, asset.asset_id, 0, "r", kind, parts, text
            )
            for n, (kind, parts, text) in enumerate(commands)
        ],
    )
    accept_asset(pipeline.workspace, asset.asset_id, "ann")
    return asset.asset_id


def test_instance_and_semantic_ids_and_levels_go_into_shards(pipeline: Any, tmp_path: Path) -> None:
    asset_id = add_named(pipeline)
    taxonomy = build_taxonomy([{"id": "box"}, {"id": "box.side", "parent": "box"}])
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(taxonomy.to_json()))
    made = build_shards(pipeline.with_settings(shard=SETTINGS, review={"taxonomy": file}))
    reader = ShardReader(pipeline.store, made.dataset, made.version)
    sample = reader[0]
    assert reader.manifest["taxonomy"] == taxonomy.to_json()
    proposal = load_proposal(pipeline.store, pipeline.catalogue.get_latest_proposal(asset_id))
    kept = [part for part in range(proposal.num_parts) if part != 1]
    assert len(sample.part_names) == len(kept)
    assert sample.part_names[0] == "pair"
    assert (sample.face_labels == 0).tolist() == (proposal.face_labels <= 1).tolist()
    assert (sample.voxel_labels == 0).tolist() == (proposal.voxel_labels <= 1).tolist()
    side = sample.part_categories.index("box.side")
    assert sample.part_semantics.tolist() == [
        1 if part == side else -1 for part in range(len(kept))
    ]
    assert ((sample.face_semantics == 1) == (proposal.face_labels == 2)).all()
    assert ((sample.voxel_semantics == 1) == (proposal.voxel_labels == 2)).all()
    assert np.array_equal(sample.tree.levels[sample.tree.part_level], sample.face_labels)
    assert len(sample.tree.find_children(0)) >= 2, "a merged part keeps its children"
    held = load_label_set(pipeline.store, pipeline.catalogue.labels.get_latest(asset_id))
    assert sample.source_names == held.source_names
    assert len(held.source_names.objects) == len(kept)
    assert held.polygon_labels.tolist() == held.face_labels.tolist(), "all polygons are triangles"
    assert held.provenance["source_parts"]["num_split_polygons"] == 0
    other = run_build(pipeline)
    assert other.version != made.version
    assert (ShardReader(pipeline.store, other.dataset, other.version)[0].part_semantics == -1).all()


def test_samples_and_label_sets_of_the_first_schema_are_read(pipeline: Any) -> None:
    asset_id = add_accepted(pipeline, 1)[0]
    made = run_build(pipeline)
    reader = ShardReader(pipeline.store, made.dataset, made.version)
    members, new = reader.read_members(0), reader[0]
    old_names = ("voxel_labels", "face_labels", "part_names", "not_object_part")
    members["labels.npz"] = select_members(members["labels.npz"], old_names)
    old = decode_sample(members)
    assert np.array_equal(old.face_labels, new.face_labels)
    assert set(old.part_categories) == {""}
    assert old.source_names is None
    assert (old.face_semantics == -1).all()
    assert len(old.tree.levels) == 1

    row = pipeline.catalogue.labels.get_latest(asset_id)
    data = select_members(
        pipeline.store.get(row.key), ("face_labels", "part_names", "not_object_part")
    )
    blob = pipeline.store.put(f"labels/{asset_id}/old.npz", data)
    held = load_label_set(pipeline.store, replace(row, key=blob.key, sha256=blob.sha256))
    assert np.array_equal(held.face_labels, new.face_labels)
    assert held.proposal_parts.tolist() == list(range(row.num_parts))
    assert len(held.tree.levels) == 1


def test_a_tree_that_is_not_of_its_labels_is_refused(pipeline: Any) -> None:
    asset_id = add_accepted(pipeline, 1)[0]
    row = pipeline.catalogue.labels.get_latest(asset_id)
    with np.load(io.BytesIO(pipeline.store.get(row.key))) as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["levels"] = np.flip(arrays["levels"], axis=1)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    blob = pipeline.store.put(f"labels/{asset_id}/bad.npz", buffer.getvalue())
    with pytest.raises(BadLabels, match="of the tree is not"):
        load_label_set(pipeline.store, replace(row, key=blob.key, sha256=blob.sha256))
    arrays["levels"] = arrays["levels"] - 1
    with pytest.raises(CorruptBlob, match="do not fit its"):
        read_part_tree(arrays, arrays["face_labels"], "a label set")


def select_members(data: bytes, names: tuple[str, ...]) -> bytes:
    """An npz with some of its arrays."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in names}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
