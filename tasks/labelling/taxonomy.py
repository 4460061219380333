"""Names that parts may have: a tree of categories from a JSON or TOML file of the reader's own.

The file holds a list `categories` of {id, name, parent}; `parent` may be absent. The order in the
file is the order of the semantic ids, so append to a file that is in use and never reorder it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segvigen_model.errors import SegvigenError
from tasks.settings import ReviewSettings

MAX_CATEGORIES = 10_000
MAX_NAME_CHARS = 64
MAX_FILE_BYTES = 4 * 2**20  # 10,000 entries of the longest names and ids
_ID = re.compile(r"[a-z0-9][a-z0-9._/-]{0,63}")
_FIELDS = frozenset({"id", "name", "parent"})


class BadTaxonomy(SegvigenError):
    """A taxonomy file cannot be used; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Category:
    """One entry: `id` is what is stored, `name` is for people, `parent` is an id or ""."""

    id: str
    name: str
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """All categories in the order of the file; index = semantic id."""

    categories: tuple[Category, ...]
    _index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, int] = {}
        for number, category in enumerate(self.categories):
            index.setdefault(category.id, number)
        object.__setattr__(self, "_index", index)

    def find_index(self, category_id: str) -> int:
        """Semantic id of a category id, upper case tolerated; -1 when it is unknown or empty."""
        return self._index.get(category_id.casefold(), -1)

    def find(self, category_id: str) -> Category | None:
        """The category of an id, or None."""
        index = self.find_index(category_id)
        return self.categories[index] if index >= 0 else None

    def to_json(self) -> list[dict[str, str]]:
        """The categories as plain values; `build_taxonomy` reads them back."""
        return [{"id": c.id, "name": c.name, "parent": c.parent} for c in self.categories]


def load_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy from a `.json` or `.toml` file.

    Raises:
        BadTaxonomy: the file cannot be read or breaks a rule.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadTaxonomy(f"taxonomy {path.name} has over {MAX_FILE_BYTES} bytes; cut it")
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as err:
        raise BadTaxonomy(f"cannot read taxonomy {path.name}: {err}; give JSON or TOML") from err
    entries = document.get("categories") if isinstance(document, Mapping) else document
    if not isinstance(entries, list):
        raise BadTaxonomy(f"taxonomy {path.name} has no list `categories`; add one")
    return build_taxonomy(entries)


def configured_taxonomy(review: ReviewSettings) -> Taxonomy | None:
    """The taxonomy that the settings name; None when they name none.

    Raises:
        BadTaxonomy: as `load_taxonomy`.
    """
    return None if review.taxonomy is None else load_taxonomy(review.taxonomy)


def build_taxonomy(entries: Sequence[Any]) -> Taxonomy:
    """Check entries {id, name, parent} and make a taxonomy of them.

    Raises:
        BadTaxonomy: an id is malformed or double, a parent is unknown, or parents go in a circle.
    """
    if len(entries) > MAX_CATEGORIES:
        raise BadTaxonomy(f"taxonomy has {len(entries)} categories > {MAX_CATEGORIES}; cut it")
    taxonomy = Taxonomy(
        tuple(_parse_category(number, entry) for number, entry in enumerate(entries))
    )
    counts = Counter(category.id for category in taxonomy.categories)
    doubles = [each for each, count in counts.items() if count > 1]
    if doubles:
        raise BadTaxonomy(f"taxonomy id {doubles[0]!r} is there twice; make ids unique")
    by_id = {category.id: category for category in taxonomy.categories}
    check_parents(taxonomy.categories, by_id)
    return taxonomy


def _parse_category(number: int, entry: Any) -> Category:
    fields = dict(entry) if isinstance(entry, Mapping) else {}
    category_id, parent = fields.get("id"), fields.get("parent") or ""
    if not isinstance(category_id, str) or not _ID.fullmatch(category_id):
        raise BadTaxonomy(
            f"taxonomy entry {number} has id {str(category_id)[:40]!r}; "
            "give 1 to 64 of a-z 0-9 . _ / -"
        )
    name = fields.get("name", category_id)
    if set(fields) - _FIELDS or not isinstance(parent, str):
        raise BadTaxonomy(
            f"taxonomy entry {category_id!r} may hold id, name and parent only, as text"
        )
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME_CHARS:
        raise BadTaxonomy(
            f"taxonomy entry {category_id!r} has name {str(name)[:40]!r}; give 1 to "
            f"{MAX_NAME_CHARS} printable characters"
        )
    return Category(category_id, name, parent)


def check_parents(categories: Iterable[Category], by_id: Mapping[str, Category]) -> None:
    """Follow parents up to a root; each category is looked up at most twice.

    Args:
        categories: all of them.
        by_id: the same by id.

    Raises:
        BadTaxonomy: a parent is unknown, or parents go in a circle.
    """
    sound: set[str] = set()  # ids whose line to the root is known to end
    for category in categories:
        line, at = {category.id: None}, category
        while at.parent and at.id not in sound:
            parent = by_id.get(at.parent)
            if parent is None:
                raise BadTaxonomy(
                    f"taxonomy entry {at.id!r} has unknown parent {at.parent!r}; add it"
                )
            if parent.id in line:
                raise BadTaxonomy(f"taxonomy parents of {parent.id!r} go in a circle; break it")
            line[parent.id] = None
            at = parent
        sound.update(line)
