"""Adding labelled objects to a folder: what every importer checks and writes.

A model is left out, with its reason, when it shows a held-out theme, repeats a shape, or has no
usable parts. A model that is in the folder already is not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segvigen_model.datasets.scenes import (
    LabelledScene,
    NotAnObject,
    compute_fingerprint,
    write_scene,
)
from segvigen_model.datasets.themes import find_held_out_theme
from segvigen_model.errors import SegvigenError
from segvigen_model.types import AssetMesh


class FolderWriter:
    """Adds objects to one labelled folder.

    Args:
        folder: made when absent.
        seen: fingerprints of shapes to leave out; those taken are added to it.

    Attributes:
        num_taken: objects added.
        left_out: source path -> reason.
    """

    def __init__(self, folder: Path, seen: set[str]) -> None:
        self.folder, self.seen = folder, seen
        self.num_taken = 0
        self.left_out: dict[str, str] = {}
        (folder / "objects").mkdir(parents=True, exist_ok=True)
        self._manifest = folder / "manifest.jsonl"
        lines = self._manifest.read_text().splitlines() if self._manifest.exists() else []
        self._ids = {json.loads(line)["id"] for line in lines}

    def add(
        self,
        about: Mapping[str, str],
        texts: Sequence[str],
        read: Callable[[], AssetMesh],
        label: Callable[[AssetMesh], LabelledScene],
    ) -> None:
        """Add one model, or note why not.

        Args:
            about: for its manifest row; `source_repo` and `source_path` identify it.
            texts: names to be checked for held-out themes, beside those of its geometries.
            read: gives the mesh; may raise `SegvigenError`.
            label: finds the parts; may raise `SegvigenError`.
        """
        source, path = about["source_repo"], about["source_path"]
        digest = hashlib.sha256(path.encode()).hexdigest()[:10]
        name = f"{source.rpartition('/')[2]}_{digest}"
        if name in self._ids:
            return
        try:
            mesh = read()
            theme = find_held_out_theme([*texts, *mesh.geometry_names])
            if theme is not None:
                raise NotAnObject(f"held-out theme {theme}")
            scene = label(mesh)
            mark = _compute_stored_fingerprint(scene.mesh)
            if mark in self.seen:
                raise NotAnObject("the same shape is there already")
            row = write_scene(self.folder, name, scene) | dict(about)
        except SegvigenError as err:
            self.left_out[path] = str(err)
            return
        self.seen.add(mark)
        self._ids.add(name)
        self.num_taken += 1
        with self._manifest.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _compute_stored_fingerprint(mesh: AssetMesh) -> str:
    """The fingerprint that the mesh has when it is read back: files hold single precision."""
    return compute_fingerprint(
        replace(mesh, vertices=mesh.vertices.astype(np.float32).astype(np.float64))
    )
