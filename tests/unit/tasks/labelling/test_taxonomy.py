from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.labelling.taxonomy import (
    BadTaxonomy,
    Category,
    Taxonomy,
    build_taxonomy,
    check_parents,
    load_taxonomy,
)

CAR = [
    {"id": "car", "name": "Car"},
    {"id": "car.wheel", "name": "Wheel", "parent": "car"},
    {"id": "door"},
]


def test_json_and_toml_report_the_same(tmp_path: Path):
    (tmp_path / "t.json").write_text(json.dumps({"categories": CAR}))
    toml = "".join(
        "[[categories]]\n" + "".join(f'{key} = "{value}"\n' for key, value in entry.items())
        for entry in CAR
    )
    (tmp_path / "t.toml").write_text(toml)
    taxonomy = load_taxonomy(tmp_path / "t.json")
    assert taxonomy == load_taxonomy(tmp_path / "t.toml")
    assert [taxonomy.find_index(name) for name in ("car", "CAR.WHEEL", "door", "boat", "")] == [
        *(0, 1, 2, -1, -1)
    ]
    assert build_taxonomy(taxonomy.to_json()) == taxonomy


@pytest.mark.parametrize(
    ("entries", "reported"),
    [
        ([{"id": "Bad Id"}], "'Bad Id'"),
        (["x"], "entry 0 has id"),
        ([{"id": "a", "colour": "red"}], "id, name and parent only"),
        ([{"id": "a", "name": "x\n"}], "printable"),
        ([{"id": "a"}, {"id": "a"}], "'a' is there twice"),
        ([{"id": "a", "parent": "b"}], "unknown parent 'b'"),
        ([{"id": "a", "parent": "b"}, {"id": "b", "parent": "a"}], "circle"),
        ([{"id": str(number)} for number in range(10_001)], "10001 categories"),
    ],
)
def test_bad_entries_are_reported(entries: list, reported: str):
    with pytest.raises(BadTaxonomy, match=reported):
        build_taxonomy(entries)


@pytest.mark.parametrize(
    ("name", "text", "reported"),
    [
        ("t.json", "{", "cannot read"),
        ("t.toml", "a = [", "cannot read"),
        ("t.json", "{}", "no list"),
    ],
)
def test_bad_files_are_reported(tmp_path: Path, name: str, text: str, reported: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadTaxonomy, match=reported):
        load_taxonomy(tmp_path / name)
    with pytest.raises(BadTaxonomy, match="cannot read"):
        load_taxonomy(tmp_path / "absent.json")


class CountingDict(dict):
    """Counts how often an entry is asked for."""

    num_asked = 0

    def get(self, key, default=None):
        self.num_asked += 1
        return super().get(key, default)


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_line_of_parents_is_followed_once(order: int):
    number = 10_000
    line = [Category(f"c{i}", f"c{i}", f"c{i - 1}" if i else "") for i in range(number)][::order]
    by_id = CountingDict({category.id: category for category in line})
    check_parents(line, by_id)
    assert by_id.num_asked == number - 1
    assert len(build_taxonomy(Taxonomy(tuple(line)).to_json()).categories) == number


def test_a_circle_below_a_long_line_is_found():
    entries = [{"id": f"c{i}", "parent": f"c{(i + 1) % 500}"} for i in range(500)]
    with pytest.raises(BadTaxonomy, match="circle"):
        build_taxonomy([{"id": "below", "parent": "c7"}, *entries])


def test_a_huge_file_is_not_read(tmp_path: Path):
    (tmp_path / "t.json").write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(BadTaxonomy, match="over 4194304 bytes"):
        load_taxonomy(tmp_path / "t.json")
