"""The chaos run's command: see docs/reliability.md.

python -m tests.chaos --assets 200 --kills 100 --seed 1 [--postgresql] --json FILE
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import ChaosPlan, run_chaos


def main() -> int:
    """Exit code 0 when nothing is lost, doubled or false."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--assets", type=int, default=200, help="inputs (default 200)")
    parser.add_argument("--kills", type=int, default=100, help="kill -9 (default 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgresql", action="store_true", help="catalogue on PostgreSQL")
    parser.add_argument("--no-worker", action="store_true", help="without a Prefect worker")
    parser.add_argument("--home", type=Path, help="services' home, kept and used again")
    parser.add_argument("--folder", type=Path, help="of this run; kept when it fails")
    parser.add_argument("--minutes", type=float, default=60.0, help="give up after so long")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a good run too")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # stops the services
    folder = given.folder or Path(tempfile.mkdtemp(prefix="segvigen-chaos-"))
    plan = ChaosPlan(
        given.assets, given.kills, given.seed, given.postgresql, not given.no_worker, given.minutes
    )
    report = run_chaos(plan, folder, given.home, is_kept=given.keep)
    print(report.render())
    if given.json:
        given.json.write_text(report.to_json())
    if report.problems:
        print(f"FAILED with seed {given.seed}; everything is kept in {folder}", file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
