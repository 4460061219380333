"""Seconds per call of the segmenter on meshes made in code.

    python tests/bench/bench_segmenter.py [--checkpoint NAME]

Prints one table; asserts nothing. "tiny" is the untrained test model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from segvigen_model.checkpoints.loading import load_model
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.model.bundle import build_model
from segvigen_model.segmenter import Segmenter
from segvigen_model.types import AssetMesh, Click, ClickKind


def timed(call: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def meshes() -> dict[str, AssetMesh]:
    made = make_asset("robot", 3)
    return {"loose parts": made.mesh, "one skin": fuse_mesh(made.mesh, made.face_labels)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="default")
    name = parser.parse_args().checkpoint
    segmenter = Segmenter(build_model("tiny") if name == "tiny" else load_model(name))
    columns = ("encode", "geometry", "propose", "again", "click", "again")
    print(f"{'mesh':12s} {'faces':>7s} " + " ".join(f"{name:>8s}" for name in columns))
    for kind, mesh in meshes().items():
        segmenter.encode(mesh)  # compiles
        row = [timed(lambda mesh=mesh: segmenter.encode(mesh)), *calls(segmenter, mesh)]
        print(f"{kind:12s} {mesh.num_faces:7d} " + " ".join(f"{each:8.3f}" for each in row))


def calls(segmenter: Segmenter, mesh: AssetMesh) -> list[float]:
    """Seconds: geometry, a first proposal, another seed, clicks at new places, one of them again.

    A session keeps what it has computed, so the first call and the next differ.
    """
    session = segmenter.open(mesh)
    proposal = session.propose()
    firsts = []
    for _ in range(3):
        fresh = segmenter.open(mesh, session.encoding)
        firsts.append((timed(fresh.prepare, 1), timed(fresh.propose, 1)))
    labels = proposal.face_labels.astype(np.int32)
    middles = mesh.triangles.mean(axis=1)
    faces = np.linspace(0, mesh.num_faces - 1, 5).astype(int)
    clicks = [Click(int(face), middles[face], ClickKind.NEW_PART) for face in faces]
    return [
        *(min(each) for each in zip(*firsts, strict=True)),
        timed(lambda: session.propose(seed=1), 2),
        float(np.median([timed(lambda c=c: session.refine(labels, [c]), 1) for c in clicks])),
        timed(lambda: session.refine(labels, clicks[-1:])),
    ]


if __name__ == "__main__":
    main()
