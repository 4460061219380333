"""Pictures of unseen objects beside the truth: full proposal, one click, five clicks.

    python -m segvigen_model.evaluation.contact_sheet --parts PACK --out sheet.png
    python -m segvigen_model.evaluation.contact_sheet --parts PACK --out worst.png --of 60 --worst 6

Objects, parts and clicks are drawn by seed from held-out sources and categories, half of them as
they are and half fused; nobody chooses by eye. --worst keeps the lowest scores of a larger draw.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from segvigen_model.coords import mesh_to_unit
from segvigen_model.datasets.labelled_folder import LabelledObject, choose_rows, wrap_labelled_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.datasets.synthetic_pack import FIRST_SEED
from segvigen_model.datasets.voxel_samples import list_procedural_categories, load_labelled
from segvigen_model.errors import SegvigenError
from segvigen_model.evaluation import pictures
from segvigen_model.evaluation.metrics import (
    compute_mask_iou,
    compute_miou_matched,
)
from segvigen_model.evaluation.simulated_clicks import draw_surface_clicks
from segvigen_model.mesh.strays import fit_mesh_frame
from segvigen_model.rendering.rasterizer import Camera
from segvigen_model.segmenter import Segmenter
from segvigen_model.surface.overlap import measure_overlap
from segvigen_model.types import AssetMesh, BoolArray, ByteArray, FloatArray, IntArray

COUNTS = (1, 5)
PROCEDURAL_EVERY = 4  # every so many objects one is made in code
MIN_PART_SHARE = 0.02  # of the surface: smaller parts could not be seen in a picture
CELL, CAPTION, GAP, HEAD = 148, 17, 24, 40  # pixels
RIGHT, MISSING, TOO_MUCH, OTHER = (60, 160, 90), (50, 110, 220), (215, 50, 40), (205, 205, 205)
LEGEND = (
    "truth | full proposal (grey: no partner in the truth) | one click | five clicks:  "
    "green = right, blue = missing, red = too much, dots = clicks in sight"
)
INK = (30, 34, 40)
NUM_INKS = 128  # of the PNG's palette

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """One object, asked in full mode and by clicks on one part.

    Attributes:
        item: the object and its truth.
        surface: "as-is" or "fused".
        part: (F,) bool, the part that was clicked.
        points: (5, 3) clicks, unit frame.
        proposal: (F,) int full labels.
        predictions: (F,) bool per entry of COUNTS.
        scores: one-to-one mIoU of the proposal, then IoU per entry of COUNTS.
    """

    item: LabelledObject
    surface: str
    part: BoolArray
    points: FloatArray
    proposal: IntArray
    predictions: tuple[BoolArray, ...]
    scores: tuple[float, ...]


def draw_candidates(
    folder: Path, rng: np.random.Generator
) -> Iterator[tuple[str, AssetMesh, IntArray]]:
    """Unseen objects in random order; none comes twice."""
    rows = choose_rows(folder, "heldout", None)
    categories = list_procedural_categories(split="heldout")
    for number, index in enumerate(rng.permutation(len(rows))):
        if number % PROCEDURAL_EVERY == PROCEDURAL_EVERY - 1:
            category = categories[int(rng.integers(len(categories)))]
            made = make_asset(category, FIRST_SEED + number)
            yield f"made in code: {category}", made.mesh, made.face_labels
        try:
            mesh, labels = load_labelled(folder, rows[index])
        except SegvigenError as err:
            log.warning("object=%s refused=%s", rows[index]["id"], err)
            continue
        yield str(rows[index]["id"]), mesh, labels


def run_trials(
    folder: Path, segmenter: Segmenter, surface: str, count: int, seed: int
) -> Iterator[Trial]:
    """Ask about `count` unseen objects; those that cannot be used are replaced."""
    rng = np.random.default_rng([seed, surface == "fused"])
    found = 0
    for name, mesh, labels in draw_candidates(folder, rng):
        if found == count:
            return
        try:
            made = run_trial(
                wrap_labelled_mesh(name, mesh, labels, surface), segmenter, surface, rng
            )
        except SegvigenError as err:
            log.warning("object=%s refused=%s", name, err)
            continue
        found += 1
        yield made


def run_trial(
    item: LabelledObject, segmenter: Segmenter, surface: str, rng: np.random.Generator
) -> Trial:
    """Ask for a full proposal, and for one part by one and by five clicks."""
    parts = item.list_part_masks()
    shares = np.array([item.areas[mask].sum() for mask in parts]) / item.areas.sum()
    visible = np.flatnonzero(shares >= min(MIN_PART_SHARE, shares.max()))
    part = parts[int(rng.choice(visible))]
    clicks = draw_surface_clicks(item.surface, part, max(COUNTS), rng)
    session = segmenter.open(item.mesh)
    proposal = session.propose().face_labels
    predictions = tuple(session.click(clicks[:n]) > 0.5 for n in COUNTS)
    points = mesh_to_unit(np.array([c.xyz for c in clicks]), fit_mesh_frame(item.mesh))
    full = compute_miou_matched(proposal, item.labels, item.areas)
    ious = (compute_mask_iou(prediction, part, item.areas) for prediction in predictions)
    return Trial(item, surface, part, points, proposal, predictions, (full, *ious))


def match_labels(proposal: IntArray, item: LabelledObject) -> IntArray:
    """Give proposed parts their true partners' ids, so that colours agree; -1 without one."""
    overlap = measure_overlap(item.labels, proposal, item.areas).drop_empty_rows()
    partner = np.full(len(overlap.columns), -1)
    rows, columns = overlap.match_parts()
    is_real = overlap.iou[rows, columns] > 0
    partner[columns[is_real]] = rows[is_real]
    return partner[np.searchsorted(overlap.columns, proposal)]


