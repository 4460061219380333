"""Tools, vessels and small things: each function lists the parts of one random object (Y up)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural.builder import Builder, make_rotation


# The dimensions of a shape, one by one.
def add_handle_arc(b: Builder, name: str, x: float, low: float, high: float, radius: float) -> None:
    """A bent handle on the +X side."""
    mid, out = (low + high) / 2, x + (high - low) * b.draw_uniform(0.4, 0.7)
    line = [
        (x, low, 0),
        (out * 0.95, low + 0.02, 0),
        (out, mid, 0),
        (out * 0.95, high - 0.02, 0),
        (x, high, 0),
    ]
    b.add_tube(name, line, radius)


def make_mug(b: Builder) -> None:
    """Body (open), handle, maybe saucer, lid or spoon."""
    r, h, t = b.draw_uniform(0.2, 0.32), b.draw_uniform(0.4, 0.7), 0.03
    low = r * b.draw_uniform(0.7, 1)
    b.add_lathe("body_0", [(0, 0), (low, 0), (r, h), (r - t, h), (low - t, t), (0, t)], sides=22)
    add_handle_arc(
        b, "handle_0", (r + low) / 2 - 0.02, h * 0.2, h * 0.85, b.draw_uniform(0.025, 0.04)
    )
    if b.draw_chance(0.5):
        b.add_lathe(
            "saucer_0",
            [(0, -0.06), (low, -0.06), (r * 1.8, 0.0), (r * 1.7, 0.02), (0, -0.01)],
            sides=22,
        )
    if b.draw_chance(0.4):
        b.add_lathe("lid_0", [(0, h), (r * 1.05, h), (r * 0.8, h + 0.06), (0, h + 0.07)])
        b.add_ball("knob_0", (0, h + 0.1, 0), 0.04)
    elif b.draw_chance(0.4):
        b.add_rod("spoon_0", (0, t, 0), (-r * 0.8, h * 1.5, 0), 0.018)


def make_bottle(b: Builder) -> None:
    """Body, neck, cap, label band."""
    r, h, n = b.draw_uniform(0.14, 0.26), b.draw_uniform(0.5, 0.8), b.draw_uniform(0.04, 0.09)
    b.add_lathe(
        "body_0",
        [(0, 0), (r, 0), (r, h), (r * 0.8, h + 0.08), (n, h + 0.18), (0, h + 0.18)],
        sides=20,
    )
    neck = h + 0.18 + b.draw_uniform(0.05, 0.2)
    b.add_rod("neck_0", (0, h + 0.17, 0), (0, neck, 0), n)
    b.add_rod("cap_0", (0, neck, 0), (0, neck + b.draw_uniform(0.05, 0.12), 0), n * 1.25)
    if b.draw_chance(0.7):
        low = h * b.draw_uniform(0.15, 0.35)
        b.add_lathe(
            "band_0", [(r * 1.02, low), (r * 1.02, low + h * b.draw_uniform(0.3, 0.5))], sides=20
        )


def make_teapot(b: Builder) -> None:
    """Body, lid, knob, spout, handle, foot."""
    r, h = b.draw_uniform(0.3, 0.4), b.draw_uniform(0.22, 0.32)
    b.add_ball("body_0", (0, h, 0), (r, h, r))
    b.add_lathe("lid_0", [(r * 0.5, h * 1.85), (r * 0.3, h * 2.08), (0, h * 2.15)])
    b.add_ball("knob_0", (0, h * 2.25, 0), 0.05)
    b.add_tube(
        "spout_0",
        [(-r * 0.8, h * 0.8, 0), (-r * 1.3, h * 1.1, 0), (-r * 1.6, h * 1.8, 0)],
        b.draw_uniform(0.04, 0.07),
    )
    add_handle_arc(b, "handle_0", r * 0.8, h * 0.6, h * 1.6, 0.035)
    b.add_rod("foot_0", (0, -0.03, 0), (0, 0.05, 0), r * 0.6)


def make_hammer(b: Builder) -> None:
    """Handle, grip, head, face, claw or peen."""
    h, r = b.draw_uniform(0.8, 1.1), b.draw_uniform(0.025, 0.045)
    b.add_rod("handle_0", (0, h * 0.3, 0), (0, h, 0), r)
    b.add_rod("grip_0", (0, 0, 0), (0, h * 0.32, 0), r * 1.4, r * 1.2)
    b.add_box("head_0", (0, h, 0), (0.24, 0.12, 0.1), bevel=0.02)
    b.add_rod(
        "face_0",
        (0.12, h, 0),
        (0.12 + b.draw_uniform(0.06, 0.14), h, 0),
        b.draw_uniform(0.06, 0.09),
    )
    if b.draw_chance(0.5):
        for i, s in enumerate((-1, 1)):
            b.add_rod(f"claw_{i}", (-0.1, h, s * 0.025), (-0.34, h - 0.08, s * 0.05), 0.035, 0.01)
    else:
        b.add_rod("peen_0", (-0.12, h, 0), (-0.3, h, 0), 0.06, b.draw_uniform(0.01, 0.06))


def make_screwdriver(b: Builder) -> None:
    """Handle, collar, shaft, tip."""
    r, h = b.draw_uniform(0.06, 0.1), b.draw_uniform(0.3, 0.45)
    b.add_lathe(
        "handle_0",
        [(0, 0), (r * 0.8, 0.02), (r, h * 0.3), (r * 0.75, h * 0.7), (r, h), (0, h)],
        sides=b.draw_integer(6, 14),
    )
    b.add_rod("collar_0", (0, h, 0), (0, h + 0.05, 0), r * 0.7)
    top = h + b.draw_uniform(0.4, 0.7)
    b.add_rod("shaft_0", (0, h + 0.05, 0), (0, top, 0), b.draw_uniform(0.02, 0.03))
    b.add_rod("tip_0", (0, top, 0), (0, top + 0.12, 0), 0.035, 0.01, 4)


def make_sword(b: Builder) -> None:
    """Blade, guard, grip, pommel."""
    w, long = b.draw_uniform(0.05, 0.1), b.draw_uniform(0.7, 1.1)
    outline = [[-w, 0], [w, 0], [w * 0.8, -long * 0.85], [0, -long], [-w * 0.8, -long * 0.85]]
    b.add_plate("blade_0", outline, 0.02, (0, 0.3, 0), rot=make_rotation((1, 0, 0), np.pi / 2))
    if b.draw_chance(0.6):
        b.add_box("guard_0", (0, 0.3, 0), (b.draw_uniform(0.3, 0.45), 0.05, 0.06))
    else:
        b.add_tube("guard_0", [(-0.2, 0.36, 0), (0, 0.3, 0), (0.2, 0.36, 0)], 0.03)
    b.add_rod("grip_0", (0, 0.05, 0), (0, 0.28, 0), 0.03)
    b.add_ball("pommel_0", (0, 0.03, 0), b.draw_uniform(0.04, 0.06))


def make_axe(b: Builder) -> None:
    """Shaft, blade(s), collar, spike."""
    h = b.draw_uniform(0.8, 1.2)
    b.add_rod("shaft_0", (0, 0, 0), (0, h, 0), 0.03)
    b.add_box("collar_0", (0, h * 0.88, 0), (0.12, 0.16, 0.08))
    for i, s in enumerate((-1, 1)[: b.draw_integer(1, 2)]):
        outline = [
            [s * 0.05, -0.05],
            [s * 0.32, -0.2],
            [s * 0.36, 0.0],
            [s * 0.32, 0.2],
            [s * 0.05, 0.05],
        ]
        b.add_plate(
            f"blade_{i}", outline, 0.03, (0, h * 0.88, 0), rot=make_rotation((1, 0, 0), np.pi / 2)
        )
    if b.draw_chance(0.5):
        b.add_rod("spike_0", (0, h, 0), (0, h + 0.18, 0), 0.03, 0.001)
    b.add_ball("pommel_0", (0, 0, 0), 0.045)


def make_umbrella(b: Builder) -> None:
    """Canopy (open), pole, hook, tip."""
    r, h = b.draw_uniform(0.45, 0.6), b.draw_uniform(0.8, 1.0)
    b.add_lathe(
        "canopy_0",
        [(r, h - b.draw_uniform(0.15, 0.3)), (r * 0.7, h - 0.08), (0, h)],
        sides=b.draw_integer(6, 12),
    )
    b.add_rod("pole_0", (0, 0.1, 0), (0, h, 0), 0.018)
    b.add_tube(
        "hook_0",
        [(0, 0.12, 0), (0, 0.02, 0), (0.05, -0.04, 0), (0.1, 0.0, 0), (0.1, 0.05, 0)],
        0.025,
    )
    b.add_rod("tip_0", (0, h, 0), (0, h + 0.1, 0), 0.02, 0.004)


def make_clock(b: Builder) -> None:
    """Case, face, hands, bells, feet."""
    r = b.draw_uniform(0.35, 0.5)
    b.add_rod("case_0", (0, 0, -0.1), (0, 0, 0.08), r, sides=24)
    b.add_rod("face_0", (0, 0, 0.08), (0, 0, 0.1), r * 0.88, sides=24)
    for i, long in enumerate((0.5, 0.75)):
        a = b.draw_uniform(0, 6.28)
        b.add_rod(
            f"hand_{i}", (0, 0, 0.12), (r * long * np.cos(a), r * long * np.sin(a), 0.12), 0.022
        )
    for i, s in enumerate((-1, 1)):
        b.add_rod(f"foot_{i}", (s * r * 0.6, -r * 0.7, 0), (s * r * 0.8, -r * 1.15, 0), 0.04)
        if b.draw_chance(0.7):
            b.add_ball(f"bell_{i}", (s * r * 0.6, r * 0.95, 0), (0.15, 0.11, 0.1))


def make_fan(b: Builder) -> None:
    """Base, pole, motor, cage ring, blades."""
    h, r = b.draw_uniform(0.6, 0.9), b.draw_uniform(0.25, 0.35)
    b.add_rod("base_0", (0, 0, 0), (0, 0.05, 0), 0.25, 0.2, 20)
    b.add_rod("pole_0", (0, 0.05, 0), (0, h, 0), 0.03)
    b.add_rod("motor_0", (0, h, -0.14), (0, h, 0.02), 0.09)
    b.add_ring("cage_0", (0, h, 0.08), r, 0.02, (0, 0, 1))
    for i in range(count := b.draw_integer(3, 5)):
        a = i / count * 2 * np.pi
        at = (r * 0.5 * np.cos(a), h + r * 0.5 * np.sin(a), 0.08)
        spin = make_rotation((0, 0, 1), a) @ make_rotation((1, 0, 0), 0.5)
        b.add_box(f"blade_{i}", at, (r * 0.8, r * 0.45, 0.015), rot=spin)
    b.add_ball("hub_0", (0, h, 0.08), 0.05)


def make_camera(b: Builder) -> None:
    """Body, lens rings, finder, buttons, strap lugs or tripod."""
    w, h, d = b.draw_uniform(0.6, 0.8), b.draw_uniform(0.4, 0.5), b.draw_uniform(0.2, 0.3)
    b.add_box("body_0", (0, 0, 0), (w, h, d), bevel=0.05)
    z, r = d / 2, b.draw_uniform(0.13, 0.18)
    for i in range(b.draw_integer(1, 3)):
        b.add_rod(f"lens_{i}", (0, 0, z), (0, 0, z + 0.12), r, sides=20)
        z, r = z + 0.12, r * 0.85
    b.add_box("finder_0", (0, h / 2 + 0.05, 0), (0.2, 0.1, d * 0.8))
    for i in range(b.draw_integer(1, 3)):
        b.add_rod(
            f"button_{i}",
            (w * 0.3 - 0.13 * i * 2, h / 2, 0),
            (w * 0.3 - 0.13 * i * 2, h / 2 + 0.05, 0),
            0.05,
        )
    if b.draw_chance(0.4):
        for i in range(3):
            a = i / 3 * 2 * np.pi + 0.5
            b.add_rod(
                f"leg_{i}", (0, -h / 2, 0), (0.4 * np.cos(a), -h / 2 - 0.7, 0.4 * np.sin(a)), 0.025
            )


def make_guitar(b: Builder) -> None:
    """Body, neck, head, bridge, hole, pegs."""
    r = b.draw_uniform(0.22, 0.3)
    b.add_rod("body_0", (0, 0, -0.06), (0, 0, 0.06), r, sides=20)
    b.add_rod("bout_0", (0, r * 1.05, -0.06), (0, r * 1.05, 0.06), r * 0.75, sides=20)
    top = r * 1.6 + b.draw_uniform(0.5, 0.7)
    b.add_box("neck_0", (0, (r * 1.5 + top) / 2, 0.04), (0.08, top - r * 1.5, 0.05))
    b.add_box("head_0", (0, top + 0.08, 0.03), (0.13, 0.18, 0.04))
    b.add_box("bridge_0", (0, -r * 0.3, 0.075), (0.18, 0.05, 0.03))
    b.add_rod("hole_0", (0, r * 0.7, 0.06), (0, r * 0.7, 0.07), 0.09)
    for i in range(b.draw_integer(2, 3) * 2):
        s = 1 if i % 2 else -1
        b.add_rod(
            f"peg_{i}",
            (s * 0.06, top + 0.03 + 0.05 * (i // 2), 0.03),
            (s * 0.13, top + 0.03 + 0.05 * (i // 2), 0.03),
            0.016,
        )


def make_stack(b: Builder) -> None:
    """No object at all: random solids that touch, some mirrored, for variety of joints."""
    at = np.zeros(3)
    for i in range(b.draw_integer(3, 8)):
        size = b.rng.uniform(0.15, 0.5, 3)
        spin = (
            make_rotation(b.rng.normal(size=3), b.draw_uniform(0, 1.2))
            if b.draw_chance(0.5)
            else None
        )
        sides = (1, -1) if i and b.draw_chance(0.35) else (1,)
        kind = b.draw_integer(0, 3)
        for k, s in enumerate(sides):
            spot = at * [1, 1, s] + [0, 0, 0.2 * s if len(sides) > 1 else 0]
            name = f"piece{i}_{k}"
            if kind == 0:
                b.add_box(name, spot, size, bevel=b.draw_uniform(0, 0.1), rot=spin)
            elif kind == 1:
                b.add_ball(name, spot, size / 2, rot=spin)
            elif kind == 2:
                axis = np.array([0.2, 1, 0]) if spin is None else spin[:, 1]
                b.add_rod(
                    name,
                    spot - axis * size[1] / 2,
                    spot + axis * size[1] / 2,
                    size[0] / 3,
                    b.draw_uniform(0.02, size[0] / 2),
                )
            else:
                b.add_ring(name, spot, size[0] / 1.5, size[0] / 5, b.rng.normal(size=3))
        step = b.rng.normal(size=3)
        at = at + step / np.linalg.norm(step) * size.mean() * 0.8


MAKERS: dict[str, Callable[[Builder], None]] = {
    "axe": make_axe,
    "bottle": make_bottle,
    "camera": make_camera,
    "clock": make_clock,
    "fan": make_fan,
    "guitar": make_guitar,
    "hammer": make_hammer,
    "mug": make_mug,
    "screwdriver": make_screwdriver,
    "stack": make_stack,
    "sword": make_sword,
    "teapot": make_teapot,
    "umbrella": make_umbrella,
}
