from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from infra.viewer import build as viewer_build
from infra.viewer.build import SCRIPT, SOURCE, BuildFailed, build_script, find_node
from segvigen_model.errors import MissingExtra


@pytest.fixture
def source(tmp_path):
    """A copy of the sources without the packages."""
    leave_out = shutil.ignore_patterns("node_modules", "__pycache__")
    return shutil.copytree(SOURCE, tmp_path / "viewer", ignore=leave_out)


@pytest.fixture
def no_npm(monkeypatch):
    def refuse(command, *_):
        raise AssertionError(f"{command} was run")

    monkeypatch.setattr(viewer_build, "_run_command", refuse)


def test_the_bundle_of_this_checkout_is_made_from_its_sources(no_npm):
    assert build_script() is False, f"{SCRIPT.name} is older than its sources; run `make setup`"


def test_a_changed_source_or_lock_file_is_built_again(source, no_npm):
    script = source / "out.js"
    script.write_bytes(b"1" + viewer_build._hash_sources(source))
    assert build_script(source=source, target=script) is False
    for changed in (source / "src" / "pick.js", source / "package-lock.json"):
        text = changed.read_text()
        changed.write_text(text + "\n")
        with pytest.raises(AssertionError, match="npm"):
            build_script(source=source, target=script)
        changed.write_text(text)


def test_the_lock_file_pins_by_hash_and_names_no_host():
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    packages = {name: reported for name, reported in lock["packages"].items() if name}
    assert {"node_modules/three", "node_modules/esbuild"} <= set(packages)
    assert all(reported["integrity"].startswith("sha512-") for reported in packages.values())
    assert "://" not in json.dumps(lock) and "resolved" not in json.dumps(lock)


def test_the_bundle_fits_into_a_script_element_and_evaluates_nothing():
    script = SCRIPT.read_text(encoding="utf-8")
    assert len(script) < viewer_build.MAX_SCRIPT_BYTES
    assert "</script" not in script.lower() and "<!--" not in script
    assert "eval(" not in script and "new Function" not in script
    assert "@license" in script and "SPDX-License-Identifier: MIT" in script


@pytest.mark.parametrize(("path", "name"), [("/nowhere", "pip"), (None, None)])
def test_a_node_is_found_and_runs(path, name):
    node = find_node(path)
    assert name in (None, node.name)
    reported = subprocess.run([node.node, "--version"], capture_output=True, text=True, check=True)
    assert int(reported.stdout.strip().lstrip("v").split(".")[0]) >= viewer_build.MIN_NODE


def test_too_old_a_node_is_passed_over(tmp_path):
    for name, output in (("node", "v12.0.0"), ("npm", "6")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {output}\n")
        program.chmod(0o755)
    assert find_node(str(tmp_path)).name == "pip"


def test_without_any_node_the_hint_is_reported(monkeypatch):
    monkeypatch.setattr(viewer_build, "WHEEL", "no_such_package")
    with pytest.raises(MissingExtra, match=r"Node to build the 3D viewer.*\[review\]"):
        find_node("/nowhere")


def test_a_failed_step_reports_its_last_output(tmp_path):
    node = find_node()
    with pytest.raises(
        BuildFailed, match=r"ended with 3: no such package; then python -m infra\.viewer"
    ):
        viewer_build._run_command(["sh", "-c", "echo no such package >&2; exit 3"], tmp_path, node)
    with pytest.raises(BuildFailed, match="absent could not be run"):
        viewer_build._run_command([str(tmp_path / "absent")], tmp_path, node)


def test_a_bundle_that_would_break_the_page_is_refused(monkeypatch):
    with pytest.raises(BuildFailed, match="would end its script element"):
        viewer_build._check_script(b"x = '</SCRIPT>'")
    monkeypatch.setattr(viewer_build, "MAX_SCRIPT_BYTES", 3)
    with pytest.raises(BuildFailed, match="4 bytes > 3; import less"):
        viewer_build._check_script(b"four")
