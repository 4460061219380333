"""Draw docs/images/loop.png from a finished demo: mesh, proposal, clicks, label set.

    .venv/bin/python docs/make_pictures.py [--home .segvigen] [--assets 4]

Everything shown is what the demo stored: nothing is computed anew. Assets with the most clicks
come first.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from infra.local import LocalStack
from segvigen_model.coords import fit_frame
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh, FloatArray, IntArray
from tasks.catalogue import DONE, AssetRow
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.rendering.shading import SUPERSAMPLING, shade_view
from tasks.rendering.views import (
    HERO_DIRECTION,
    View,
    compute_unit_triangles,
    make_view,
    render_hits,
)
from tasks.workspace import Workspace, open_workspace

TILE = 300
TITLES = ("raw mesh", "proposal", "clicks", "label set")
INK, GROUND = (40, 44, 52), (247, 248, 250)


def main() -> None:
    """Read the demo's stack and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".segvigen"))
    parser.add_argument("--assets", type=int, default=3)
    options = parser.parse_args()
    os.environ.update(LocalStack(options.home).make_environment())
    workspace = open_workspace()
    rows = [draw_asset(workspace, asset) for asset in _find_most_clicked(workspace, options.assets)]
    title = Image.new("RGB", (TILE * len(TITLES), 34), GROUND)
    pen = ImageDraw.Draw(title)
    for column, text in enumerate(TITLES):
        pen.text((TILE * column + TILE / 2, 17), text, INK, anchor="mm", font_size=18)
    picture = np.concatenate([np.asarray(title), *rows])
    target = Path(__file__).parent / "images" / "loop.png"
    target.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).quantize(128).save(target, optimize=True)


def draw_asset(workspace: Workspace, asset: AssetRow) -> np.ndarray:
    """(TILE, 4 * TILE, 3) uint8: one asset on its way."""
    mesh = load_asset_mesh(workspace.store, asset)
    first = workspace.catalogue.list_proposals(asset.asset_id)[0]
    label_set = workspace.catalogue.labels.get_latest(asset.asset_id)
    if label_set is None:
        raise SystemExit(f"asset {asset.name} has no label set; let the demo finish first")
    before = load_proposal(workspace.store, first).face_labels
    after = load_label_set(workspace.store, label_set).face_labels
    clicks = [
        (click.x, click.y, click.z)
        for click in workspace.catalogue.reviews.list_clicks(asset.asset_id)
    ]
    raw = Image.fromarray(_shade_mesh(mesh, np.zeros(mesh.num_faces, np.int32))).convert("L")
    tiles = [np.asarray(raw.convert("RGB")), _shade_mesh(mesh, before)]
    tiles += [_draw_dots(mesh, tiles[1], np.array(clicks)), _shade_mesh(mesh, after)]
    return np.concatenate(tiles, axis=1)


def _choose_view(mesh: AssetMesh) -> View:
    corners = compute_unit_triangles(mesh, fit_frame(mesh.used_vertices)).reshape(-1, 3)
    return make_view(np.array(HERO_DIRECTION), corners)


def _shade_mesh(mesh: AssetMesh, labels: IntArray) -> np.ndarray:
    normals = np.repeat(measure_surface(mesh).normals[:, None], 3, axis=1)
    triangles, view = (
        compute_unit_triangles(mesh, fit_frame(mesh.used_vertices)),
        _choose_view(mesh),
    )
    hits = render_hits(triangles, view, TILE * SUPERSAMPLING)
    return shade_view(hits, view, labels, normals)


def _draw_dots(mesh: AssetMesh, tile: np.ndarray, points: FloatArray) -> np.ndarray:
    """Clicks as dots, also those on the far side."""
    image = Image.fromarray(tile)
    pen = ImageDraw.Draw(image)
    frame = fit_frame(mesh.used_vertices)
    if len(points):
        for column, row, _ in _choose_view(mesh).project(
            (points - frame.center) * frame.scale, TILE
        ):
            box = (column - 6, row - 6, column + 6, row + 6)
            pen.ellipse(box, fill=(255, 255, 255), outline=(0, 0, 0), width=2)
    return np.asarray(image)


def _find_most_clicked(workspace: Workspace, count: int) -> list[AssetRow]:
    done = [asset for asset in workspace.catalogue.list_assets() if asset.state in DONE]
    clicks = workspace.catalogue.reviews.list_clicks
    return sorted(done, key=lambda a: (-len(clicks(a.asset_id)), a.asset_id))[:count]


if __name__ == "__main__":
    main()
