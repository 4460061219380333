"""Damaged blobs are read rightly or refused with our errors, in bounded memory and time.

SEGVIGEN_TEST_MUTANTS and SEGVIGEN_TEST_SEED make the run longer (docs/reliability.md: 5,000).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
NUM_MUTANTS = 500


def test_every_mutant_is_read_rightly_or_refused_with_our_error() -> None:
    count = int(os.environ.get("SEGVIGEN_TEST_MUTANTS", NUM_MUTANTS))
    seed = os.environ.get("SEGVIGEN_TEST_SEED", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.blob_fuzz", seed, str(count)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    by_reader = report["by_reader"]
    assert report["raw"] == {}
    assert report["believed_by_hash"] == 0, "a checked read takes no damaged blob"
    assert sum(sum(kinds.values()) for kinds in by_reader.values()) == count
    never = [name for name, kinds in by_reader.items() if not kinds.get("refused")]
    assert never == [], "a reader that refuses nothing looks at nothing"