def rank_true_labels(item: LabelledObject) -> IntArray:
    """(F,) rank of the true part among those with area; -1 elsewhere."""
    ranks = np.full(len(item.labels), -1)
    for rank, mask in enumerate(item.list_part_masks()):
        ranks[mask] = rank
    return ranks


def color_prediction(prediction: BoolArray, part: BoolArray) -> ByteArray:
    """(F, 3) uint8: right, missing, too much, or none of the part's business."""
    kind = prediction.astype(int) + 2 * part
    colors: ByteArray = np.array([OTHER, TOO_MUCH, MISSING, RIGHT], np.uint8)[kind]
    return colors


def draw_block(trial: Trial, cell: int) -> Image.Image:
    """Four pictures in a row with their numbers."""
    corners = pictures.compute_unit_triangles(trial.item.mesh)
    camera = pictures.choose_view(corners, trial.part, trial.points[0])
    colors = [
        pictures.color_parts(rank_true_labels(trial.item)),
        pictures.color_parts(match_labels(trial.proposal, trial.item)),
        *(color_prediction(prediction, trial.part) for prediction in trial.predictions),
    ]
    name = "".join(c if c.isprintable() else "?" for c in trial.item.name)
    name = name if len(name) <= cell // 7 else name[: cell // 7 - 1] + "…"
    full, *ious = trial.scores
    captions = [name, f"full mIoU {full:.2f}"]
    captions += [
        f"{n} click{'s' * (n > 1)}: {iou:.2f}" for n, iou in zip(COUNTS, ious, strict=True)
    ]
    made = Image.new("RGB", (4 * cell, cell + CAPTION), pictures.GROUND)
    pen = ImageDraw.Draw(made)
    for column, (paint, caption) in enumerate(zip(colors, captions, strict=True)):
        picture = pictures.shade_mesh(corners, paint, camera, cell)
        made.paste(Image.fromarray(picture), (column * cell, 0))
        pen.text(((column + 0.5) * cell, cell + 2), caption, INK, anchor="ma", font_size=12)
        if column >= 2:
            draw_dots(pen, trial.points[: COUNTS[column - 2]], corners, camera, (column, cell))
    return made


def draw_dots(
    pen: ImageDraw.ImageDraw,
    points: FloatArray,
    corners: FloatArray,
    camera: Camera,
    place: tuple[int, int],
) -> None:
    """Mark the clicks that are in sight; `place` is the cell's column and side."""
    column, cell = place
    for x, y in pictures.project_visible_points(points, corners, camera, cell):
        center = (x + column * cell, y)
        pen.circle(center, 4, fill="white", outline="black", width=2)


def draw_sheet(columns: Sequence[tuple[str, Sequence[Trial]]], cell: int = CELL) -> Image.Image:
    """Columns of blocks, each under its heading.

    Args:
        columns: heading and trials.
        cell: side of one picture in pixels.
    """
    num_rows = max(len(made) for _, made in columns)
    width = len(columns) * (4 * cell + GAP) - GAP
    canvas = Image.new("RGB", (width, HEAD + num_rows * (cell + CAPTION)), pictures.GROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((4, 2), LEGEND, INK, font_size=13)
    for column, (heading, made) in enumerate(columns):
        left = column * (4 * cell + GAP)
        pen.text((left + 4, 20), heading, INK, font_size=15)
        for row, each in enumerate(tqdm(made, desc=f"draw {heading[:12]}", leave=False)):
            canvas.paste(draw_block(each, cell), (left, HEAD + row * (cell + CAPTION)))
    return canvas


def format_heading(surface: str, made: Sequence[Trial]) -> str:
    """A column's name and its means."""
    means = np.mean([each.scores for each in made], axis=0)
    return f"{surface}: mean full {means[0]:.2f}, 1 click {means[1]:.2f}, 5 clicks {means[2]:.2f}"


def sort_worst_first(made: Sequence[Trial]) -> list[Trial]:
    """Sorted by the mean of the numbers that are shown."""
    return sorted(made, key=lambda each: float(np.mean(each.scores)))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="labelled pack folder")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--of", type=int, default=24, help="objects to ask about")
    parser.add_argument("--worst", type=int, help="show only so many, the worst ones")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    segmenter = Segmenter.from_checkpoint(args.checkpoint)
    made = {
        surface: list(
            tqdm(
                run_trials(args.parts, segmenter, surface, args.of // 2, args.seed),
                total=args.of // 2,
                desc=f"ask {surface}",
            )
        )
        for surface in ("as-is", "fused")
    }
    columns = [(format_heading(surface, each), each) for surface, each in made.items()]
    if args.worst:
        ranked = sort_worst_first([each for kind in made.values() for each in kind])[: args.worst]
        half = (len(ranked) + 1) // 2
        title = f"the {len(ranked)} worst of {args.of}, by the mean of the three numbers"
        columns = [(title, ranked[:half]), ("", ranked[half:])]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(columns).quantize(NUM_INKS, dither=Image.Dither.NONE).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
