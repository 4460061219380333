"""Which clicks count: this request's, earlier ones, the draft's, and not those taken back."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.live.click_history import (
    ClickHistory,
    Draft,
    read_drafts,
    select_command_lines,
    select_keypoints,
)
from tasks.live.preview import encode_face_runs, make_echo_id

NOW = 1_000_000.0


def click(name: str, label: str, *, is_smart: bool = True) -> dict:
    row = {"id": name, "from_name": "click", "value": {"keypointlabels": [label], "x": 1.0}}
    return {**row, "is_positive": True} if is_smart else row


def draft(*rows: dict, user: str = "ann", saved_s: float = NOW) -> Draft:
    return Draft(user, saved_s, tuple(rows))


def names(rows) -> list[str]:
    return [row["id"] for row in rows]


@pytest.fixture
def book() -> ClickHistory:
    return ClickHistory(max_places=3, max_clicks=5, clock=lambda: NOW)


def test_clicks_of_other_labels_are_remembered_in_order(book):
    book.update_clicks("t", [click("a", "part 0")], [])
    assert names(book.update_clicks("t", [click("b", "part 1")], [])) == ["a", "b"]
    assert names(book.update_clicks("u", [click("c", "part 1")], [])) == ["c"], "another task"


def test_a_deleted_click_is_forgotten_and_an_accepted_one_stays(book):
    book.update_clicks("t", [click("a", "part 0"), click("b", "part 0")], [])
    assert names(book.update_clicks("t", [click("b", "part 0")], [])) == ["b"], "a was deleted"
    # After an accepted preview the editor sends only what is new.
    assert names(book.update_clicks("t", [click("c", "part 0")], [])) == ["b", "c"]


def test_a_restart_takes_up_the_draft(book):
    saved = draft(click("a", "part 0"), click("e", "part 1", is_smart=False))
    found = book.update_clicks("t", [click("n", "part 1")], [saved])
    assert names(found) == ["a", "e", "n"]


def test_a_deleted_smart_click_does_not_come_back_from_an_old_draft(book):
    saved = draft(click("gone", "part 1"))
    assert names(book.update_clicks("t", [click("n", "part 1")], [saved])) == ["n"]


def test_an_echo_in_the_draft_is_not_a_second_click(book):
    book.update_clicks("t", [click("a", "part 0")], [])
    saved = draft(click(make_echo_id("a"), "part 0", is_smart=False))
    assert names(book.update_clicks("t", [click("b", "part 1")], [saved])) == ["a", "b"]


def test_what_a_later_draft_lacks_is_gone(book):
    book.update_clicks("t", [click("a", "part 0")], [])
    fresh = draft(saved_s=NOW + 2)
    assert names(book.update_clicks("t", [click("b", "part 1")], [fresh])) == ["a", "b"], "may lag"
    later = draft(click("b", "part 1"), saved_s=NOW + 60)
    assert names(book.update_clicks("t", [click("c", "part 2")], [later])) == ["b", "c"]


def test_two_reviewers_do_not_share_clicks(book):
    ann, bob = draft(click("a", "part 0")), draft(click("b", "part 0"), user="bob")
    both = [ann, bob]
    assert names(book.update_clicks("t", [click("a", "part 0")], both)) == ["a"]
    assert names(book.update_clicks("t", [click("b", "part 0")], both)) == ["b"]
    assert names(book.update_clicks("t", [click("x", "part 3")], both)) == ["x"], (
        "nobody's: no guess"
    )


def test_command_lines_come_from_the_newest_draft_of_whoever_clicked():
    def commands(text: str) -> dict:
        return {"id": "l", "from_name": "verbs", "value": {"text": [text]}, "type": "textarea"}

    def task(*drafts: tuple[str, str, list]) -> dict:
        return {"drafts": [{"user": u, "updated_at": t, "result": r} for u, t, r in drafts]}

    a, b = click("a", "part 0"), click("b", "part 0")
    old = ("ann", "2026-01-01T00:00:00Z", [a, commands("merge 0 1")])
    new = ("ann", "2026-01-01T00:01:00Z", [a, commands("split 2"), 7])
    bob = ("bob", "2026-01-01T00:02:00Z", [b, commands("merge 4 5")])

    def found(sent: list, *drafts: tuple[str, str, list]) -> list[str]:
        rows = select_command_lines(sent, read_drafts(task(*drafts)))
        return [text for row in rows for text in row["value"]["text"]]

    assert found([a], new, old) == ["split 2"], "not the newest"
    assert found([a], old, new, bob) == ["split 2"], "another reviewer's"
    assert found([b], old, new, bob) == ["merge 4 5"]
    assert found([click("x", "part 3")], new, bob) == [], "nobody's: no guess"
    assert found([a]) == []


def test_memory_is_bounded(book):
    for number in range(9):
        book.update_clicks(f"t{number}", [click("a", "part 0")], [])
    other = [click("b", "part 1")]
    assert names(book.update_clicks("t8", other, [])) == ["a", "b"]
    assert names(book.update_clicks("t7", other, [])) == ["a", "b"]
    assert names(book.update_clicks("t0", other, [])) == ["b"], "forgotten long ago"
    for number in range(9):
        found = book.update_clicks("t", [click(f"c{number}", f"part {number}")], [])
    assert names(found) == [f"c{number}" for number in range(5)], "the pull keeps the first"


def test_untrusted_results_and_drafts():
    rows = [1, None, {}, click("a", "part 0"), {**click("b", "x"), "id": 5}, {"from_name": "click"}]
    assert names(select_keypoints(rows)) == ["a"]
    assert select_keypoints("text") == ()
    odd = [3, {"user": None, "updated_at": "soon", "result": {}}]
    assert read_drafts({"drafts": odd}) == (Draft("", 0.0, ()),)
    assert read_drafts({"drafts": "no"}) == ()
    stamp = datetime.fromtimestamp(NOW, UTC).isoformat().replace("+00:00", "Z")
    (found,) = read_drafts({"drafts": [{"user": "ann", "updated_at": stamp, "result": []}]})
    assert found.saved_s == NOW


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 60)))
def test_face_runs_name_exactly_the_faces(faces):
    runs = encode_face_runs(np.array(sorted(faces), np.int64))
    found, end = set(), 0
    for gap, length in zip(runs[::2], runs[1::2], strict=True):
        found |= set(range(end + gap, end + gap + length))
        end += gap + length
    assert found == faces
