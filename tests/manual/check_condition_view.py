"""Our condition view against the authors' own picture of their example.

    .venv/bin/python tests/manual/check_condition_view.py DIR

DIR holds `example.glb` and `img.png` of the official repository, which are not ours to ship; hence
by hand. Exits 1 when the pictures differ by more than the known limits of the render.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.rendering.condition_view import render_view

MIN_SILHOUETTE_IOU, MAX_COLOR_ERROR = 0.99, 15.0

folder = Path(sys.argv[1])
ours = render_view(mesh_from_bytes((folder / "example.glb").read_bytes(), ".glb")).astype(int)
theirs = np.asarray(Image.open(folder / "img.png").convert("RGBA")).astype(int)
mine, their = ours[..., 3] > 127, theirs[..., 3] > 127
iou = (mine & their).sum() / (mine | their).sum()
error = np.abs(ours - theirs)[mine & their].mean()
print(f"silhouette IoU {iou:.4f} (>= {MIN_SILHOUETTE_IOU})")
print(f"mean colour error {error:.2f} of 255 (<= {MAX_COLOR_ERROR})")
sys.exit(0 if iou >= MIN_SILHOUETTE_IOU and error <= MAX_COLOR_ERROR else 1)
