"""Collects labelled solids and turns them into a LabelledMesh.

Every call names the part instance that it adds to ("leg_2"); the same name twice is one part.
Faces come out grouped by material, as a written file would hold them; labels follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segvigen_model.datasets.procedural import primitives
from segvigen_model.datasets.procedural.primitives import Solid
from segvigen_model.types import AssetMesh, FloatArray, IntArray

Vector = Sequence[float] | FloatArray
IDENTITY = np.eye(3)


@dataclass(frozen=True, slots=True)
class LabelledMesh:
    """A mesh whose parts are known because it was made from them.

    Attributes:
        mesh: Y up, arbitrary units.
        face_labels: (F,) int32, dense 0..P-1, one per part instance.
        part_names: P names such as "leg_2".
        category, seed: what makes the same mesh again.
    """

    mesh: AssetMesh
    face_labels: IntArray
    part_names: tuple[str, ...]
    category: str
    seed: int


def make_rotation(axis: Vector, angle: float) -> FloatArray:
    """(3, 3) rotation about `axis` by `angle` radians."""
    x, y, z = np.asarray(axis, float) / (np.linalg.norm(axis) + 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: FloatArray = IDENTITY + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation


@dataclass(slots=True)
class Builder:
    """The workbench of one shape; short verbs so that a category reads like a parts list."""

    rng: np.random.Generator
    solids: list[tuple[str, Solid]] = field(default_factory=list)

    def draw_uniform(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.rng.uniform(low, high))

    def draw_integer(self, low: int, high: int) -> int:
        """A uniform integer, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def draw_chance(self, share: float) -> bool:
        """True with probability `share`."""
        return bool(self.rng.random() < share)

    def add(
        self, name: str, solid: Solid, at: Vector = (0, 0, 0), rot: FloatArray | None = None
    ) -> None:
        """Add a solid to part `name`, turned by `rot` and then moved to `at`."""
        self.solids.append(
            (name, primitives.transform_solid(solid, IDENTITY if rot is None else rot, at))
        )

    def add_box(
        self,
        name: str,
        at: Vector,
        size: Vector,
        *,
        bevel: float = 0.0,
        rot: FloatArray | None = None,
    ) -> None:
        """A cuboid with its centre at `at`."""
        self.add(name, primitives.make_box(list(size), bevel), at, rot)

    def add_ball(
        self, name: str, at: Vector, radii: Vector | float, *, rot: FloatArray | None = None
    ) -> None:
        """An ellipsoid with its centre at `at`."""
        triple = [radii] * 3 if isinstance(radii, int | float) else list(radii)
        self.add(name, primitives.make_ball(triple, self.draw_integer(10, 18)), at, rot)

    # The dimensions of a shape, one by one.
    def add_rod(
        self,
        name: str,
        a: Vector,
        b: Vector,
        radius: float,
        tip: float | None = None,
        sides: int = 0,
    ) -> None:
        """A cylinder (or frustum with `tip` radius at b) from a to b."""
        start, end = np.asarray(a, float), np.asarray(b, float)
        axis = end - start
        height = float(np.linalg.norm(axis))
        solid = primitives.make_cone(
            radius, radius if tip is None else tip, height, sides or self.draw_integer(8, 16)
        )
        self.add(name, solid, (start + end) / 2, primitives.make_axis_frame(axis))

    def add_limb(self, name: str, a: Vector, b: Vector, radius: float) -> None:
        """A capsule from a to b."""
        start, end = np.asarray(a, float), np.asarray(b, float)
        axis = end - start
        solid = primitives.make_capsule(radius, float(np.linalg.norm(axis)))
        self.add(name, solid, (start + end) / 2, primitives.make_axis_frame(axis))

    def add_ring(
        self, name: str, at: Vector, major: float, minor: float, axis: Vector = (0, 1, 0)
    ) -> None:
        """A torus about `axis`."""
        self.add(name, primitives.make_torus(major, minor), at, primitives.make_axis_frame(axis))

    def add_lathe(
        self,
        name: str,
        profile: Sequence[tuple[float, float]],
        at: Vector = (0, 0, 0),
        *,
        axis: Vector = (0, 1, 0),
        sides: int = 18,
    ) -> None:
        """A surface of revolution about `axis` through `at`."""
        self.add(name, primitives.make_lathe(profile, sides), at, primitives.make_axis_frame(axis))

    def add_tube(
        self, name: str, points: Sequence[Vector], radius: float, *, closed: bool = False
    ) -> None:
        """A bent pipe through `points`."""
        self.add(name, primitives.make_tube(np.asarray(points, float), radius, closed=closed))

    # The dimensions of a shape, one by one.
    def add_plate(
        self,
        name: str,
        polygon: Sequence[Sequence[float]] | FloatArray,
        thickness: float,
        at: Vector = (0, 0, 0),
        *,
        rot: FloatArray | None = None,
        taper: float = 1.0,
    ) -> None:
        """A star-shaped polygon (x, z) extruded along Y, then turned and moved."""
        self.add(name, primitives.make_prism(np.asarray(polygon, float), thickness, taper), at, rot)

    def list_names(self) -> tuple[str, ...]:
        """Part names in order of first use."""
        return tuple(dict.fromkeys(name for name, _ in self.solids))

    def merge_solids(self) -> tuple[FloatArray, IntArray, IntArray, tuple[str, ...]]:
        """All solids as one soup.

        Returns:
            vertices (V, 3) float64, faces (F, 3) int64, labels (F,) int32, part names.
        """
        names = self.list_names()
        index = {name: i for i, name in enumerate(names)}
        offsets = np.cumsum([0, *(len(s.vertices) for _, s in self.solids)])
        pairs = list(zip(self.solids, offsets, strict=False))
        vertices = np.concatenate([s.vertices for _, s in self.solids])
        faces = np.concatenate([s.faces + start for (_, s), start in pairs]).astype(np.int64)
        labels = np.concatenate(
            [np.full(len(s.faces), index[name], np.int32) for name, s in self.solids]
        )
        return vertices, faces, labels, names
