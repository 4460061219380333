"""Run many mutants and print what became of them.

python -m tests.fuzz --mutants 10000
python -m tests.fuzz --only ply:123 --write mutant.ply
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.mutants import FORMATS, make_mutant, run_mutant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000, help="of all formats together")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--only", help="FORMAT:NUMBER of one mutant")
    parser.add_argument("--write", type=Path, help="write that mutant to a file")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    if options.only:
        name, _, number = options.only.partition(":")
        print(run_mutant(name, int(number)))
        if options.write:
            options.write.write_bytes(make_mutant(name, int(number)).data)
        return 0
    names = options.formats.split(",")
    results: Counter[tuple[str, str]] = Counter()
    faults, slowest = 0, (0.0, "")
    for number in range(options.first, options.first + options.mutants // len(names)):
        for name in names:
            start = time.process_time()
            outcome = run_mutant(name, number)
            slowest = max(slowest, (time.process_time() - start, f"{name}:{number}"))
            column = outcome.result if outcome.result in ("read", "error") else "refused"
            results[name, f"{outcome.meaning} {column}"] += 1
            if outcome.fault:
                faults += 1
                results[name, "faults"] += 1
                print(f"{name}:{number} {outcome}", flush=True)
    print_table(names, results)
    print(f"faults {faults}; slowest {slowest[1]} with {slowest[0]:.2f} s of CPU")
    return int(faults > 0)


def print_table(names: list[str], results: Counter[tuple[str, str]]) -> None:
    columns = [
        *(f"{meaning} {end}" for meaning in ("same", "losing", "damage")
          for end in ("read", "refused")),
        "faults",
    ]  # fmt: skip
    print("| format | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in names:
        print(f"| {name} | " + " | ".join(str(results[name, each]) for each in columns) + " |")


if __name__ == "__main__":
    sys.exit(main())
