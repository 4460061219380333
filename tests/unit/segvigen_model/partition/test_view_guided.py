"""The painted view on the surface: what it shows holds, what it hides follows."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import SegmenterConfig
from segvigen_model.coords import fit_frame
from segvigen_model.evaluation.metrics import compute_miou_matched
from segvigen_model.partition.consensus import grow_parts
from segvigen_model.partition.view_guided import (
    HIDDEN,
    count_seen_labels,
    derive_clicks,
    find_map_colors,
    find_unclaimed_parts,
    rasterize_camera_faces,
    rasterize_front_faces,
    select_spread_patches,
)

CONFIG = SegmenterConfig()
GUIDED = CONFIG.guided
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint_faces(faces, labels, colors):
    table = np.array(colors, np.uint8)
    return np.where((faces >= 0)[..., None], table[labels[np.maximum(faces, 0)]], 0).astype("uint8")


def test_the_front_view_shows_the_faces_nearest_to_the_viewer(two_boxes):
    faces = rasterize_front_faces(two_boxes, fit_frame(two_boxes.vertices), 64)
    seen = np.unique(faces[faces >= 0])
    centers = two_boxes.triangles.mean(axis=1)
    normals = np.cross(*np.diff(two_boxes.triangles[seen], axis=1).transpose(1, 0, 2))
    assert (np.abs(normals[:, 2]) > 1e-9).all(), "only faces that face the viewer"
    assert centers[seen, 2].min() > np.median(centers[:, 2])


@pytest.mark.parametrize("shown", [rasterize_front_faces, rasterize_camera_faces])
def test_every_painted_pixel_is_counted_on_its_face(two_boxes, shown):
    frame = fit_frame(two_boxes.vertices)
    faces = shown(two_boxes, frame, 96)
    labels = np.arange(two_boxes.num_faces) % 3
    view = paint_faces(faces, labels, [RED, GREEN, BLUE])
    palette = find_map_colors(view, GUIDED)
    seen = count_seen_labels(faces, view, palette, two_boxes.num_faces, GUIDED.color_tolerance)
    assert seen.sum() == (faces >= 0).sum()
    for face in np.flatnonzero(seen.any(axis=1)):
        assert tuple(palette[seen[face].argmax()]) == (RED, GREEN, BLUE)[labels[face]]


def test_clicks_follow_what_is_seen_and_are_few(table):
    rng = np.random.default_rng(0)
    centers = rng.random((40, 3))
    counts = np.zeros((40, 3))
    counts[:15, 0] = 5
    counts[15:30, 1] = 2
    clicks = derive_clicks(counts, centers, GUIDED)
    assert set(clicks[0][0]) < set(range(15))
    assert set(clicks[0][1]) < set(range(15, 30))
    assert all(len(ids) <= GUIDED.max_clicks for pair in clicks for ids in pair)
    assert len(clicks[2][0]) == 0, "nothing shows the third part"
    assert len(set(select_spread_patches(np.arange(40), centers, np.ones(40), 10))) == 10


def test_what_the_view_shows_holds(table, segmenter):
    mesh, parts = table
    session = segmenter.open(mesh)
    frame = session.encoding.frame
    faces = session.view_faces(128)
    assert np.array_equal(faces, rasterize_front_faces(mesh, frame, 128)), (
        "the tiny model sees from +Z"
    )
    colors = [RED, GREEN, BLUE, (255, 255, 0), (0, 255, 255)]
    view = paint_faces(faces, parts, colors)
    proposal = session.guided(view, num_steps=1).face_labels
    palette = find_map_colors(view, GUIDED)
    faces = session.view_faces(GUIDED.front_pixels)
    seen = count_seen_labels(faces, view, palette, mesh.num_faces, GUIDED.color_tolerance)
    shown = seen.any(axis=1)
    areas = np.ones(shown.sum())
    assert compute_miou_matched(
        proposal[shown], seen.argmax(axis=1)[shown], areas
    ) == pytest.approx(1.0)


def test_a_view_of_nothing_is_refused(table, segmenter):
    mesh, _ = table
    view = np.zeros((64, 64, 3), np.uint8)
    view[0, :] = RED  # above the object
    with pytest.raises(ValueError, match="shows nothing of the asset"):
        segmenter.open(mesh).guided(view, num_steps=1)


def test_what_nobody_painted_and_nobody_claims_is_a_part_of_its_own(table, segmenter):
    mesh, _ = table
    geometry = segmenter.open(mesh).geometry
    superfaces, embedding = geometry.superfaces, geometry.crops.whole.embedding
    group, number = grow_parts(superfaces, embedding.affinity_matrix, CONFIG.merging)
    counts = np.zeros((superfaces.count, 1))
    counts[group == 0] = 3.0
    nothing = np.full((superfaces.count, 1), -9.0)
    own = find_unclaimed_parts(counts, nothing, superfaces, embedding, CONFIG)
    assert (own[group == 0] == HIDDEN).all(), "what is shown is painted"
    assert set(own[group != 0].tolist()) == set(range(number - 1))
    assert (find_unclaimed_parts(counts, -nothing, superfaces, embedding, CONFIG) == HIDDEN).all()
