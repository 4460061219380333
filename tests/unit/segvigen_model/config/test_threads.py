"""A process computes with one thread unless it is set otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from infra.services import make_refine_spec
from segvigen_model.config.threads import (
    NUM_THREADS,
    VARIABLES,
    describe_threads,
    limit_threads,
    set_thread_variables,
)

COUNT = """
import sys
sys.argv = ["segvigen", "--help"]
from segvigen_model.command.main import main
try:
    main()
except SystemExit:
    pass
import numba, torch
print(torch.get_num_threads(), numba.get_num_threads())
"""


@pytest.mark.parametrize(("given", "wanted"), [({}, "1 1"), ({NUM_THREADS: "2"}, "2 2")])
def test_the_command_computes_with_the_threads_of_the_setting(given, wanted):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core: no second thread to count")
    clean = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env={**clean, **given}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == wanted


def test_what_the_caller_sets_stays():
    environment = {"OMP_NUM_THREADS": "3", NUM_THREADS: "2"}
    set_thread_variables(environment)
    assert environment["OMP_NUM_THREADS"] == "3" and environment["MKL_NUM_THREADS"] == "2"
    assert describe_threads({"OMP_NUM_THREADS": "3"}).startswith("OMP 3, OPENBLAS unset")


def test_services_of_the_stack_get_the_variables(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    spec = make_refine_spec(tmp_path, {})
    assert {spec.base_env[name] for name in VARIABLES} == {"1"}


def test_torch_is_limited_after_its_import():
    import torch

    before = torch.get_num_threads()
    limit_threads(2)
    assert torch.get_num_threads() == 2
    limit_threads(before)
