"""The bench of a large catalogue runs, at a small size, and writes the figures that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "bench" / "bench_scale.py"
FIGURES = (
    *("claim_s", "counts_s", "status_s", "show_s", "pull_poll_s", "shard_plan_s", "scan_s"),
    "peak_mib",
)


def test_the_figures_of_a_small_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    command = [sys.executable, SCRIPT, "--rows", "5000", "--json", file, "--databases", "sqlite"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(file.read_text())["sqlite"]
    assert all(figures[name] > 0 for name in FIGURES), figures
    assert "| scan_s |" in done.stdout
