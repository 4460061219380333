"""Seconds per call of the segmenter on meshes made in code.

    python tests/bench/bench_segmenter.py [--checkpoint NAME]

Prints one table; asserts nothing. "tiny" is the untrained test model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from segvigen_model.checkpoint import build, load
from segvigen_model.procedural import make_asset
from segvigen_model.segmenter import Segmenter
from segvigen_model.training.fuse import fused_skin
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
    return {"loose parts": made.mesh, "one skin": fused_skin(made.mesh, made.face_labels)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="default")
    name = parser.parse_args().checkpoint
    segmenter = Segmenter(build("tiny") if name == "tiny" else load(name))
    print(
        f"{'mesh':12s} {'faces':>7s} {'encode':>8s} {'geometry':>9s} {'propose':>8s} {'click':>7s}"
    )
    for kind, mesh in meshes().items():
        segmenter.encode(mesh)  # compiles
        encoding = segmenter.encode(mesh)
        proposal = segmenter.propose(mesh, encoding)
        click = Click(0, mesh.triangles[0].mean(axis=0), ClickKind.NEW_PART)
        row = [
            timed(lambda mesh=mesh: segmenter.encode(mesh)),
            timed(lambda mesh=mesh, e=encoding: Segmenter(segmenter.bundle).geometry(mesh, e)),
            timed(lambda mesh=mesh, e=encoding: segmenter.propose(mesh, e), 2),
            timed(
                lambda mesh=mesh, e=encoding, p=proposal, c=click: segmenter.refine(
                    mesh, e, p.face_labels.astype(np.int32), [c]
                )
            ),
        ]
        print(f"{kind:12s} {mesh.num_faces:7d} " + " ".join(f"{each:8.3f}" for each in row))


if __name__ == "__main__":
    main()
