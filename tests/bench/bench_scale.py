"""A catalogue of many rows on SQLite and on a real PostgreSQL: seconds and memory of each poll.

`python tests/bench/bench_scale.py --rows 1000000 --json FILE [--against CHECKOUT]`. Every figure
is measured in a process of its own. docs/scale.md explains them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from scale_rows import fill_postgresql, fill_sqlite

REPOSITORY = Path(__file__).resolve().parents[2]
MEASURES = Path(__file__).with_name("scale_measures.py")
NAMES = ("counts_s", "status_s", "show_s", "pull_poll_s", "shard_plan_s", "scan_s")
NUM_CLAIMERS = 8
START_S = 60.0


class NotMeasured(Exception):
    """A measurement took too long or failed."""


def main() -> None:
    """Fill, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--against", type=Path, help="an older checkout, measured side by side")
    parser.add_argument("--databases", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--limit-s", type=float, default=600.0, help="of one measurement")
    chosen = parser.parse_args()
    checkouts = {"now": REPOSITORY}
    if chosen.against is not None:
        checkouts["before"] = chosen.against.resolve()
    found: dict[str, dict[str, Any]] = {name: {} for name in checkouts}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-scale-"))
        servers = {"sqlite": f"sqlite:///{folder}"}
        if "postgresql" in chosen.databases:
            url = stack.enter_context(run_postgresql())
            servers |= {} if url is None else {"postgresql": url}
        for kind in [name for name in chosen.databases if name in servers]:
            for name, checkout in checkouts.items():
                with a_catalogue(servers[kind], checkout, chosen.rows) as url:
                    found[name][kind] = measure(url, checkout, chosen.rows, chosen.limit_s)
    print(make_table(found, chosen.rows))
    if chosen.json is not None:
        written = {**found["now"], "rows": chosen.rows}
        written |= {"before": found["before"]} if "before" in found else {}
        chosen.json.write_text(json.dumps(written, indent=2) + "\n")


@contextmanager
def a_catalogue(server: str, checkout: Path, rows: int) -> Iterator[str]:
    """A catalogue that a checkout's code has made, filled; gone afterwards."""
    name = f"b{uuid4().hex}"
    url = f"{server.rpartition('/')[0]}/{name}"
    if server.startswith("sqlite"):
        url = f"{server}/{name}.db"
    else:
        execute(server, f"CREATE DATABASE {name}")
    environment = make_environment(url, checkout)
    make = "import sys; from tasks.catalogue import Catalogue; Catalogue(sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, url], env=environment, cwd=checkout, check=True)
    begin = time.perf_counter()
    if server.startswith("sqlite"):
        fill_sqlite(url.removeprefix("sqlite:///"), rows)
    else:
        fill_postgresql(url, rows)
    print(f"{rows} rows in {time.perf_counter() - begin:.0f} s: {checkout}", file=sys.stderr)
    try:
        yield url
    finally:
        if server.startswith("sqlite"):
            for file in Path(url.removeprefix("sqlite:///")).parent.glob(f"{name}.db*"):
                file.unlink()
        else:
            execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def measure(url: str, checkout: Path, rows: int, limit_s: float) -> dict[str, Any]:
    """All figures of one catalogue; None where a measurement did not end in time."""
    figures: dict[str, Any] = {}
    peaks: dict[str, float] = {}
    for name in NAMES:
        command = [sys.executable, str(MEASURES), name, str(rows)]
        options: dict[str, Any] = {"env": make_environment(url, checkout), "cwd": checkout}
        try:
            done = subprocess.run(
                command, **options, capture_output=True, text=True, timeout=limit_s, check=True
            )
        except subprocess.TimeoutExpired:
            figures[name] = None
            continue
        except subprocess.CalledProcessError as err:
            raise NotMeasured(f"{name} of {checkout}: {err.stderr[-2000:]}") from err
        reported = json.loads(done.stdout.splitlines()[-1])
        figures[name], peaks[name] = round(reported["seconds"], 4), round(reported["peak_mib"], 1)
        print(f"  {name} {figures[name]} s, {peaks[name]} MiB", file=sys.stderr)
    figures |= measure_claims(url, checkout, rows)
    figures["peak_mib"] = max(mib for name, mib in peaks.items() if name != "scan_s")
    figures["peaks_mib"] = peaks
    return figures


def measure_claims(url: str, checkout: Path, rows: int) -> dict[str, float]:
    """Seconds for a claim of 20 (mean over all) and assets claimed in a second, 8 processes."""
    command = [sys.executable, str(MEASURES), "claim_s", str(rows)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    options = {"env": make_environment(url, checkout), "cwd": checkout, **pipes}
    claimers = [subprocess.Popen(command, **options) for _ in range(NUM_CLAIMERS)]
    try:
        for claimer in claimers:
            claimer.stdout.readline()
        begin = time.perf_counter()
        for claimer in claimers:
            send(claimer)
        reported = [json.loads(claimer.stdout.readline()) for claimer in claimers]
        seconds = time.perf_counter() - begin
        for claimer in claimers:
            send(claimer)
    finally:
        for claimer in claimers:
            claimer.communicate()
    ids = [name for each in reported for name in each["ids"]]
    assert len(ids) == len(set(ids)), "an asset was claimed twice"
    times = [one for each in reported for one in each["times"]]
    return {
        "claim_s": round(statistics.fmean(times), 4),
        "claimed_per_s": round(len(ids) / seconds, 1),
    }


def send(process: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def make_environment(url: str, checkout: Path) -> dict[str, str]:
    """Environment of a measuring process: no settings but the catalogue's URL."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGVIGEN_")}
    return {**kept, "SEGVIGEN_CATALOGUE_URL": url, "PYTHONPATH": str(checkout)}


@contextmanager
def run_postgresql() -> Iterator[str | None]:
    """A server of our own with the durability of a real one; None without its programs."""
    sys.path.insert(0, str(REPOSITORY))
    from tests.integration.tasks.catalogue import conftest as server_of_tests

    programs, owner = server_of_tests._programs(), server_of_tests._other_user()
    if programs is None:
        print("no PostgreSQL server programs (initdb): left out", file=sys.stderr)
        yield None
        return
    as_user: dict[str, Any] = {"cwd": "/"}
    with tempfile.TemporaryDirectory(prefix="bench-scale-pg-") as name:
        if owner is not None:
            as_user |= {"user": owner[0], "group": owner[1]}
            os.chown(name, *owner)
        data, port = Path(name) / "data", server_of_tests._free_port()
        init = [programs / "initdb", "-D", data, "-U", "me", "-A", "trust", "-E", "UTF8"]
        subprocess.run(init, check=True, capture_output=True, **as_user)
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", name]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([programs / "postgres", "-D", data, *options], **quiet, **as_user)
        try:
            url = f"postgresql://me@127.0.0.1:{port}/postgres"
            wait_for_server(url)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=START_S)


def wait_for_server(url: str) -> None:
    """Return when the server answers."""
    import psycopg

    end = time.monotonic() + START_S
    while True:
        try:
            execute(url, "SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def execute(url: str, statement: str) -> None:
    """Run one statement outside of a transaction."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def make_table(found: dict[str, dict[str, Any]], rows: int) -> str:
    """Format all figures as Markdown."""
    columns = [(kind, name) for kind in found["now"] for name in found]
    lines = [f"| {rows} rows | {' | '.join(' '.join(column) for column in columns)} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for figure in ("claim_s", "claimed_per_s", *NAMES, "peak_mib"):
        cells = [found[name][kind][figure] for kind, name in columns]
        shown = ["not in time" if cell is None else f"{cell:g}" for cell in cells]
        lines.append(f"| {figure} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
