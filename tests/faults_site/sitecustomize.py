"""Python imports this at its start where the folder is in PYTHONPATH: see `tests/faults.py`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

if os.environ.get("SEGVIGEN_TEST_LIES"):
    spec = importlib.util.spec_from_file_location(
        "segvigen_test_faults", Path(__file__).parents[1] / "faults.py"
    )
    assert spec is not None and spec.loader is not None
    faults = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["segvigen_test_faults"] = faults  # dataclasses look their module up
    try:
        spec.loader.exec_module(faults)
    except ModuleNotFoundError:  # a process of another environment, e.g. Label Studio's
        pass
    else:
        faults.install_from_environment()
