"""Furniture: each function lists the parts of one random piece (Y up, about one unit large)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural.builder import Builder, make_rotation

CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


def add_legs(b: Builder, width: float, depth: float, height: float, *, name: str = "leg") -> None:
    """Four legs below y = height, round, square or splayed."""
    thick, style, splay = b.draw_uniform(0.02, 0.06), b.draw_integer(0, 2), b.draw_uniform(0, 0.08)
    for i, (sx, sz) in enumerate(CORNERS):
        x, z = sx * (width / 2 - thick), sz * (depth / 2 - thick)
        if style == 0:
            b.add_box(f"{name}_{i}", (x, height / 2, z), (2 * thick, height, 2 * thick))
        else:
            foot = (x + sx * splay, 0, z + sz * splay)
            b.add_rod(f"{name}_{i}", foot, (x, height, z), thick * 0.7, thick)


def make_chair(b: Builder) -> None:
    """Seat, legs or pedestal, back (slab or slats), maybe arms."""
    w, d, h, t = (
        b.draw_uniform(0.4, 0.6),
        b.draw_uniform(0.4, 0.6),
        b.draw_uniform(0.35, 0.55),
        b.draw_uniform(0.03, 0.09),
    )
    b.add_box("seat_0", (0, h + t / 2, 0), (w, t, d), bevel=b.draw_uniform(0, 0.08))
    if b.draw_chance(0.7):
        add_legs(b, w, d, h)
    else:
        add_pedestal(b, h, b.draw_uniform(0.2, 0.3))
    back = b.draw_uniform(0.35, 0.7)
    if b.draw_chance(0.5):
        b.add_box(
            "back_0", (0, h + t + back / 2, -d / 2 + 0.03), (w * b.draw_uniform(0.7, 1), back, 0.05)
        )
    else:
        for i in range(count := b.draw_integer(3, 5)):
            x = (i / (count - 1) - 0.5) * w * 0.85
            b.add_rod(
                f"slat_{i}", (x, h + t, -d / 2 + 0.03), (x, h + t + back, -d / 2 + 0.03), 0.02
            )
        b.add_box("rail_0", (0, h + t + back, -d / 2 + 0.03), (w, 0.08, 0.05))
    if b.draw_chance(0.4):
        for i, s in enumerate((-1, 1)):
            rise = h + t + b.draw_uniform(0.15, 0.25)
            b.add_box(f"arm_{i}", (s * w / 2, rise, 0), (0.06, 0.04, d * 0.9))
            b.add_rod(
                f"armpost_{i}", (s * w / 2, h + t, d * 0.35), (s * w / 2, rise, d * 0.35), 0.02
            )


def add_pedestal(b: Builder, height: float, spread: float) -> None:
    """A column on a disc or on a star of feet."""
    b.add_rod("column_0", (0, 0.04, 0), (0, height, 0), b.draw_uniform(0.025, 0.06))
    if b.draw_chance(0.4):
        b.add_rod("base_0", (0, 0, 0), (0, 0.05, 0), spread, spread * 0.8, 20)
        return
    for i in range(count := b.draw_integer(3, 5)):
        a = i / count * 2 * np.pi
        end = (spread * np.cos(a), 0.03, spread * np.sin(a))
        b.add_rod(f"foot_{i}", (0, 0.06, 0), end, 0.025)
        b.add_ball(f"caster_{i}", end, 0.035)


def make_table(b: Builder) -> None:
    """Top, legs or pedestal, maybe a shelf or an apron."""
    w, d, h, t = (
        b.draw_uniform(0.7, 1.4),
        b.draw_uniform(0.5, 0.8),
        b.draw_uniform(0.35, 0.75),
        b.draw_uniform(0.03, 0.08),
    )
    if b.draw_chance(0.3):
        b.add_rod("top_0", (0, h, 0), (0, h + t, 0), d / 2 * 1.2, sides=24)
        add_pedestal(b, h, d * 0.4)
        return
    b.add_box("top_0", (0, h + t / 2, 0), (w, t, d), bevel=b.draw_uniform(0, 0.1))
    add_legs(b, w, d, h)
    if b.draw_chance(0.4):
        b.add_box("shelf_0", (0, h * b.draw_uniform(0.2, 0.5), 0), (w * 0.85, 0.03, d * 0.85))
    if b.draw_chance(0.4):
        b.add_box("drawer_0", (0, h - 0.07, d * 0.2), (w * 0.5, 0.12, d * 0.6))
        b.add_ball("knob_0", (0, h - 0.07, d * 0.5 + 0.03), 0.03)


def make_stool(b: Builder) -> None:
    """A round seat on legs with a foot ring."""
    h, r = b.draw_uniform(0.4, 0.8), b.draw_uniform(0.18, 0.26)
    b.add_rod(
        "seat_0",
        (0, h, 0),
        (0, h + b.draw_uniform(0.04, 0.1), 0),
        r,
        r * b.draw_uniform(0.85, 1),
        20,
    )
    count = b.draw_integer(3, 4)
    for i in range(count):
        a = i / count * 2 * np.pi
        c, s = np.cos(a), np.sin(a)
        b.add_rod(f"leg_{i}", (r * 1.2 * c, 0, r * 1.2 * s), (r * 0.7 * c, h, r * 0.7 * s), 0.025)
    if b.draw_chance(0.6):
        b.add_ring("ring_0", (0, h * 0.35, 0), r * 1.02, 0.018)


def make_sofa(b: Builder) -> None:
    """Base, back, arms, cushions, pillows, feet."""
    w, d, h = b.draw_uniform(1.0, 1.8), b.draw_uniform(0.5, 0.7), b.draw_uniform(0.2, 0.3)
    b.add_box("base_0", (0, h / 2 + 0.05, 0), (w, h, d), bevel=0.03)
    b.add_box(
        "back_0", (0, h + 0.25, -d / 2 + 0.08), (w, b.draw_uniform(0.35, 0.5), 0.16), bevel=0.04
    )
    arm = b.draw_uniform(0.1, 0.18)
    for i, s in enumerate((-1, 1)):
        at = (s * (w / 2 + arm / 2), h * 0.8 + 0.05, 0)
        b.add_box(f"arm_{i}", at, (arm, h * 1.6, d), bevel=b.draw_uniform(0, 0.05))
    for i in range(count := b.draw_integer(1, 3)):
        x = ((i + 0.5) / count - 0.5) * w
        b.add_box(
            f"cushion_{i}", (x, h + 0.11, 0.05), (w / count * 0.94, 0.12, d * 0.78), bevel=0.05
        )
        if b.draw_chance(0.5):
            b.add_box(
                f"pillow_{i}",
                (x, h + 0.28, -0.1),
                (0.26, 0.24, 0.08),
                rot=make_rotation((1, 0, 0), -0.4),
            )
    for i, (sx, sz) in enumerate(CORNERS):
        b.add_rod(
            f"foot_{i}",
            (sx * w * 0.45, -0.04, sz * d * 0.42),
            (sx * w * 0.45, 0.06, sz * d * 0.42),
            0.03,
        )


def make_bookcase(b: Builder) -> None:
    """Sides, shelves, back, books."""
    w, h, d, t = (
        b.draw_uniform(0.5, 0.9),
        b.draw_uniform(0.9, 1.6),
        b.draw_uniform(0.22, 0.35),
        b.draw_uniform(0.02, 0.05),
    )
    for i, s in enumerate((-1, 1)):
        b.add_box(f"side_{i}", (s * w / 2, h / 2, 0), (t, h, d))
    count = b.draw_integer(3, 6)
    levels = np.linspace(t, h - t, count)
    for i, y in enumerate(levels):
        b.add_box(f"shelf_{i}", (0, y, 0), (w - t, t, d))
    if b.draw_chance(0.6):
        b.add_box("back_0", (0, h / 2, -d / 2), (w, h, 0.02))
    for i, y in enumerate(levels[:-1]):
        if b.draw_chance(0.5):
            add_row_of_books(b, i, y + t / 2, w, (levels[1] - levels[0]) * 0.75, d)


# The dimensions of a shape, one by one.
def add_row_of_books(
    b: Builder, row: int, y: float, width: float, height: float, depth: float
) -> None:
    """Some books as one part, standing from the left."""
    x = -width / 2 + 0.05
    for _ in range(b.draw_integer(2, 5)):
        thick, tall = b.draw_uniform(0.03, 0.07), height * b.draw_uniform(0.6, 1)
        b.add_box(f"books_{row}", (x + thick / 2, y + tall / 2, 0), (thick, tall, depth * 0.7))
        x += thick + 0.006


def make_bed(b: Builder) -> None:
    """Frame, mattress, head board, pillows, blanket, legs."""
    w, d, h = b.draw_uniform(0.7, 1.2), b.draw_uniform(1.5, 1.8), b.draw_uniform(0.15, 0.3)
    b.add_box("frame_0", (0, h, 0), (w, 0.12, d))
    b.add_box("mattress_0", (0, h + 0.15, 0), (w * 0.95, 0.2, d * 0.95), bevel=0.06)
    b.add_box(
        "headboard_0",
        (0, h + b.draw_uniform(0.2, 0.4), -d / 2),
        (w, b.draw_uniform(0.5, 0.8), 0.07),
    )
    if b.draw_chance(0.4):
        b.add_box("footboard_0", (0, h + 0.12, d / 2), (w, 0.4, 0.06))
    for i in range(count := b.draw_integer(1, 2)):
        x = ((i + 0.5) / count - 0.5) * w * 0.8
        b.add_ball(f"pillow_{i}", (x, h + 0.3, -d * 0.36), (w * 0.34 / count, 0.07, 0.16))
    if b.draw_chance(0.6):
        b.add_box("blanket_0", (0, h + 0.2, d * 0.18), (w * 1.02, 0.14, d * 0.56), bevel=0.05)
    add_legs(b, w, d, h)


def make_desk(b: Builder) -> None:
    """Top, a drawer block, legs, maybe a screen and a keyboard."""
    w, d, h = b.draw_uniform(1.0, 1.5), b.draw_uniform(0.5, 0.7), b.draw_uniform(0.6, 0.75)
    b.add_box("top_0", (0, h, 0), (w, 0.05, d))
    b.add_box("block_0", (w * 0.33, h / 2, 0), (w * 0.28, h, d * 0.9))
    for i in range(count := b.draw_integer(2, 4)):
        y = (i + 0.5) / count * h
        b.add_box(f"drawer_{i}", (w * 0.33, y, d * 0.46), (w * 0.25, h / count * 0.85, 0.03))
        b.add_rod(f"handle_{i}", (w * 0.28, y, d * 0.5), (w * 0.38, y, d * 0.5), 0.012)
    for i, s in enumerate((-1, 1)):
        b.add_box(f"leg_{i}", (-w * 0.46, h / 2, s * d * 0.42), (0.05, h, 0.05))
    if b.draw_chance(0.6):
        b.add_box("screen_0", (-0.1, h + 0.3, -d * 0.2), (0.5, 0.3, 0.03))
        b.add_rod("stand_0", (-0.1, h + 0.02, -d * 0.22), (-0.1, h + 0.2, -d * 0.22), 0.02)
        b.add_box("keyboard_0", (-0.1, h + 0.035, d * 0.15), (0.4, 0.02, 0.14))


def make_cabinet(b: Builder) -> None:
    """Body, doors or drawers with handles, feet, maybe a top plate."""
    w, h, d = b.draw_uniform(0.5, 1.0), b.draw_uniform(0.5, 1.4), b.draw_uniform(0.3, 0.5)
    b.add_box("body_0", (0, h / 2 + 0.06, 0), (w, h, d))
    columns, rows = b.draw_integer(1, 2), b.draw_integer(1, 4)
    for i in range(columns * rows):
        x = ((i % columns + 0.5) / columns - 0.5) * w
        y = (i // columns + 0.5) / rows * h + 0.06
        b.add_box(f"door_{i}", (x, y, d / 2 + 0.015), (w / columns * 0.93, h / rows * 0.93, 0.03))
        b.add_ball(
            f"knob_{i}", (x + b.draw_uniform(-0.2, 0.2) * w / columns, y, d / 2 + 0.05), 0.025
        )
    for i, (sx, sz) in enumerate(CORNERS):
        b.add_box(f"foot_{i}", (sx * w * 0.44, 0.03, sz * d * 0.4), (0.06, 0.06, 0.06))
    if b.draw_chance(0.5):
        b.add_box("top_0", (0, h + 0.08, 0), (w * 1.06, 0.04, d * 1.08))


def make_lamp(b: Builder) -> None:
    """Base, pole (straight or bent), shade (open surface), bulb."""
    h, r = b.draw_uniform(0.6, 1.2), b.draw_uniform(0.15, 0.25)
    b.add_lathe("base_0", [(0, 0), (r, 0), (r, 0.04), (0.04, b.draw_uniform(0.05, 0.12)), (0, 0.1)])
    top = (b.draw_uniform(-0.25, 0.25), h, 0)
    if b.draw_chance(0.5):
        top = (0, h, 0)
        b.add_rod("pole_0", (0, 0.04, 0), top, b.draw_uniform(0.012, 0.03))
    else:
        elbow = (-top[0], h * 0.5, 0)
        b.add_rod("pole_0", (0, 0.04, 0), elbow, 0.02)
        b.add_rod("pole_1", elbow, top, 0.02)
        b.add_ball("joint_0", elbow, 0.04)
    wide, tall = b.draw_uniform(0.15, 0.3), b.draw_uniform(0.15, 0.3)
    b.add_lathe(
        "shade_0",
        [(wide, h - tall / 2), (wide * b.draw_uniform(0.4, 1), h + tall / 2)],
        (top[0], 0, 0),
    )
    b.add_ball("bulb_0", (top[0], h - 0.02, 0), 0.06)


def make_bench(b: Builder) -> None:
    """Planks on two trestles, maybe a back."""
    w, d, h = b.draw_uniform(1.0, 1.6), b.draw_uniform(0.35, 0.5), b.draw_uniform(0.35, 0.5)
    count = b.draw_integer(2, 4)
    for i in range(count):
        z = ((i + 0.5) / count - 0.5) * d
        b.add_box(f"plank_{i}", (0, h, z), (w, 0.04, d / count * 0.85))
    for i, s in enumerate((-1, 1)):
        b.add_box(f"trestle_{i}", (s * w * 0.4, h / 2 - 0.02, 0), (0.06, h - 0.02, d * 0.9))
    if b.draw_chance(0.6):
        for i in range(2):
            b.add_box(f"backplank_{i}", (0, h + 0.15 + 0.14 * i, -d / 2), (w, 0.1, 0.03))
        for i, s in enumerate((-1, 1)):
            b.add_box(f"post_{i}", (s * w * 0.4, h + 0.18, -d / 2 - 0.03), (0.05, 0.4, 0.04))


MAKERS: dict[str, Callable[[Builder], None]] = {
    "bed": make_bed,
    "bench": make_bench,
    "bookcase": make_bookcase,
    "cabinet": make_cabinet,
    "chair": make_chair,
    "desk": make_desk,
    "lamp": make_lamp,
    "sofa": make_sofa,
    "stool": make_stool,
    "table": make_table,
}
