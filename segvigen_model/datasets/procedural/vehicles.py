"""Vehicles: each function lists the parts of one random machine (Y up, nose towards +X)."""

# ruff: noqa: RUF005 (numpy point + offset list is arithmetic here, not concatenation)
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural.builder import Builder, make_rotation

UPRIGHT = make_rotation((1, 0, 0), np.pi / 2)  # a plate drawn in XZ stands in XY


def add_wheel(
    b: Builder, number: int, at: tuple[float, float, float], radius: float, width: float
) -> None:
    """A tyre across Z, with or without its own hub part."""
    x, y, z = at
    if b.draw_chance(0.5):
        b.add_rod(f"wheel_{number}", (x, y, z - width / 2), (x, y, z + width / 2), radius, sides=18)
    else:
        b.add_ring(f"wheel_{number}", at, radius * 0.75, radius * 0.25, (0, 0, 1))
        b.add_rod(f"hub_{number}", (x, y, z - width / 3), (x, y, z + width / 3), radius * 0.55)


def add_axle_pairs(b: Builder, xs: list[float], half: float, radius: float) -> None:
    """Two wheels at each x."""
    width = b.draw_uniform(0.06, 0.12)
    for i, x in enumerate(xs):
        add_wheel(b, 2 * i, (x, radius, -half), radius, width)
        add_wheel(b, 2 * i + 1, (x, radius, half), radius, width)


def make_car(b: Builder) -> None:
    """Body, cabin, four wheels, lights, bumpers, maybe a spoiler or roof rack."""
    long, wide, high, r = (
        b.draw_uniform(1.0, 1.5),
        b.draw_uniform(0.5, 0.65),
        b.draw_uniform(0.18, 0.3),
        b.draw_uniform(0.11, 0.16),
    )
    b.add_box("body_0", (0, r + high / 2, 0), (long, high, wide), bevel=b.draw_uniform(0, 0.12))
    cabin, shift = b.draw_uniform(0.4, 0.65) * long, b.draw_uniform(-0.15, 0.05)
    side = [
        [-cabin / 2, -wide * 0.42],
        [cabin / 2, -wide * 0.42],
        [cabin / 2, wide * 0.42],
        [-cabin / 2, wide * 0.42],
    ]
    b.add_plate(
        "cabin_0",
        side,
        h := b.draw_uniform(0.15, 0.28),
        (shift, r + high + h / 2, 0),
        taper=b.draw_uniform(0.6, 0.95),
    )
    add_axle_pairs(b, [-long * 0.31, long * 0.31], wide / 2, r)
    for i, s in enumerate((-1, 1)):
        b.add_ball(f"light_{i}", (long / 2, r + high * 0.6, s * wide * 0.33), 0.05)
    if b.draw_chance(0.5):
        b.add_box("bumper_0", (long / 2 + 0.03, r + 0.04, 0), (0.06, 0.08, wide))
    if b.draw_chance(0.3):
        b.add_box("spoiler_0", (-long / 2 + 0.05, r + high + 0.12, 0), (0.12, 0.03, wide))


def make_truck(b: Builder) -> None:
    """Cab, cargo (box, tank or flat bed), chassis, wheels, exhaust."""
    long, wide, r = b.draw_uniform(1.1, 1.7), b.draw_uniform(0.45, 0.6), b.draw_uniform(0.1, 0.15)
    base = r * 1.4
    b.add_box("chassis_0", (0, base, 0), (long, 0.07, wide * 0.7))
    cab = b.draw_uniform(0.28, 0.4)
    b.add_box(
        "cab_0",
        (long / 2 - cab / 2, base + 0.24, 0),
        (cab, b.draw_uniform(0.4, 0.5), wide),
        bevel=b.draw_uniform(0, 0.05),
    )
    b.add_box("window_0", (long / 2, base + 0.32, 0), (0.03, 0.16, wide * 0.8))
    rear, load = -cab / 2 - 0.02, long - cab - 0.06
    kind = b.draw_integer(0, 2)
    if kind == 0:
        b.add_box("cargo_0", (rear, base + 0.3, 0), (load, b.draw_uniform(0.4, 0.55), wide))
    elif kind == 1:
        b.add_limb(
            "tank_0",
            (rear - load * 0.3, base + 0.25, 0),
            (rear + load * 0.3, base + 0.25, 0),
            wide * 0.4,
        )
    else:
        b.add_box("bed_0", (rear, base + 0.06, 0), (load, 0.05, wide))
        for i, s in enumerate((-1, 1)):
            b.add_box(f"board_{i}", (rear, base + 0.16, s * wide / 2), (load, 0.18, 0.03))
    add_axle_pairs(
        b, [-long * 0.38, -long * 0.16, long * 0.36][0 if b.draw_chance(0.6) else 1 :], wide / 2, r
    )
    if b.draw_chance(0.5):
        b.add_rod(
            "exhaust_0",
            (long / 2 - cab, base, wide * 0.45),
            (long / 2 - cab, base + 0.65, wide * 0.45),
            0.025,
        )


