"""`python -m segvigen_model.parity DIR`: compare with every golden set in DIR, print a table.

Exit code 0 when all quantities are within tolerance, 1 when one is not, 2 when DIR holds no set.
Folders that are no known set, and quantities that a set lacks, are reported and do not fail.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from segvigen_model.parity import ovoxel
from segvigen_model.parity.neural import Runner, find_runner
from segvigen_model.parity.row import ParityRow, make_broken_row, make_left_out_row

VOXEL_PREFIXES = ("ovoxel", "segvigen_assets")
MESH_PREFIX = "fdg"


def find_sets(root: Path) -> Iterator[tuple[Path, Runner]]:
    """Yield the golden sets at or directly below `root`, in name order."""
    for folder in _list_folders(root):
        runner = _find_runner(folder)
        if runner is not None:
            yield folder, runner


def _list_folders(root: Path) -> list[Path]:
    return [root, *sorted(path for path in root.iterdir() if path.is_dir())]


def _find_runner(folder: Path) -> Runner | None:
    if folder.name.startswith(VOXEL_PREFIXES):
        return ovoxel.compare_ovoxel
    neural = find_runner(folder)
    if neural is not None and folder.name.startswith(MESH_PREFIX):
        # Two extractions: of O-Voxels, and of decoded voxels with gradients.
        return lambda path: [*ovoxel.compare_ovoxel(path), *neural(path)]
    return neural


def find_unknown_folders(root: Path) -> list[ParityRow]:
    """Report the folders below `root` that are no golden set of a known name."""
    if _find_runner(root) is not None:
        return []
    return [
        make_left_out_row(folder.name, "no set of a known name")
        for folder in _list_folders(root)[1:]
        if _find_runner(folder) is None
    ]


def compare(folder: Path, runner: Runner) -> list[ParityRow]:
    """Run one set; a set that breaks is a failed row, so that the others are still shown."""
    try:
        return runner(folder)
    except Exception as err:
        return [make_broken_row(folder.name, err)]


def render_table(rows: list[ParityRow]) -> str:
    """Lay rows out as text."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'set':<{width}}  {'worst':>9}  {'tolerance':>9}  ok"]
    for row in rows:
        if row.note:
            lines.append(f"{row.name:<{width}}  {'-':>9}  {'-':>9}  {row.note}")
            continue
        verdict = "ok" if row.ok else "FAIL"
        lines.append(f"{row.name:<{width}}  {row.worst:9.2e}  {row.tolerance:9.2e}  {verdict}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segvigen_model.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with golden sets")
    root: Path = parser.parse_args(arguments).folder.resolve()
    if not root.is_dir():
        sys.stderr.write(f"no folder {root}\n")
        return 2
    rows = [row for folder, runner in find_sets(root) for row in compare(folder, runner)]
    compared = [row for row in rows if not row.note]
    rows += find_unknown_folders(root)
    if rows:
        sys.stdout.write(f"{render_table(rows)}\n")
    if not compared:
        sys.stderr.write(f"no golden set in {root}\n")
        return 2
    failed = sum(not row.ok for row in compared)
    num_left_out = len(rows) - len(compared)
    sys.stdout.write(
        f"{len(compared) - failed} of {len(compared)} ok, {num_left_out} not compared\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
