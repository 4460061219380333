from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.labelling.edit_commands import (
    MAX_COMMANDS,
    MAX_LINE_CHARS,
    EditCommand,
    EditCommandKind,
    parse_commands,
)
from tasks.labelling.taxonomy import build_taxonomy

TAXONOMY = build_taxonomy(
    [{"id": "wheel", "name": "Wheel"}, {"id": "wheel/rim", "parent": "wheel"}]
)


def parse_line(line: str) -> EditCommand | str:
    commands, problems = parse_commands([line], 6, TAXONOMY)
    assert len(commands) + len(problems) == 1
    return commands[0] if commands else problems[0]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("merge 1 2", EditCommand(EditCommandKind.MERGE, (1, 2))),
        ("Merge part 3 + part 5, 0", EditCommand(EditCommandKind.MERGE, (3, 5, 0))),
        ("  MERGE parts 1 and #2 and 2.", EditCommand(EditCommandKind.MERGE, (1, 2))),
        ("merge: part1+part2", EditCommand(EditCommandKind.MERGE, (1, 2))),
        ("split 4", EditCommand(EditCommandKind.SPLIT, (4,))),
        ("Split Part 4 into 3 pieces", EditCommand(EditCommandKind.SPLIT, (4,), count=3)),
        ("name 2 left  wing", EditCommand(EditCommandKind.NAME, (2,), "left wing")),
        (
            "name part 2: 3rd <b>wing</b>",
            EditCommand(EditCommandKind.NAME, (2,), "3rd <b>wing</b>"),
        ),
        ("category 0 Wheel/Rim", EditCommand(EditCommandKind.CATEGORY, (0,), "wheel/rim")),
    ],
)
def test_lines_are_understood(line: str, wanted: EditCommand):
    assert parse_line(line) == wanted
    assert parse_line(wanted.line) == wanted


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("fuse 1 2", "'fuse' is no verb"),
        ("merge1 2", "'merge1' is no verb"),
        ("42", "'42' is no verb"),
        ("merge 1", "1 different part"),
        ("merge 2 2", "1 different part"),
        ("merge 1 into 2", "'into 2' is no part number"),
        ("merge 1 9", "part 9 was not shown; choose 0 to 5"),
        ("split", "no part number after split"),
        ("split 6", "part 6 was not shown"),
        ("split 1 into 1", "1 pieces are not possible; ask for 2 to 32"),
        ("split 1 into 99999", "99999 pieces are not possible"),
        ("split 1 please", "'please' after the part"),
        ("name 1", "no readable name for part 1"),
        ("name 1 a\x07b", "no readable name"),
        ("name 12kg", "no part number after name"),
        ("name 1 " + "a" * 65, "65 characters > 64"),
        ("category 1 engine", "'engine' is not in the taxonomy"),
        ("name 1 " + "a" * MAX_LINE_CHARS, "write less"),
    ],
)
def test_what_is_not_understood_is_reported(line: str, reported: str):
    problem = parse_line(line)
    assert isinstance(problem, str)
    assert reported in problem


def test_category_needs_a_taxonomy():
    assert "SEGVIGEN_REVIEW_TAXONOMY" in parse_commands(["category 1 wheel"], 6)[1][0]


def test_lines_keep_their_number_and_result():
    lines = ["merge 0 1\n\nsplit 2", "", "name 3 leg", "split 2"]
    commands, problems = parse_commands(lines, 6, None, ["a", "b", "c", "d"])
    assert [(command.number, command.result_id) for command in commands] == [
        (0, "a"),
        (1, "a"),
        (2, "c"),
    ]
    assert problems == ("verb 'split 2' dropped: part 2 is split twice; say it once",)


def test_too_many_lines_are_cut_and_reported():
    commands, problems = parse_commands(["name 0 a"] * (MAX_COMMANDS + 5), 6)
    assert len(commands) == MAX_COMMANDS
    assert "200th cut" in problems[0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40) | st.from_regex(r"(merge|split|name) .{0,20}"), max_size=5))
def test_any_text_is_a_edit_command_or_a_problem(lines: list[str]):
    commands, problems = parse_commands(lines, 3)
    filled = sum(bool(line.strip()) for entry in lines for line in entry.splitlines())
    assert len(commands) + len(problems) == filled
    assert all(0 <= part < 3 for command in commands for part in command.parts)
