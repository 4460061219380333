"""People, animals, robots: each function lists the parts of one random body (Y up, facing +X)."""

# ruff: noqa: RUF005 (numpy point + offset list is arithmetic here, not concatenation)
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural.builder import Builder
from segvigen_model.types import FloatArray


def make_character(b: Builder) -> None:
    """Head, hair or hat, torso, arms, hands, legs, shoes."""
    hip, torso, r = b.draw_uniform(0.4, 0.55), b.draw_uniform(0.35, 0.5), b.draw_uniform(0.14, 0.2)
    neck = hip + torso
    if b.draw_chance(0.5):
        b.add_limb("torso_0", (0, hip + r * 0.5, 0), (0, neck - r, 0), r)
    else:
        b.add_box("torso_0", (0, hip + torso / 2, 0), (r * 1.4, torso, r * 2.2), bevel=0.04)
    head = b.draw_uniform(0.12, 0.22)
    b.add_ball("head_0", (0, neck + head * 0.95, 0), (head, head * b.draw_uniform(0.9, 1.2), head))
    if b.draw_chance(0.6):
        brim = neck + head * 1.5
        b.add_rod(
            "hat_0",
            (0, brim, 0),
            (0, brim + b.draw_uniform(0.1, 0.25), 0),
            head * 0.9,
            head * b.draw_uniform(0.1, 0.9),
        )
        b.add_rod("brim_0", (0, brim - 0.015, 0), (0, brim + 0.015, 0), head * 1.4)
    drop, thick = b.draw_uniform(0.0, 0.45), b.draw_uniform(0.04, 0.07)
    for i, s in enumerate((-1, 1)):
        shoulder = np.array([0, neck - 0.08, s * (r + 0.04)])
        hand = shoulder + [b.draw_uniform(-0.1, 0.15), -drop, s * (0.5 - drop * 0.7)]
        b.add_limb(f"arm_{i}", shoulder, hand, thick)
        b.add_ball(f"hand_{i}", hand, thick * 1.3)
        foot = np.array([b.draw_uniform(-0.1, 0.1), 0.06, s * r * 0.6])
        b.add_limb(f"leg_{i}", (0, hip, s * r * 0.5), foot, thick * 1.2)
        b.add_box(f"shoe_{i}", foot + [0.04, -0.02, 0], (0.2, 0.08, 0.11), bevel=0.03)


def make_quadruped(b: Builder) -> None:
    """Body, neck, head, ears or horns, legs, hooves, tail."""
    long, r, h = b.draw_uniform(0.5, 0.8), b.draw_uniform(0.13, 0.22), b.draw_uniform(0.25, 0.5)
    y = h + r * 0.8
    b.add_limb("body_0", (-long / 2, y, 0), (long / 2, y, 0), r)
    neck = np.array([long / 2 + b.draw_uniform(0.05, 0.2), y + b.draw_uniform(0.1, 0.45), 0])
    b.add_rod("neck_0", (long / 2, y + r * 0.3, 0), neck, r * 0.6, r * 0.4)
    b.add_ball("head_0", neck + [0.07, 0.03, 0], (0.16, 0.1, 0.1))
    b.add_rod("snout_0", neck + [0.18, 0.0, 0], neck + [0.3, -0.03, 0], 0.06, 0.045)
    for i, s in enumerate((-1, 1)):
        tip = neck + [0.0, b.draw_uniform(0.16, 0.32), s * b.draw_uniform(0.08, 0.16)]
        b.add_rod(f"ear_{i}", neck + [0.03, 0.08, s * 0.06], tip, 0.04, 0.008)
    for i, (sx, sz) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1))):
        x, z = sx * long * 0.42, sz * r * 0.6
        b.add_rod(f"leg_{i}", (x, y, z), (x, 0.05, z), 0.065, 0.045)
        b.add_rod(f"hoof_{i}", (x, 0, z), (x, 0.06, z), 0.06)
    end = (-long / 2 - b.draw_uniform(0.15, 0.35), y + b.draw_uniform(-0.25, 0.25), 0)
    b.add_rod("tail_0", (-long / 2 - r * 0.5, y + r * 0.4, 0), end, 0.035, 0.015)