def make_airplane(b: Builder) -> None:
    """Fuselage, wings, tail, engines or propeller, maybe landing gear."""
    long, r = b.draw_uniform(1.0, 1.5), b.draw_uniform(0.07, 0.12)
    half = long / 2
    b.add_lathe(
        "fuselage_0",
        [(0, -half), (r * 0.4, -half * 0.9), (r, -half * 0.4), (r, half * 0.6), (0, half)],
        axis=(1, 0, 0),
    )
    span, chord, sweep, y = (
        b.draw_uniform(0.45, 0.8),
        b.draw_uniform(0.16, 0.3),
        b.draw_uniform(0, 0.3),
        b.draw_uniform(-0.05, 0.08),
    )
    for i, s in enumerate((-1, 1)):
        outline = [
            [chord / 2, 0],
            [-chord / 2, 0],
            [-chord * 0.4 - sweep, s * span],
            [chord * 0.1 - sweep, s * span],
        ]
        b.add_plate(f"wing_{i}", outline, 0.03, (0.05, y, 0))
        tail = [[0.08, 0], [-0.08, 0], [-0.12, s * span * 0.35], [-0.02, s * span * 0.35]]
        b.add_plate(f"stabilizer_{i}", tail, 0.025, (-half * 0.88, 0.02, 0))
        if b.draw_chance(0.7):
            at = np.array([0.1 - sweep * 0.4, y - 0.06, s * span * 0.45])
            b.add_rod(f"engine_{i}", at - [0.1, 0, 0], at + [0.1, 0, 0], 0.045)
    fin = [[0.1, 0], [-0.1, 0], [-0.14, -0.25], [-0.04, -0.25]]
    b.add_plate("fin_0", fin, 0.025, (-half * 0.88, 0, 0), rot=UPRIGHT)
    if b.draw_chance(0.5):
        b.add_ball("canopy_0", (half * 0.35, r * 0.8, 0), (0.14, 0.06, 0.05))
    if b.draw_chance(0.5):
        b.add_box("propeller_0", (half + 0.02, 0, 0), (0.015, b.draw_uniform(0.3, 0.5), 0.05))
        b.add_ball("spinner_0", (half, 0, 0), 0.035)


def make_helicopter(b: Builder) -> None:
    """Cabin, tail boom, rotors, skids."""
    b.add_ball(
        "cabin_0",
        (0.1, 0, 0),
        (b.draw_uniform(0.28, 0.4), b.draw_uniform(0.18, 0.26), b.draw_uniform(0.16, 0.22)),
    )
    boom = b.draw_uniform(0.6, 0.9)
    b.add_rod("boom_0", (-0.1, 0.03, 0), (-boom, 0.08, 0), 0.06, 0.03)
    b.add_rod("mast_0", (0.05, 0.15, 0), (0.05, 0.32, 0), 0.025)
    for i in range(count := b.draw_integer(2, 5)):
        a = i / count * 2 * np.pi + 0.3
        tip = (0.05 + 0.6 * np.cos(a), 0.32, 0.6 * np.sin(a))
        mid = ((0.05 + tip[0]) / 2, 0.32, tip[2] / 2)
        b.add_box(f"blade_{i}", mid, (0.6, 0.015, 0.06), rot=make_rotation((0, 1, 0), -a))
    b.add_box("tailrotor_0", (-boom, 0.08, 0.05), (0.03, 0.28, 0.015))
    b.add_plate(
        "fin_0",
        [[0.06, 0], [-0.06, 0], [-0.1, -0.2], [-0.02, -0.2]],
        0.02,
        (-boom + 0.05, 0.05, 0),
        rot=UPRIGHT,
    )
    for i, s in enumerate((-1, 1)):
        b.add_rod(f"skid_{i}", (-0.2, -0.32, s * 0.17), (0.4, -0.32, s * 0.17), 0.02)
        for x in (-0.05, 0.25):
            b.add_rod(f"strut_{i}", (x, -0.32, s * 0.17), (x, -0.12, s * 0.1), 0.015)


