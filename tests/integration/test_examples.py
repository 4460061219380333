"""The notebooks of the documentation run from beginning to end, and show what they say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from segvigen_model import load_mesh

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "docs/examples"

pytestmark = pytest.mark.slow


def texts(book: nbformat.NotebookNode) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def count_pictures(book: nbformat.NotebookNode) -> int:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def read_scores(text: str) -> dict[str, float]:
    return {name: float(iou) for name, iou in re.findall(r"(\w+): .*mean IoU ([\d.]+)", text)}


def test_clicks_correct_the_proposal_of_the_example(tmp_path, monkeypatch):
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    stored = nbformat.read(EXAMPLES / "segment_and_click.ipynb", as_version=4)
    book = nbformat.read(EXAMPLES / "segment_and_click.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()
    scores = read_scores(texts(book))
    assert scores["refined"] > 0.95 and scores["refined"] > scores["proposed"], scores
    assert scores == pytest.approx(read_scores(texts(stored)), abs=0.02), "execute it in place"
    assert count_pictures(book) == count_pictures(stored) == 5
    labels = np.load(tmp_path / "robot-labels.npz")["face_labels"]
    parts = load_mesh(tmp_path / "robot-parts.glb")
    assert parts.num_faces == len(labels) and len(parts.geometry_names) == labels.max() + 1