def make_bird(b: Builder) -> None:
    """Body, head, beak, wings, tail, legs."""
    b.add_ball(
        "body_0",
        (0, 0.4, 0),
        (b.draw_uniform(0.25, 0.35), b.draw_uniform(0.15, 0.22), b.draw_uniform(0.14, 0.2)),
    )
    head = np.array([0.3, 0.4 + b.draw_uniform(0.12, 0.35), 0])
    b.add_rod("neck_0", (0.18, 0.44, 0), head, 0.08, 0.06)
    b.add_ball("head_0", head, 0.11)
    b.add_rod(
        "beak_0",
        head + [0.08, 0, 0],
        head + [0.08 + b.draw_uniform(0.1, 0.25), -0.02, 0],
        0.045,
        0.004,
    )
    lift, span = b.draw_uniform(-0.15, 0.3), b.draw_uniform(0.35, 0.6)
    for i, s in enumerate((-1, 1)):
        outline = [[0.15, s * 0.1], [-0.15, s * 0.1], [-0.22, s * span], [-0.02, s * span]]
        b.add_plate(f"wing_{i}", outline, 0.03, (0, 0.48, 0), rot=make_wing_rotation(s * lift))
        b.add_rod(f"leg_{i}", (0, 0.28, s * 0.07), (0.02, 0.03, s * 0.08), 0.018)
        b.add_box(f"foot_{i}", (0.05, 0.015, s * 0.08), (0.12, 0.03, 0.07))
    b.add_plate(
        "tail_0", [[0, -0.06], [0, 0.06], [-0.28, 0.13], [-0.28, -0.13]], 0.03, (-0.25, 0.42, 0)
    )


