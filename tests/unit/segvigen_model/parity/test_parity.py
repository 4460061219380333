"""Golden parity as tests, and the command that shows it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segvigen_model.parity import neural
from segvigen_model.parity.__main__ import compare, find_sets, main
from segvigen_model.parity.row import make_row

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


def test_unknown_folders_and_outputs_are_reported(tmp_path, capsys):
    (tmp_path / "holiday_pictures").mkdir()
    (tmp_path / "notes.txt").write_text("no folder")
    rope = tmp_path / "rope_time"
    rope.mkdir()
    coords = np.ones((2, 4), dtype=np.int64)
    (rope / "config.json").write_text("{}")
    np.savez(rope / "inputs.npz", coords=coords, t=np.zeros(1, np.float32))
    cosines_then_sines = np.repeat(np.float32([[1.0, 0.0]]), 128, axis=1)
    np.savez(rope / "outputs.npz", t_sinusoid=cosines_then_sines, extra=np.zeros(1))
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("no set of a known name")] == [
        "holiday_pictures"
    ]
    assert any(line.startswith("rope_time/extra") and "unknown output" in line for line in lines)
    assert lines[-1] == "1 of 1 ok, 2 not compared"


@needs_golden
def test_sets_of_other_sizes_run_on_what_they_hold(tmp_path):
    """One asset instead of two, without gradients, lists or a bfloat16 answer."""
    source, folder = GOLDEN / "slat_flow", tmp_path / "slat_flow_single"
    shutil.copytree(source, folder)
    given, wanted = dict(np.load(source / "inputs.npz")), dict(np.load(source / "outputs.npz"))
    first = given["coords"][:, 0] == 0
    inputs = {key: given[key][first] for key in ("coords", "x_t", "shape")}
    inputs |= {"t": given["t"][:1], "cond": given["cond"][:1]}
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", y=wanted["y_single0"], y_single0=wanted["y_single0"])
    config = json.loads((source / "config.json").read_text())
    del config["grad_norm_sum"]
    (folder / "config.json").write_text(json.dumps(config))
    ((found, runner),) = find_sets(tmp_path)
    rows = {each.name.rpartition("/")[2]: each for each in compare(found, runner)}
    assert rows["y"].ok and not rows["y"].note
    assert rows["y_single0"].ok and not rows["y_single0"].note
    assert rows["y_bf16"].note == rows["adaln"].note == "not in this set"
    assert all(each.ok for each in rows.values())


@needs_golden
def test_a_batch_is_compared_with_its_assets_alone():
    for name in ("segvigen_full", "segvigen_interactive", "shape_vae"):
        runners = {folder.name: runner for folder, runner in find_sets(GOLDEN)}
        (line,) = [
            each
            for each in compare(GOLDEN / name, runners[name])
            if each.name.endswith("batch against alone")
        ]
        assert line.ok and line.tolerance == 1e-5, line


@needs_golden
def test_extraction_runs_twice_and_names_a_grid_that_is_absent(tmp_path):
    runners = {folder.name: runner for folder, runner in find_sets(GOLDEN)}
    rows = compare(GOLDEN / "fdg_to_mesh", runners["fdg_to_mesh"])
    assert all(each.ok for each in rows)
    assert {"fdg_to_mesh/sphere angle faces", "fdg_to_mesh/sphere_angle_f"} <= {
        each.name for each in rows
    }
    shutil.copytree(GOLDEN / "fdg_to_mesh", tmp_path / "fdg_to_mesh_far")
    ((found, runner),) = find_sets(tmp_path)
    failed = [each.name for each in compare(found, runner) if not each.ok]
    assert any("no dual grid of 'sphere' with 14240 voxels" in name for name in failed)


def test_a_broken_spconv_is_reported(monkeypatch):
    def cannot(name):
        raise OSError("libcudart.so not found")

    monkeypatch.setattr(neural.importlib, "import_module", cannot)
    run = neural._run_on_both_backends(lambda folder: [make_row("shape_vae/z", 0.0, 1.0)])
    plain, reported = run(Path("shape_vae"))
    assert plain.ok and not plain.note
    assert reported.note == "spconv cannot be imported (OSError)"


def test_nothing_to_compare_is_an_error(tmp_path):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2


def test_not_a_number_never_passes():
    assert not make_row("x", float("nan"), 1.0).ok
    assert make_row("x", 0.0, 0.0).ok
