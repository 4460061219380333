"""Which file is meant by a name: rescues are reported, nothing outside the root is given."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.mesh.formats.side_search import find_side_file, fold_name, list_places


class Names:
    """A listing out of paths."""

    def __init__(self, *paths: str) -> None:
        self.files = set(paths)

    def list_names(self, folder: str) -> Sequence[str]:
        start = f"{folder}/" if folder else ""
        inside = [path[len(start) :] for path in self.files if path.startswith(start)]
        return sorted({path.partition("/")[0] for path in inside})

    def is_file(self, path: str) -> bool:
        return path in self.files


@pytest.mark.parametrize(
    ("files", "folder", "name", "path", "how"),
    [
        (["o/t.png"], "", "t.png", "o/t.png", ""),
        (["o/m/t.png", "o/t.png"], "m", "t.png", "o/m/t.png", ""),
        (["o/t.png"], "m", "t.png", "o/t.png", ""),
        (["o/tex/t.png"], "m", "../tex/t.png", "o/tex/t.png", ""),
        (["o/t.png"], "", "./a/../t.png", "o/t.png", ""),
        (["o/My Tex.PNG"], "", "my tex.png", "o/My Tex.PNG", "in another case"),
        (["o/Tex/T.png", "o/tex/x"], "", "TEX/t.PNG", "o/Tex/T.png", "in another case"),
        (["o/stra\u00dfe.png"], "", "STRASSE.png", "o/stra\u00dfe.png", "in another case"),
        (["o/le\u0301.png"], "", "l\u00e9.png", "o/le\u0301.png", "in another case"),
        (["o/A.png", "o/a.png"], "", "a.png", "o/a.png", ""),
        (["o/A.png", "o/a.png"], "", "a.PNG", "o/A.png", "in another case"),
        (["o/t.png"], "", "C:/models/t.png", "o/t.png", "by its base name in '.'"),
        (["o/t.png"], "", "/models/t.png", "o/t.png", "by its base name in '.'"),
        (["o/t.png"], "", "../../t.png", "o/t.png", "by its base name in '.'"),
        (["o/t.png"], "", "https://x.test/t.png", "o/t.png", "by its base name in '.'"),
        (["o/Textures/t.png"], "", "t.png", "o/Textures/t.png", "by its base name in 'Textures'"),
        (["o/m/maps/t.png"], "m", "t.png", "o/m/maps/t.png", "by its base name in 'm/maps'"),
        (["o/images/T.png"], "", "x/t.png", "o/images/T.png", "by its base name, in another case"),
        (["t.png"], "", "t.png", None, ""),
        (["p/t.png", "od.png"], "", "../p/t.png", None, ""),
        (["o/other/t.png"], "", "t.png", None, ""),
        (["o/t.png/inside"], "", "t.png", None, ""),
        (["o/..", "o/t"], "", "..", None, ""),
        (["o/t.png"], "", "", None, ""),
    ],
)
def test_what_a_name_stands_for(
    files: list[str], folder: str, name: str, path: str | None, how: str
) -> None:
    found = find_side_file(Names(*files), "o", folder, name)
    assert (found and found.path, found.how if found else "") == (path, how)


def test_the_root_may_be_the_bucket() -> None:
    names = Names("t.png", "textures/u.png")
    assert find_side_file(names, "", "", "t.png").path == "t.png"
    assert find_side_file(names, "", "", "../u.png").path == "textures/u.png"


NAME = st.text(st.sampled_from("aA./\\:~\u00df\u0130\u2024\uff0f"), max_size=12)


@given(
    files=st.lists(NAME, max_size=6),
    folder=st.sampled_from(["", "a", "a/A"]),
    name=NAME,
)
@settings(max_examples=300, deadline=None)
def test_nothing_outside_is_given(files: list[str], folder: str, name: str) -> None:
    names = Names(*files, *(f"o/{each}" for each in files), "secret", "oo/a")
    found = find_side_file(names, "o", folder, name)
    if found is not None:
        assert found.path.startswith("o/") and found.path in names.files
        assert ".." not in found.path.split("/")
    assert all(place.startswith("o/") for place in list_places("o", folder, name))


def test_folding_makes_no_slash_or_dot() -> None:
    for code in range(0x110000):
        if 0xD800 <= code <= 0xDFFF or chr(code) in "/.\\:\0":
            continue
        assert not set(fold_name(chr(code))) & set("/.\\:\0"), hex(code)


@pytest.mark.parametrize(
    ("folder", "name", "places"),
    [
        ("mats", "red.png", ["o/mats/red.png", "o/red.png"]),
        ("", "red.png", ["o/red.png"]),
        ("", "C:/x/red.png", ["o/red.png"]),
        ("", "..", []),
    ],
)
def test_where_it_would_be_found(folder: str, name: str, places: list[str]) -> None:
    assert list_places("o", folder, name) == places
