"""What a USD scene draws, and where: meshes with their transforms, instances one by one.

Frame: glTF's, metres and Y up, by the stage's own unit and axis. Prims that are invisible or for
guides and proxies are left out and counted. Values are those of the first moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits, make_unreadable_error
from segvigen_model.mesh.formats.usd_library import import_usd, shorten_message
from segvigen_model.types import FloatArray

SHOWN = ("default", "render")
MAX_DEPTH = 16  # point instancers in point instancers
# Surfaces that are no polygons.
OTHER_SURFACES = (
    "Sphere", "Cube", "Cylinder", "Cylinder_1", "Cone", "Capsule", "Capsule_1", "Plane",
    "NurbsPatch", "TetMesh", "HermiteCurves", "NurbsCurves", "BasisCurves", "Points",
)  # fmt: skip
Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True, slots=True)
class Drawn:
    """One mesh at one place.

    Attributes:
        prim: the mesh.
        matrix: (4, 4) from its frame to glTF's.
    """

    prim: Any
    matrix: FloatArray


@dataclass(slots=True)
class UsdWalk:
    """Walks a stage.

    Attributes:
        stage: put together already.
        limits: of nodes.
        counts: what was left out.
    """

    stage: Any
    limits: MeshLimits
    counts: Counter[str] = field(default_factory=Counter)
    _num_nodes: int = 0

    @property
    def time(self) -> Any:
        """The moment at which values are read."""
        return import_usd("Usd").TimeCode.EarliestTime()

    def list_drawn(self) -> Iterator[Drawn]:
        """Meshes in the order of the stage, each instance for itself."""
        root = self.stage.GetPseudoRoot()
        frame = _read_frame(self.stage)
        yield from self._walk(root, frame, frame, 0, is_prototype=False)

    def _walk(
        self, start: Any, matrix: FloatArray, frame: FloatArray, depth: int, *, is_prototype: bool
    ) -> Iterator[Drawn]:
        """Meshes at and below a prim whose own matrix is given by its parent's.

        Args:
            start: begin here.
            matrix: (4, 4) of its parent; of itself for a prototype.
            frame: (4, 4) of the stage, or of a prototype: what a transform that is reset has.
            depth: of point instancers.
            is_prototype: `start` has its transform already, and may be an `over`.
        """
        usd = import_usd("Usd")
        predicate = usd.PrimIsActive & usd.PrimIsLoaded & ~usd.PrimIsAbstract
        if not is_prototype:
            predicate &= usd.PrimIsDefined
        predicate = usd.TraverseInstanceProxies(predicate)
        waiting = [(start, matrix)]
        while waiting:
            prim, above = waiting.pop()
            self._count_node()
            own = above
            if not (is_prototype and prim == start):
                own = self._place(prim, above, frame)
            if not self._is_visible(prim):
                continue
            kind = str(prim.GetTypeName())
            if kind == "PointInstancer":
                if self._is_shown(prim):
                    yield from self._expand(prim, own, depth)
                continue
            if kind == "Mesh" and self._is_shown(prim):
                yield Drawn(prim, own)
            elif kind in OTHER_SURFACES:
                self.counts["surfaces_without_polygons"] += 1
            children = prim.GetFilteredChildren(predicate)
            waiting.extend((child, own) for child in reversed(list(children)))

    def _count_node(self) -> None:
        self._num_nodes += 1
        if self._num_nodes > self.limits.max_nodes:
            raise AssetRejected(
                "too_many_nodes",
                f"over {self.limits.max_nodes} prims with all instances; join its meshes",
            )

    def _place(self, prim: Any, above: FloatArray, frame: FloatArray) -> FloatArray:
        xformable = import_usd("UsdGeom").Xformable(prim)
        if not xformable:
            return above
        local = np.array(xformable.GetLocalTransformation(self.time), dtype=np.float64).T
        return _check_finite((frame if xformable.GetResetXformStack() else above) @ local, prim)

    def _is_visible(self, prim: Any) -> bool:
        imageable = import_usd("UsdGeom").Imageable(prim)
        if imageable and imageable.GetVisibilityAttr().Get(self.time) == "invisible":
            self.counts["invisible_prims_left_out"] += 1
            return False
        return True

    def _is_shown(self, prim: Any) -> bool:
        if str(import_usd("UsdGeom").Imageable(prim).ComputePurpose()) in SHOWN:
            return True
        self.counts["guides_and_proxies_left_out"] += 1
        return False

    def _expand(self, prim: Any, matrix: FloatArray, depth: int) -> Iterator[Drawn]:
        """All instances of a point instancer."""
        geom = import_usd("UsdGeom")
        if depth >= MAX_DEPTH:
            raise make_unreadable_error(f"USD instancers are nested deeper than {MAX_DEPTH}")
        instancer = geom.PointInstancer(prim)
        numbers = instancer.GetProtoIndicesAttr().Get(self.time)
        positions = instancer.GetPositionsAttr().Get(self.time)
        targets = instancer.GetPrototypesRel().GetForwardedTargets()
        count = 0 if numbers is None else len(numbers)
        if count != (0 if positions is None else len(positions)):
            raise AssetRejected(
                "truncated", f"{prim.GetPath()} has {count} instances, not as many positions"
            )
        if not count:
            return
        if not 0 <= min(numbers) <= max(numbers) < len(targets):
            raise make_unreadable_error(
                f"{prim.GetPath()} names prototype {max(numbers)} of {len(targets)}"
            )
        mask = instancer.ComputeMaskAtTime(self.time)
        places = instancer.ComputeInstanceTransformsAtTime(
            self.time, self.time, geom.PointInstancer.IncludeProtoXform,
            geom.PointInstancer.IgnoreMask,
        )  # fmt: skip
        if len(places) != count or (len(mask) and len(mask) != count):
            raise make_unreadable_error(f"the instances of {prim.GetPath()} have no places")
        for place in range(count):
            if len(mask) and not mask[place]:
                self.counts["invisible_prims_left_out"] += 1
                continue
            target = self.stage.GetPrimAtPath(targets[numbers[place]])
            if not target:
                raise make_unreadable_error(f"prototype {targets[numbers[place]]} does not exist")
            own = _check_finite(matrix @ np.array(places[place], dtype=np.float64).T, prim)
            yield from self._walk(target, own, matrix, depth + 1, is_prototype=True)


def open_stage(layer: Any) -> Any:
    """Put a scene together; what does not fit together refuses it."""
    stage = import_usd("Usd").Stage.Open(layer)
    errors = stage.GetCompositionErrors()
    if errors:
        words = shorten_message(str(errors[0]))
        raise make_unreadable_error(f"the USD does not fit together: {words}")
    return stage


def _read_frame(stage: Any) -> FloatArray:
    """(4, 4) from the stage's axis and unit to metres with Y up."""
    geom = import_usd("UsdGeom")
    unit = float(geom.GetStageMetersPerUnit(stage))
    if not (np.isfinite(unit) and unit > 0):
        raise make_unreadable_error(f"the USD's metersPerUnit is {unit}")
    axes = Z_UP if str(geom.GetStageUpAxis(stage)) == "Z" else np.eye(4)
    frame: FloatArray = np.diag([unit, unit, unit, 1.0]) @ axes
    return frame


def _check_finite(matrix: FloatArray, prim: Any) -> FloatArray:
    if not np.isfinite(matrix).all():
        raise make_unreadable_error(f"the transform of {str(prim.GetPath())[:120]} is not finite")
    return matrix