def make_boat(b: Builder) -> None:
    """Hull, deck house, mast with sails or a funnel, railing."""
    long, wide, high = (
        b.draw_uniform(1.0, 1.5),
        b.draw_uniform(0.35, 0.5),
        b.draw_uniform(0.15, 0.28),
    )
    outline = [
        [-long / 2, -wide / 2],
        [long * 0.2, -wide / 2],
        [long / 2, 0],
        [long * 0.2, wide / 2],
        [-long / 2, wide / 2],
    ]
    b.add_plate("hull_0", np.array(outline) * 0.75, high, (0, high / 2, 0), taper=1.33)
    if b.draw_chance(0.5):
        x = b.draw_uniform(-0.1, 0.1)
        b.add_rod("mast_0", (x, high, 0), (x, high + 0.9, 0), 0.02)
        b.add_plate(
            "sail_0",
            [[-0.02, -0.05], [-0.02, -0.8], [-0.45, -0.05]],
            0.012,
            (x, high + 0.05, 0),
            rot=UPRIGHT,
        )
        if b.draw_chance(0.6):
            b.add_plate(
                "sail_1",
                [[0.02, -0.05], [0.02, -0.7], [0.4, -0.05]],
                0.012,
                (x, high + 0.03, 0),
                rot=UPRIGHT,
            )
    else:
        b.add_box("house_0", (-0.1, high + 0.1, 0), (0.45, 0.2, wide * 0.6))
        b.add_box("bridge_0", (-0.05, high + 0.27, 0), (0.22, 0.14, wide * 0.5))
        for i in range(b.draw_integer(1, 2)):
            b.add_rod(
                f"funnel_{i}",
                (-0.2 - 0.14 * i, high + 0.2, 0),
                (-0.2 - 0.14 * i, high + 0.5, 0),
                0.05,
            )
    if b.draw_chance(0.4):
        b.add_box("rudder_0", (-long * 0.4, high * 0.2, 0), (0.1, high * 0.8, 0.03))


def make_bicycle(b: Builder) -> None:
    """Two wheels, frame, fork, handlebar, saddle, pedals."""
    r, base = b.draw_uniform(0.24, 0.32), b.draw_uniform(0.75, 0.95)
    rear, front = np.array([-base / 2, r, 0]), np.array([base / 2, r, 0])
    crank, seat, head = (
        np.array([-0.06, r * 0.9, 0]),
        np.array([-0.18, r + 0.35, 0]),
        np.array([base / 2 - 0.12, r + 0.38, 0]),
    )
    for i, at in enumerate((rear, front)):
        b.add_ring(f"wheel_{i}", at, r, b.draw_uniform(0.015, 0.03), (0, 0, 1))
        for k in range(3):
            d = np.array([np.cos(k * 1.05), np.sin(k * 1.05), 0]) * r
            b.add_rod(f"spokes_{i}", at - d, at + d, 0.006, sides=6)
    for p, q in ((rear, crank), (crank, seat), (crank, head), (seat, head), (rear, seat)):
        b.add_rod("frame_0", p, q, 0.018)
    b.add_rod("fork_0", front, head + [0, 0.05, 0], 0.016)
    b.add_tube(
        "handlebar_0",
        [head + [0.05, 0.1, -0.2], head + [0, 0.08, 0], head + [0.05, 0.1, 0.2]],
        0.015,
    )
    b.add_ball("saddle_0", seat + [0, 0.04, 0], (0.11, 0.03, 0.06))
    for i, s in enumerate((-1, 1)):
        b.add_rod(f"crank_{i}", crank, crank + [0, -0.12 * s, 0.03 * s], 0.012)
        b.add_box(f"pedal_{i}", crank + [0, -0.12 * s, 0.08 * s], (0.07, 0.02, 0.07))


def make_train(b: Builder) -> None:
    """Boiler, cab, chimney, domes, wheels, cow catcher."""
    long, r = b.draw_uniform(0.7, 1.0), b.draw_uniform(0.14, 0.2)
    b.add_box("chassis_0", (0, 0.14, 0), (long + 0.3, 0.08, r * 2))
    b.add_rod("boiler_0", (-0.1, 0.18 + r, 0), (long / 2 + 0.1, 0.18 + r, 0), r)
    b.add_box("cab_0", (-long / 2 + 0.08, 0.4, 0), (0.32, 0.46, r * 2.2))
    b.add_box("roof_0", (-long / 2 + 0.08, 0.65, 0), (0.4, 0.04, r * 2.5))
    b.add_lathe(
        "chimney_0",
        [(0.04, 0), (0.04, 0.18), (0.08, 0.26), (0, 0.26)],
        (long / 2, 0.18 + 2 * r - 0.02, 0),
    )
    for i in range(b.draw_integer(1, 2)):
        b.add_ball(f"dome_{i}", (long * 0.25 - 0.22 * i, 0.18 + 2 * r, 0), 0.06)
    add_axle_pairs(b, list(np.linspace(-long * 0.4, long * 0.45, b.draw_integer(2, 4))), r, 0.1)
    b.add_plate("catcher_0", [[0, -r], [0.16, 0], [0, r]], 0.1, (long / 2 + 0.15, 0.1, 0))


