"""Measure the structure of one or more checkouts and print a Markdown table, one column each.

    python docs/measure_house.py [CHECKOUT ...]

A room is a top-level package; `segvigen_model` counts as one room per package or module in it.
An arrow is one room that imports another; a level is a room above all that it imports. Only the
Python code that runs is read, as text: nothing of a checkout is imported.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("segvigen_model", "tasks", "flows", "deployments", "infra")
LIBRARY = "segvigen_model"
MAX_PARAMETERS = 5
CONFIGURED_ROOMS = ("surface", "interactive", "partition", "segmenter", "session")
FLAT_ROOMS = (  # the same files where a checkout has no packages yet
    *("geometry", "patches", "atoms", "agglomeration", "graph_cut", "rays", "segments", "transfer"),
    *("patch_network", "reading", "looks", "evidence", "mask_proposals", "mask_measures"),
    *("mask_choice", "survey", "votes", "hierarchy", "edits", "refinement", "guide"),
)
# Words of the project's former dialect that no identifier may carry (docs/glossary.md).
FORMER_WORDS = re.compile(
    r"(?:^|_)(?:told|said|heard|looks|survey|votes|bonds|terrain|hollows|odds|atoms|ways|skin|"
    r"crumbs?|wish(?:es)?|grant|aside|settled|verbs?|spelled|fenced|doubts|cure|"
    r"complain|lamps|lit|strangers|grown|placed|together(?:ness)?|surroundings|measures|promis\w*"
    r")(?:_|$)"
)


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file: its dotted name, room, text and syntax tree."""

    name: str
    room: str
    num_lines: int
    tree: ast.Module


def read_modules(checkout: Path) -> Iterator[Module]:
    """Parse every Python file of the packages."""
    for package in PACKAGES:
        for path in sorted((checkout / package).rglob("*.py")):
            parts = path.relative_to(checkout).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            inside = len(parts) > 1 and parts[0] == LIBRARY
            room = "/".join(parts[:2]) if inside else parts[0]
            text = path.read_text(encoding="utf-8")
            yield Module(name, room, text.count("\n"), ast.parse(text))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, with `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_arrows(modules: list[Module], key: str) -> set[tuple[str, str]]:
    """Pairs (importer, imported) of rooms or modules; `key` is "room" or "name"."""
    by_name = {module.name: module for module in modules}
    arrows = set()
    for module in modules:
        for name in imported_names(module.tree):
            target = by_name.get(name) or by_name.get(name.rpartition(".")[0])
            if target and getattr(target, key) != getattr(module, key):
                arrows.add((getattr(module, key), getattr(target, key)))
    return arrows


def count_levels(arrows: set[tuple[str, str]]) -> tuple[int, int]:
    """Levels of the graph without its circles, and how many nodes stand in a circle."""
    below: dict[str, set[str]] = {}
    for source, target in arrows:
        below.setdefault(source, set()).add(target)
        below.setdefault(target, set())
    reach = {node: _reachable(node, below) for node in below}
    circular = {node for node in below if node in reach[node]}
    level: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in level:
            level[node] = 1 + max(
                (height(each) for each in below[node] if node not in reach[each]), default=0
            )
        return level[node]

    return max(map(height, below), default=1), len(circular)


def _reachable(node: str, below: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(below[node])
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(below[each])
    return found


def count_wide_functions(modules: list[Module]) -> int:
    """Functions with more parameters than the house allows, self and cls left out."""
    count = 0
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [each.arg for each in every if each.arg not in ("self", "cls")]
                count += len(names) > MAX_PARAMETERS
    return count


def count_constants(modules: list[Module]) -> int:
    """Numbers, tuples and tables of numbers at module level of the segmenter's rooms."""
    count = 0
    for module in modules:
        if module.room.removeprefix(f"{LIBRARY}/") not in (*CONFIGURED_ROOMS, *FLAT_ROOMS):
            continue
        for node in module.tree.body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            numbers = [
                each
                for each in ast.walk(value or ast.Pass())
                if isinstance(each, ast.Constant) and isinstance(each.value, (int, float))
            ]
            count += bool(numbers)
    return count


def count_former_words(modules: list[Module]) -> int:
    """Different identifiers, per module, that carry a word of the former dialect."""
    count = 0
    for module in modules:
        names = set()
        for node in ast.walk(module.tree):
            for field in ("id", "name", "attr", "arg"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    names.add(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower())
        count += sum(bool(FORMER_WORDS.search(name)) for name in names)
    return count


def measure(checkout: Path) -> dict[str, str]:
    """Row title -> value of one checkout."""
    modules = list(read_modules(checkout))
    rooms, files = find_arrows(modules, "room"), find_arrows(modules, "name")
    levels, in_circle = count_levels(rooms)
    file_levels, file_circle = count_levels(files)
    sizes: dict[str, tuple[int, int]] = {}
    for module in modules:
        count, lines = sizes.get(module.room, (0, 0))
        sizes[module.room] = (count + 1, lines + module.num_lines)
    rows = {
        "rooms": str(len(sizes)),
        "levels of rooms": str(levels),
        "arrows between rooms": str(len(rooms)),
        "rooms in a circle of imports": str(in_circle),
        "levels of files": str(file_levels),
        "files in a circle of imports": str(file_circle),
        f"functions over {MAX_PARAMETERS} parameters": str(count_wide_functions(modules)),
        "constants of the segmenter at module level": str(count_constants(modules)),
        "identifiers with a word of the former dialect": str(count_former_words(modules)),
    }
    for room, (count, lines) in sorted(sizes.items(), key=lambda each: -each[1][1]):
        rows[f"`{room}`: files, lines"] = f"{count}, {lines:,}"
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    options = parser.parse_args()
    columns = [measure(checkout) for checkout in options.checkouts]
    titles = list(dict.fromkeys(title for column in columns for title in column))
    print("| | " + " | ".join(checkout.resolve().name for checkout in options.checkouts) + " |")  # noqa: T201
    print("|---" * (len(columns) + 1) + "|")  # noqa: T201
    for title in titles:
        print(f"| {title} | " + " | ".join(each.get(title, "-") for each in columns) + " |")  # noqa: T201


if __name__ == "__main__":
    main()