def make_wing_rotation(angle: float) -> FloatArray:
    """Rotation about +X that lifts a wing."""
    c, s = np.cos(-angle), np.sin(-angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def make_spider(b: Builder) -> None:
    """Two body halves, eyes, jaws, eight (or six) two-piece legs."""
    b.add_ball(
        "abdomen_0",
        (-0.25, 0.25, 0),
        (b.draw_uniform(0.2, 0.3), b.draw_uniform(0.15, 0.22), b.draw_uniform(0.16, 0.22)),
    )
    b.add_ball("thorax_0", (0.08, 0.22, 0), (0.15, 0.1, 0.13))
    for i, s in enumerate((-1, 1)):
        b.add_ball(f"eye_{i}", (0.2, 0.28, s * 0.05), 0.03)
        b.add_rod(f"jaw_{i}", (0.2, 0.18, s * 0.04), (0.28, 0.08, s * 0.03), 0.025, 0.005)
    rows, reach = b.draw_integer(3, 4), b.draw_uniform(0.4, 0.55)
    for i in range(2 * rows):
        s, a = (1 if i % 2 else -1), (i // 2 / (rows - 1) - 0.5) * 1.8
        direction = np.array([-np.sin(a), 0, s * np.cos(a)])
        knee = np.array([0.05, 0.42, 0]) + direction * reach * 0.5
        b.add_rod(f"thigh_{i}", np.array([0.05, 0.22, 0]) + direction * 0.1, knee, 0.028)
        b.add_rod(f"shin_{i}", knee, np.array([0.05, 0, 0]) + direction * reach, 0.024, 0.008)


def make_robot(b: Builder) -> None:
    """Box body, head, eyes, antenna, segmented arms with grippers, legs or tracks."""
    w, h, base = b.draw_uniform(0.35, 0.5), b.draw_uniform(0.35, 0.55), b.draw_uniform(0.25, 0.4)
    b.add_box("body_0", (0, base + h / 2, 0), (w * 0.7, h, w), bevel=b.draw_uniform(0, 0.08))
    b.add_box("panel_0", (w * 0.36, base + h * 0.6, 0), (0.03, h * 0.4, w * 0.6))
    top = base + h
    b.add_rod("neck_0", (0, top, 0), (0, top + 0.06, 0), 0.06)
    b.add_box("head_0", (0, top + 0.18, 0), (0.26, 0.24, 0.3), bevel=b.draw_uniform(0, 0.06))
    for i, s in enumerate((-1, 1)):
        b.add_ball(f"eye_{i}", (0.13, top + 0.2, s * 0.07), 0.035)
        elbow = np.array([b.draw_uniform(0, 0.15), top - 0.2, s * (w / 2 + 0.12)])
        hand = elbow + [b.draw_uniform(0.05, 0.2), b.draw_uniform(-0.25, 0.05), 0]
        b.add_ball(f"shoulder_{i}", (0, top - 0.06, s * (w / 2 + 0.04)), 0.06)
        b.add_rod(f"upperarm_{i}", (0, top - 0.06, s * (w / 2 + 0.06)), elbow, 0.04)
        b.add_rod(f"forearm_{i}", elbow, hand, 0.045)
        for k in (-1, 1):
            b.add_box(f"gripper_{i}", hand + [0.04, 0, k * 0.04], (0.1, 0.05, 0.025))
    if b.draw_chance(0.5):
        b.add_rod("antenna_0", (0, top + 0.3, 0), (0, top + 0.48, 0), 0.012)
        b.add_ball("bulb_0", (0, top + 0.49, 0), 0.03)
    for i, s in enumerate((-1, 1)):
        if base > 0.32:
            b.add_box(
                f"track_{i}", (0, base * 0.45, s * w * 0.4), (0.5, base * 0.9, 0.12), bevel=0.02
            )
        else:
            b.add_rod(f"leg_{i}", (0, base, s * w * 0.25), (0, 0.06, s * w * 0.25), 0.055)
            b.add_box(f"foot_{i}", (0.05, 0.04, s * w * 0.25), (0.22, 0.08, 0.14))


def make_robotarm(b: Builder) -> None:
    """Base, turret, links with joints, wrist, fingers."""
    b.add_rod("base_0", (0, 0, 0), (0, 0.1, 0), 0.25, 0.2, 18)
    b.add_rod("turret_0", (0, 0.1, 0), (0, 0.22, 0), 0.14)
    at, angle = np.array([0, 0.24, 0]), b.draw_uniform(0.9, 1.6)
    count = b.draw_integer(2, 4)
    for i in range(count):
        b.add_rod(f"joint_{i}", at - [0, 0, 0.09], at + [0, 0, 0.09], 0.075 - 0.01 * i)
        end = at + b.draw_uniform(0.25, 0.45) * np.array([np.cos(angle), np.sin(angle), 0])
        b.add_rod(f"link_{i}", at, end, 0.055 - 0.008 * i)
        at, angle = end, angle - b.draw_uniform(0.3, 1.1)
    b.add_ball("wrist_0", at, 0.055)
    direction = np.array([np.cos(angle), np.sin(angle), 0])
    for i, s in enumerate((-1, 1)):
        b.add_rod(
            f"finger_{i}", at + [0, 0, s * 0.04], at + direction * 0.16 + [0, 0, s * 0.05], 0.022
        )


def make_fish(b: Builder) -> None:
    """Body, tail, fins, eyes."""
    long, high = b.draw_uniform(0.35, 0.5), b.draw_uniform(0.15, 0.28)
    b.add_ball("body_0", (0, 0, 0), (long, high, b.draw_uniform(0.08, 0.15)))
    stand = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    b.add_plate(
        "tail_0",
        [[0, -0.03], [0, 0.03], [-0.25, 0.2], [-0.18, 0], [-0.25, -0.2]],
        0.025,
        (-long * 0.9, 0, 0),
        rot=stand,
    )
    b.add_plate(
        "dorsal_0", [[0.15, 0], [-0.2, 0], [-0.15, -0.16]], 0.02, (0, high * 0.85, 0), rot=stand
    )
    for i, s in enumerate((-1, 1)):
        b.add_plate(
            f"fin_{i}",
            [[0.08, 0], [-0.06, 0], [-0.12, s * 0.2]],
            0.02,
            (0.05, -high * 0.3, s * 0.08),
        )
        b.add_ball(f"eye_{i}", (long * 0.7, high * 0.25, s * 0.075), 0.035)


MAKERS: dict[str, Callable[[Builder], None]] = {
    "bird": make_bird,
    "character": make_character,
    "fish": make_fish,
    "quadruped": make_quadruped,
    "robot": make_robot,
    "robotarm": make_robotarm,
    "spider": make_spider,
}