def make_excavator(b: Builder) -> None:
    """Tracks, house, cabin, boom, stick, bucket."""
    for i, s in enumerate((-1, 1)):
        b.add_box(
            f"track_{i}", (0, 0.1, s * 0.25), (b.draw_uniform(0.7, 0.9), 0.2, 0.14), bevel=0.02
        )
    b.add_rod("turntable_0", (0, 0.18, 0), (0, 0.26, 0), 0.18)
    b.add_box("house_0", (-0.12, 0.4, 0), (0.55, 0.28, 0.5), bevel=0.05)
    b.add_box("cabin_0", (0.1, 0.58, -0.14), (0.26, 0.4, 0.22))
    knee = np.array([b.draw_uniform(0.5, 0.7), b.draw_uniform(0.75, 0.95), 0.08])
    tip = np.array([b.draw_uniform(0.85, 1.05), b.draw_uniform(0.25, 0.5), 0.08])
    b.add_rod("boom_0", (0.1, 0.42, 0.08), knee, 0.06, 0.045, 6)
    b.add_rod("stick_0", knee, tip, 0.045, 0.035, 6)
    b.add_plate(
        "bucket_0", [[-0.1, -0.08], [0.1, -0.1], [0.12, 0.02], [-0.06, 0.1]], 0.2, tip, rot=UPRIGHT
    )
    b.add_rod("piston_0", (0.2, 0.4, 0.08), knee * 0.6 + [0.1, 0.12, 0.03], 0.022)


def make_rocket(b: Builder) -> None:
    """Body stages, nose, fins, nozzles, boosters."""
    r, stages, y = b.draw_uniform(0.1, 0.18), b.draw_integer(1, 3), 0.0
    for i in range(stages):
        h = b.draw_uniform(0.3, 0.5)
        b.add_rod(f"stage_{i}", (0, y, 0), (0, y + h, 0), r, sides=18)
        y += h + 0.01
    b.add_lathe("nose_0", [(r, y), (r * 0.8, y + 0.12), (0, y + b.draw_uniform(0.2, 0.4))])
    b.add_lathe("nozzle_0", [(r * 0.8, -0.12), (r * 0.4, 0), (0, 0)])
    count = b.draw_integer(3, 4)
    for i in range(count):
        a = make_rotation((0, 1, 0), i / count * 2 * np.pi)
        fin = [[r * 0.9, 0], [r + 0.2, 0.1], [r + 0.2, -0.02], [r * 0.9, -0.3]]
        b.add_plate(f"fin_{i}", fin, 0.02, rot=a @ UPRIGHT)
    if b.draw_chance(0.4):
        for i, s in enumerate((-1, 1)):
            b.add_limb(f"booster_{i}", (0, 0.05, s * r * 1.6), (0, 0.4, s * r * 1.6), r * 0.5)


def make_drone(b: Builder) -> None:
    """Body, arms, motors, propellers, legs, camera."""
    count, reach = b.draw_integer(2, 4) * 2, b.draw_uniform(0.4, 0.6)
    count = min(count, 6)
    b.add_box(
        "body_0", (0, 0, 0), (b.draw_uniform(0.2, 0.35), 0.1, b.draw_uniform(0.2, 0.3)), bevel=0.05
    )
    for i in range(count):
        a = (i + 0.5) / count * 2 * np.pi
        end = np.array([reach * np.cos(a), 0.02, reach * np.sin(a)])
        b.add_rod(f"arm_{i}", (0, 0, 0), end, 0.025)
        b.add_rod(f"motor_{i}", end - [0, 0.03, 0], end + [0, 0.06, 0], 0.04)
        b.add_rod(f"propeller_{i}", end + [0, 0.07, 0], end + [0, 0.085, 0], reach * 0.4, sides=16)
    for i, s in enumerate((-1, 1)):
        b.add_tube(
            f"skid_{i}",
            [
                (-0.1, -0.04, s * 0.08),
                (-0.12, -0.18, s * 0.12),
                (0.12, -0.18, s * 0.12),
                (0.1, -0.04, s * 0.08),
            ],
            0.014,
        )
    if b.draw_chance(0.6):
        b.add_ball("camera_0", (0.08, -0.09, 0), 0.05)


MAKERS: dict[str, Callable[[Builder], None]] = {
    "airplane": make_airplane,
    "bicycle": make_bicycle,
    "boat": make_boat,
    "car": make_car,
    "drone": make_drone,
    "excavator": make_excavator,
    "helicopter": make_helicopter,
    "rocket": make_rocket,
    "train": make_train,
    "truck": make_truck,
}
