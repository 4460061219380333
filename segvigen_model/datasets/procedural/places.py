"""Buildings and plants: each function lists the parts of one random thing (Y up)."""

# ruff: noqa: RUF005 (numpy point + offset list is arithmetic here, not concatenation)
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural.builder import Builder, make_rotation

UPRIGHT = make_rotation((1, 0, 0), np.pi / 2)


def make_house(b: Builder) -> None:
    """Walls, roof, door, windows, chimney, maybe an annex or porch."""
    w, h, d = b.draw_uniform(0.7, 1.1), b.draw_uniform(0.35, 0.7), b.draw_uniform(0.6, 0.9)
    b.add_box("walls_0", (0, h / 2, 0), (w, h, d))
    rise, eave = b.draw_uniform(0.2, 0.45), w / 2 * 1.12
    if b.draw_chance(0.6):
        b.add_plate("roof_0", [[-eave, 0], [eave, 0], [0, -rise]], d * 1.1, (0, h, 0), rot=UPRIGHT)
    else:
        outline = [[-eave, -d * 0.56], [eave, -d * 0.56], [eave, d * 0.56], [-eave, d * 0.56]]
        b.add_plate("roof_0", outline, rise, (0, h + rise / 2, 0), taper=b.draw_uniform(0.05, 0.5))
    b.add_box("door_0", (b.draw_uniform(-0.1, 0.1), 0.14, d / 2), (0.16, 0.28, 0.04))
    for i, s in enumerate((-1, 1)):
        b.add_box(f"window_{i}", (s * w * 0.33, h * 0.6, d / 2), (0.14, 0.14, 0.04))
        if b.draw_chance(0.5):
            b.add_box(f"sidewindow_{i}", (s * w / 2, h * 0.6, 0), (0.04, 0.14, 0.14))
    if b.draw_chance(0.6):
        b.add_box("chimney_0", (w * 0.27, h + rise * 0.7, -d * 0.2), (0.12, rise * 1.3, 0.12))
    if b.draw_chance(0.4):
        b.add_box("annex_0", (w * 0.72, h * 0.35, 0), (w * 0.45, h * 0.7, d * 0.6))


def make_castle(b: Builder) -> None:
    """Keep, corner towers, roofs or battlements, gate, flag."""
    w, h = b.draw_uniform(0.7, 1.0), b.draw_uniform(0.35, 0.55)
    b.add_box("keep_0", (0, h / 2, 0), (w, h, w))
    tall, r, pointed = h * b.draw_uniform(1.2, 1.8), b.draw_uniform(0.12, 0.18), b.draw_chance(0.6)
    for i, (sx, sz) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1))):
        at = np.array([sx * w / 2, 0, sz * w / 2])
        b.add_rod(f"tower_{i}", at, at + [0, tall, 0], r)
        if pointed:
            b.add_rod(f"roof_{i}", at + [0, tall, 0], at + [0, tall + 0.3, 0], r * 1.2, 0.005)
        else:
            b.add_rod(f"crown_{i}", at + [0, tall, 0], at + [0, tall + 0.08, 0], r * 1.25)
    b.add_box("gate_0", (0, h * 0.3, w / 2), (0.24, h * 0.6, 0.06))
    if b.draw_chance(0.5):
        b.add_box("hall_0", (0, h + 0.12, 0), (w * 0.5, 0.24, w * 0.5))
        b.add_rod("flagpole_0", (0, h + 0.24, 0), (0, h + 0.7, 0), 0.015)
        b.add_box("flag_0", (0.11, h + 0.62, 0), (0.2, 0.13, 0.01))


def make_windmill(b: Builder) -> None:
    """Tower, cap, axle, four sails, door."""
    h = b.draw_uniform(0.7, 1.0)
    b.add_rod(
        "tower_0",
        (0, 0, 0),
        (0, h, 0),
        b.draw_uniform(0.26, 0.34),
        b.draw_uniform(0.16, 0.22),
        b.draw_integer(6, 16),
    )
    b.add_lathe("cap_0", [(0.24, h), (0.18, h + 0.12), (0, h + 0.2)])
    b.add_rod("axle_0", (0, h + 0.03, 0.1), (0, h + 0.03, 0.34), 0.03)
    start = b.draw_uniform(0, 1.5)
    for i in range(count := b.draw_integer(3, 5)):
        a = start + i / count * 2 * np.pi
        at = (0.3 * np.cos(a), h + 0.03 + 0.3 * np.sin(a), 0.33)
        b.add_box(
            f"sail_{i}",
            at,
            (0.56, b.draw_uniform(0.1, 0.16), 0.015),
            rot=make_rotation((0, 0, 1), a),
        )
    b.add_box("door_0", (0, 0.12, 0.28), (0.14, 0.24, 0.06))


