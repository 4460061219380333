"""New versions take over what earlier ones hold: same bytes, less work, and only what fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.labelling.label_sets import accept_asset, write_label_set
from tasks.settings import ShardSettings
from tasks.shards import build as shards_module
from tasks.shards.build import ShardBuild, build_shards
from tasks.storage import keys

SETTINGS = ShardSettings(num_palettes=2, num_guide_views=2, guide_pixels=32)
LEGS = '[{"id": "leg", "name": "Leg"}]'


def accept(pipeline: Any, count: int, shift: float = 0.0) -> list[str]:
    ids = []
    for number in range(count):
        asset = pipeline.add_proposed(2, shift + number)
        pipeline.add_reviewed(asset, "accept", [])
        accept_asset(pipeline.workspace, asset.asset_id, "ann")
        ids.append(asset.asset_id)
    return ids


@pytest.fixture
def made_sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Assets whose samples were really made, not copied."""
    ids: list[str] = []
    real = shards_module.build_sample_members

    def record_source(source: Any, settings: Any) -> Any:
        ids.append(source.asset_id)
        return real(source, settings)

    monkeypatch.setattr(shards_module, "build_sample_members", record_source)
    return ids


def build(
    pipeline: Any, settings: ShardSettings = SETTINGS, taxonomy: Path | None = None
) -> ShardBuild:
    return build_shards(pipeline.with_settings(shard=settings, review={"taxonomy": taxonomy}))


def tars(tmp_path: Path, build_: ShardBuild) -> dict[str, bytes]:
    folder = tmp_path / "store" / keys.make_shard_folder(build_.dataset, build_.version)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_new_samples_are_made_and_the_bytes_are_those_of_a_fresh_build(
    pipeline: Any, tmp_path: Path, made_sources: list[str]
) -> None:
    old = accept(pipeline, 2)
    first = build(pipeline)
    assert (sorted(made_sources), first.num_reused) == (sorted(old), 0)
    (new,) = accept(pipeline, 1, shift=9.0)
    made_sources.clear()
    second = build(pipeline)
    assert (made_sources, second.num_samples, second.num_reused) == ([new], 3, 2)
    copied = tars(tmp_path, second)
    for each in (first, second):
        for path in (
            tmp_path / "store" / keys.make_shard_folder(each.dataset, each.version)
        ).iterdir():
            path.unlink()
    fresh = build(pipeline)
    assert (fresh.version, fresh.num_reused) == (second.version, 0)
    assert tars(tmp_path, fresh) == copied


def test_a_new_label_set_of_an_old_asset_is_made_again(
    pipeline: Any, made_sources: list[str]
) -> None:
    kept, changed = accept(pipeline, 2)
    build(pipeline)
    made_sources.clear()
    asset = pipeline.catalogue.get_asset(changed)
    row = write_label_set(pipeline.workspace, asset, "bob")
    assert pipeline.catalogue.labels.add(row)
    assert build(pipeline).num_reused == 1
    assert made_sources == [changed] and kept not in made_sources


@pytest.mark.parametrize(
    ("settings", "taxonomy", "num_reused"),
    [
        (SETTINGS.model_copy(update={"max_shard_bytes": 2**16}), None, 1),  # cuts only tars
        (SETTINGS.model_copy(update={"num_palettes": 3}), None, 0),
        (SETTINGS, LEGS, 0),
        (SETTINGS.model_copy(update={"dataset": "other"}), None, 0),
    ],
)
def test_only_samples_of_the_same_making_are_taken(
    pipeline: Any, tmp_path: Path, settings: ShardSettings, taxonomy: str | None, num_reused: int
) -> None:
    accept(pipeline, 1)
    build(pipeline)
    file = tmp_path / "taxonomy.json"
    file.write_text(taxonomy or "")
    assert build(pipeline, settings, file if taxonomy else None).num_reused == num_reused


def test_what_has_changed_or_gone_is_made_again(pipeline: Any, tmp_path: Path) -> None:
    accept(pipeline, 2)
    first = build(pipeline)
    folder = tmp_path / "store" / keys.make_shard_folder(first.dataset, first.version)
    (tar,) = folder.glob("*.tar")
    data = bytearray(tar.read_bytes())
    data[600] ^= 1  # within the first sample
    tar.write_bytes(data)
    accept(pipeline, 1, shift=9.0)
    second = build(pipeline)
    assert (second.num_samples, second.num_reused) == (3, 1)
    for path in (
        tmp_path / "store" / keys.make_shard_folder(second.dataset, second.version)
    ).iterdir():
        if path.suffix == ".tar":
            path.unlink()
    accept(pipeline, 1, shift=19.0)
    third = build(pipeline)
    assert (third.num_samples, third.num_reused) == (4, 0)
    (tmp_path / "store" / keys.make_shard_index_key(third.dataset, third.version)).unlink()
    accept(pipeline, 1, shift=29.0)
    assert build(pipeline).num_samples == 5, "a version without its index is passed over"
