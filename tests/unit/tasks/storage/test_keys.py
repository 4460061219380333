"""Object keys: the documented layout, and no way out of a folder."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.storage import keys

ID = "ab" * 32


def test_layout_is_the_documented_one() -> None:
    assert keys.make_asset_source_key(ID, ".GLB") == f"assets/{ID}/source.glb"
    assert keys.make_asset_json_key(ID) == f"assets/{ID}/asset.json"
    assert keys.make_encoding_key("enc", ID) == f"encodings/enc/{ID}.safetensors"
    assert keys.make_proposal_key(ID, 2, "abc") == f"proposals/{ID}/2-abc.npz"
    assert keys.make_review_sheet_key(ID, 0, ID) == f"review/{ID}/0-{ID[:8]}/sheet.png"
    assert keys.make_label_set_key(ID, "l1") == f"labels/{ID}/l1.npz"
    assert keys.make_shard_key("parts", "v1", 3) == "shards/parts/v1/shard-000003.tar"
    assert keys.make_review_key(ID, 1) == f"{ID}:1"


@settings(max_examples=40)
@given(st.text(max_size=30))
def test_no_text_climbs_out(text: str) -> None:
    for build in (
        lambda: keys.make_asset_json_key(text),
        lambda: keys.make_asset_source_key(ID, text),
    ):
        try:
            key = build()
        except keys.BadKey:
            continue
        assert ".." not in key.split("/")
        assert key.count("/") == 2
        assert keys.check_key(key) == key


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/./b", "a\\b", "a\nb", "a/"])
def test_bad_keys_are_refused(key: str) -> None:
    with pytest.raises(keys.BadKey):
        keys.check_key(key)


def test_negative_round_is_refused() -> None:
    with pytest.raises(keys.BadKey, match="negative"):
        keys.make_review_sheet_key(ID, -1, ID)
