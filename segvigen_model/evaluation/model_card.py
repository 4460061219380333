r"""Put measured tables into a model card, so that no number in it is typed by hand.

    python -m segvigen_model.evaluation.model_card --card MODEL_CARD.md \
        --table heldout=heldout.json ...

A JSON file is what `segvigen evaluate --json` wrote, of one regime or of both. The text between
`<!-- table NAME -->` and `<!-- end NAME -->` is replaced; everything else stays as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation.comparison import read_results
from segvigen_model.evaluation.tables import render_markdown


def replace_table(card: str, name: str, text: str) -> str:
    """Replace one table of a card.

    Raises:
        SegvigenError: the card has no place for it.
    """
    start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    place = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(card):
        raise SegvigenError(f"the card has no lines {start} and {end}; add them where it belongs")
    return place.sub(lambda _: f"{start}\n{text.strip()}\n{end}", card)


def fill_card(card: Path, tables: Mapping[str, Path]) -> None:
    """Replace tables of a card file by those of result files."""
    text = card.read_text()
    for name, file in tables.items():
        text = replace_table(text, name, render_markdown(read_results(file)))
    card.write_text(text)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--table", action="append", default=[], help="NAME=FILE.json")
    args = parser.parse_args(arguments)
    wrong = [entry for entry in args.table if "=" not in entry]
    if wrong:
        parser.error(f"--table {wrong[0]!r} is not of the form NAME=FILE.json")
    fill_card(args.card, {name: Path(file) for name, file in (e.split("=", 1) for e in args.table)})


if __name__ == "__main__":
    main()
