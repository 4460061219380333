"""Golden parity as tests, and the command that shows it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segvigen_model.parity.__main__ import compare, find_sets, main
from segvigen_model.parity.row import row

REPOSITORY = Path(__file__).resolve().parents[4]
GOLDEN = Path(os.environ.get("SEGVIGEN_SHARED", REPOSITORY.parent / "shared")) / "golden"
NEURAL = (
    "fdg_to_mesh",
    "manifests",
    "rope_time",
    "sampler_full",
    "sampler_interactive",
    "segvigen_full",
    "segvigen_interactive",
    "shape_vae",
    "shape_vae_train",
    "slat_flow",
    "tex_vae",
)
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden data at {GOLDEN}")


@needs_golden
@pytest.mark.parametrize("name", NEURAL)
def test_every_neural_set_is_within_tolerance(name):
    runners = {folder.name: runner for folder, runner in find_sets(GOLDEN)}
    rows = compare(GOLDEN / name, runners[name])
    assert rows
    assert [each for each in rows if not each.ok] == []


@needs_golden
def test_a_changed_output_fails_and_sets_the_exit_code(tmp_path, capsys):
    folder = tmp_path / "rope_time"
    shutil.copytree(GOLDEN / "rope_time", folder)
    arrays = dict(np.load(folder / "outputs.npz"))
    arrays["q32"] = arrays["q32"] + 1e-3
    np.savez(folder / "outputs.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("FAIL")] == ["rope_time/q32"]


@needs_golden
def test_a_renamed_set_is_found_by_the_start_of_its_name(tmp_path, capsys):
    shutil.copytree(GOLDEN / "rope_time", tmp_path / "rope_time_other_seed")
    assert main([str(tmp_path)]) == 0
    assert "rope_time_other_seed/q32" in capsys.readouterr().out


def test_a_broken_set_is_a_failed_row(tmp_path, capsys):
    folder = tmp_path / "slat_flow"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    np.savez(folder / "outputs.npz", y=np.zeros(1))
    assert main([str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_nothing_to_compare_is_an_error(tmp_path):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2


def test_not_a_number_never_passes():
    assert not row("x", float("nan"), 1.0).ok
    assert row("x", 0.0, 0.0).ok
