"""`python -m segvigen_model.parity DIR`: compare with every golden set in DIR, print a table.

Exit code 0 when all quantities are within tolerance, 1 when one is not, 2 when DIR holds no set.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from segvigen_model.parity.neural import Runner, runner_for
from segvigen_model.parity.row import ParityRow

VOXEL_PREFIXES = ("ovoxel", "fdg", "segvigen_assets")


def find_sets(root: Path) -> Iterator[tuple[Path, Runner]]:
    """Yield the golden sets at or directly below `root`, in name order."""
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        runner = _voxel_runner(folder) or runner_for(folder)
        if runner is not None:
            yield folder, runner


def _voxel_runner(folder: Path) -> Runner | None:
    if not folder.name.startswith(VOXEL_PREFIXES):
        return None
    if importlib.util.find_spec("segvigen_model.parity.ovoxel") is None:
        return None
    module = importlib.import_module("segvigen_model.parity.ovoxel")
    runner: Runner = module.run
    return runner


def compare(folder: Path, runner: Runner) -> list[ParityRow]:
    """Run one set; a set that breaks is a failed row, so that the others are still shown."""
    try:
        return runner(folder)
    except Exception as err:
        broken = f"{folder.name}: {type(err).__name__}: {err}".splitlines()[0]
        return [ParityRow(broken, float("inf"), 0.0, False)]


def table(rows: list[ParityRow]) -> str:
    """Lay rows out as text."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'set':<{width}}  {'worst':>9}  {'tolerance':>9}  ok"]
    for row in rows:
        verdict = "ok" if row.ok else "FAIL"
        lines.append(f"{row.name:<{width}}  {row.worst:9.2e}  {row.tolerance:9.2e}  {verdict}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segvigen_model.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with golden sets")
    root: Path = parser.parse_args(arguments).folder
    if not root.is_dir():
        sys.stderr.write(f"no folder {root}\n")
        return 2
    rows = [row for folder, runner in find_sets(root) for row in compare(folder, runner)]
    if not rows:
        sys.stderr.write(f"no golden set in {root}\n")
        return 2
    failed = sum(not row.ok for row in rows)
    sys.stdout.write(f"{table(rows)}\n{len(rows) - failed} of {len(rows)} ok\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