def make_tree(b: Builder) -> None:
    """Trunk, branches, crowns (balls or stacked cones)."""
    h = b.draw_uniform(0.4, 0.7)
    b.add_rod("trunk_0", (0, 0, 0), (0, h, 0), b.draw_uniform(0.06, 0.1), 0.05)
    if b.draw_chance(0.4):
        for i in range(b.draw_integer(2, 4)):
            y, r = h * 0.6 + 0.24 * i, 0.42 - 0.09 * i
            b.add_rod(f"crown_{i}", (0, y, 0), (0, y + 0.36, 0), r, 0.01)
        return
    for i in range(b.draw_integer(2, 5)):
        a, reach = b.draw_uniform(0, 6.28), b.draw_uniform(0.15, 0.4)
        end = (reach * np.cos(a), h + b.draw_uniform(0.0, 0.3), reach * np.sin(a))
        b.add_rod(f"branch_{i}", (0, h * 0.8, 0), end, 0.035, 0.02)
        b.add_ball(f"crown_{i}", end, b.rng.uniform(0.14, 0.28, 3))


def make_plant(b: Builder) -> None:
    """Pot, rim, soil, stem, leaves, maybe a flower."""
    r, h = b.draw_uniform(0.18, 0.28), b.draw_uniform(0.25, 0.4)
    b.add_rod("pot_0", (0, 0, 0), (0, h, 0), r * 0.7, r, 18)
    b.add_ring("rim_0", (0, h, 0), r, 0.03)
    b.add_rod("soil_0", (0, h - 0.02, 0), (0, h + 0.02, 0), r * 0.93)
    top = h + b.draw_uniform(0.2, 0.6)
    b.add_rod("stem_0", (0, h, 0), (0, top, 0), 0.02)
    for i in range(b.draw_integer(3, 8)):
        a, y = b.draw_uniform(0, 6.28), b.draw_uniform(h + 0.1, top)
        tilt = make_rotation((0, 1, 0), -a) @ make_rotation((0, 0, 1), b.draw_uniform(0.2, 0.9))
        at = np.array([0, y, 0]) + tilt @ np.array([0.2, 0, 0])
        b.add_ball(
            f"leaf_{i}",
            at,
            (b.draw_uniform(0.14, 0.22), 0.015, b.draw_uniform(0.04, 0.09)),
            rot=tilt,
        )
    if b.draw_chance(0.5):
        b.add_ball("flower_0", (0, top, 0), b.draw_uniform(0.05, 0.12))


def make_mushroom(b: Builder) -> None:
    """A group of caps on stems with spots and a ground disc."""
    b.add_rod("ground_0", (0, -0.04, 0), (0, 0, 0), 0.5, 0.45, 20)
    for i in range(b.draw_integer(1, 4)):
        x, z, h, r = (
            b.draw_uniform(-0.3, 0.3),
            b.draw_uniform(-0.3, 0.3),
            b.draw_uniform(0.2, 0.6),
            b.draw_uniform(0.12, 0.28),
        )
        b.add_rod(f"stem_{i}", (x, 0, z), (x, h, z), r * 0.35, r * 0.25)
        b.add_lathe(
            f"cap_{i}", [(0, h), (r, h - 0.02), (r * 0.8, h + r * 0.4), (0, h + r * 0.7)], (x, 0, z)
        )


def make_streetlight(b: Builder) -> None:
    """Foot, post, arms, lanterns."""
    h = b.draw_uniform(0.9, 1.2)
    b.add_lathe("foot_0", [(0, 0), (0.14, 0), (0.12, 0.08), (0.05, 0.14), (0, 0.14)])
    b.add_rod("post_0", (0, 0.1, 0), (0, h, 0), 0.035, 0.025)
    sides = (-1, 1)[: b.draw_integer(1, 2)]
    for i, s in enumerate(sides):
        b.add_tube(
            f"arm_{i}", [(0, h - 0.02, 0), (s * 0.15, h + 0.08, 0), (s * 0.3, h + 0.02, 0)], 0.02
        )
        b.add_rod(f"lantern_{i}", (s * 0.3, h - 0.16, 0), (s * 0.3, h - 0.02, 0), 0.05, 0.09)
        b.add_rod(f"hat_{i}", (s * 0.3, h - 0.02, 0), (s * 0.3, h + 0.05, 0), 0.11, 0.02)


def make_fountain(b: Builder) -> None:
    """Basin, column, bowls, water, figure."""
    r = b.draw_uniform(0.4, 0.55)
    b.add_lathe(
        "basin_0",
        [(0, 0), (r, 0), (r, 0.15), (r - 0.06, 0.15), (r - 0.06, 0.05), (0, 0.05)],
        sides=b.draw_integer(6, 22),
    )
    b.add_rod("water_0", (0, 0.08, 0), (0, 0.1, 0), r - 0.07, sides=20)
    y = 0.1
    for i in range(b.draw_integer(1, 3)):
        h, wide = b.draw_uniform(0.2, 0.3), r * (0.6 - 0.17 * i)
        b.add_rod(f"column_{i}", (0, y, 0), (0, y + h, 0), 0.06 - 0.012 * i)
        b.add_lathe(
            f"bowl_{i}",
            [(0, y + h), (wide, y + h + 0.1), (wide * 0.9, y + h + 0.1), (0, y + h + 0.03)],
        )
        y += h + 0.03
    b.add_ball("figure_0", (0, y + 0.08, 0), (0.05, 0.1, 0.05))


MAKERS: dict[str, Callable[[Builder], None]] = {
    "castle": make_castle,
    "fountain": make_fountain,
    "house": make_house,
    "mushroom": make_mushroom,
    "plant": make_plant,
    "streetlight": make_streetlight,
    "tree": make_tree,
    "windmill": make_windmill,
}
